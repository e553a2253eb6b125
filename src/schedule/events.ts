/** What a request tells on its way, and what it comes to. */
import type { LanewiseError } from '../errors.ts';
import type { Phases } from '../profile/scopes.ts';
import type { TokenChoice } from '../sampling/sampler.ts';

/**
 * stop: an end token or a stop string; length: `maxTokens`; contextLength: the context is full; timeout and aborted: the
 * text so far; error: see `error` of the result.
 */
export type FinishReason = 'stop' | 'length' | 'contextLength' | 'timeout' | 'aborted' | 'error';

export interface Usage {
  readonly promptTokens: number;
  readonly completionTokens: number;
  /** Tokens of the prompt whose keys and values were in the cache already. */
  readonly cachedTokens: number;
  /** Messages at the front that the context did not hold; only with `contextShift`. */
  readonly droppedMessages?: number;
  /** Tokens guessed ahead, and those of them that were right; only where drafts were asked for. */
  readonly draftTokens?: number;
  readonly acceptedDraftTokens?: number;
}

/** What led to a token: one forward, or all those that read the prompt. Forwards are shared with other requests. */
export interface StepTiming {
  readonly prefill: boolean;
  readonly ms: number;
  /** Where `timing` asked for them. */
  readonly phases: Phases | undefined;
}

export interface GenerateResult {
  readonly finishReason: FinishReason;
  /** What ended it with finish reason `stop`: the id of an end token, or a stop string. */
  readonly stoppedBy?: number | string;
  /** With finish reason `error`. */
  readonly error?: LanewiseError;
  readonly promptTokenIds: readonly number[];
  /** Generated ids; an end token that ended the text is not among them. */
  readonly tokenIds: readonly number[];
  readonly text: string;
  readonly usage: Usage;
  readonly seed: number;
  readonly timings: { readonly prefillMs: number; readonly decodeMs: number; readonly steps: readonly StepTiming[] };
}

export type GenerateEvent =
  /** Tokens of the prompt that are computed, after each forward that computed some. */
  | { readonly type: 'prefill'; readonly done: number; readonly total: number }
  | {
      readonly type: 'token';
      readonly id: number;
      /** Text that is certain now: may be empty, never part of a stop string. */
      readonly text: string;
      readonly logprob: number;
      readonly top?: readonly TokenChoice[];
    }
  /** Behind the last token: text that was held back and became no stop string, or a character that never became whole. */
  | { readonly type: 'text'; readonly text: string }
  | ({ readonly type: 'done' } & GenerateResult);

/** The result of a request that ended before its prompt was read. */
export const emptyResult = (
  finishReason: 'aborted' | 'timeout' | 'error',
  seed: number,
  error?: LanewiseError,
): GenerateResult => ({
  finishReason,
  ...(error && { error }),
  promptTokenIds: [],
  tokenIds: [],
  text: '',
  usage: { promptTokens: 0, completionTokens: 0, cachedTokens: 0 },
  seed,
  timings: { prefillMs: 0, decodeMs: 0, steps: [] },
});
