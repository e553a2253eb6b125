/** The table of `--timings`: time of each step of a generation by phase. */
import type { PhaseTimes } from '../profile/scopes.ts';
import { formatMilliseconds } from '../profile/units.ts';
import { type Column, renderTable } from './table.ts';

export interface StepRow {
  /** From 1. */
  readonly step: number;
  readonly prefill: boolean;
  readonly phases: PhaseTimes;
}

const columns: readonly Column[] = [
  { title: 'Step' },
  ...['Embedding', 'Layers', 'Norm', 'Projection', 'Total'].map((title): Column => ({ title, align: 'right' })),
];

/** `| 1 (prefill) | 0.15ms | 125ms | 0.70ms | 10.6ms | 137ms |` */
export function renderStepTable(rows: readonly StepRow[]): string {
  return renderTable(
    columns,
    rows.map(({ step, prefill, phases: { embedding, layers, norm, projection, total } }) => [
      prefill ? `${step} (prefill)` : `${step}`,
      ...[embedding, layers, norm, projection, total].map(formatMilliseconds),
    ]),
  );
}
