/** What a diagnosis found. */
import type { Explanation } from '../backend/explanation.ts';

/** `fault`: Lanewise cannot work, or gives wrong results; `warning`: it works, but slower or with less than it could. */
export type FindingStatus = 'ok' | 'warning' | 'fault';

export interface Finding extends Explanation {
  readonly status: FindingStatus;
  /** What to do about it. */
  readonly remedy?: string;
}

interface FindingTexts {
  readonly why?: string | undefined;
  readonly remedy?: string | undefined;
}

export const finding = (
  status: FindingStatus,
  key: string,
  value: Finding['value'],
  { why, remedy }: FindingTexts = {},
): Finding => ({
  status,
  key,
  value,
  from: 'machine',
  ...(why !== undefined && { why }),
  ...(remedy !== undefined && { remedy }),
});
