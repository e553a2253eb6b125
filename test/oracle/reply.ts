/** One reply of a schedule, as its reader heard it. */
import type { Prompt } from '../../src/prompts/prompt.ts';
import type { GenerateResult } from '../../src/schedule/events.ts';
import type { TokenBits } from './reference.ts';
import type { PlannedRequest } from './schedule.ts';

/** One reply that is on its way, or has come. */
export interface Reply {
  readonly request: PlannedRequest;
  readonly prompt: Prompt;
  readonly seed: number;
  readonly submitted: number;
  readonly tokens: TokenBits[];
  /** Whether events were read: a result alone has none. */
  events: number;
  text: string;
  /** Rows of the prompt told last. */
  prefill: number;
  result?: GenerateResult;
  error?: unknown;
  ended?: number;
  cancelled?: number;
  left: boolean;
}
