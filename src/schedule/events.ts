/** Events and results of requests. */
import type { LanewiseError } from '../errors.ts';
import type { PhaseTimes } from '../profile/scopes.ts';
import type { TokenInspection } from '../sampling/inspection.ts';
import type { TokenChoice } from '../sampling/sampler.ts';

/**
 * Why a text ended. stop: an end token or a stop string; length: `maxTokens`; contextLength: the context is full; timeout,
 * aborted: the result has the text so far; error: see `error` of the result.
 */
export type FinishReason = 'stop' | 'length' | 'contextLength' | 'timeout' | 'aborted' | 'error';

export interface Usage {
  readonly promptTokens: number;
  readonly completionTokens: number;
  /** Prompt tokens whose keys and values were found in the cache. */
  readonly cachedTokens: number;
  /** Messages dropped because they did not fit in the context; only with `contextShift`. */
  readonly droppedMessages?: number;
  /** Tokens guessed ahead, and those of them that were right; only where drafts were asked for. */
  readonly draftTokens?: number;
  readonly acceptedDraftTokens?: number;
}

/**
 * Times of a token: one forward, or for the first token all forwards of the prefill. Forwards are shared with other
 * requests.
 */
export interface StepTiming {
  readonly prefill: boolean;
  readonly ms: number;
  /** Only with `timing`. */
  readonly phases: PhaseTimes | undefined;
}

export interface GenerateResult {
  readonly finishReason: FinishReason;
  /** With finish reason `stop`: the id of the end token, or the stop string. */
  readonly stoppedBy?: number | string;
  /** The error, with finish reason `error`. */
  readonly error?: LanewiseError;
  readonly promptTokenIds: readonly number[];
  /** Generated ids, without the end token. */
  readonly tokenIds: readonly number[];
  readonly text: string;
  readonly usage: Usage;
  readonly seed: number;
  readonly timings: { readonly prefillMs: number; readonly decodeMs: number; readonly steps: readonly StepTiming[] };
}

export type GenerateEvent =
  /** Number of prompt tokens computed so far, after each forward with prompt rows. */
  | { readonly type: 'prefill'; readonly done: number; readonly total: number }
  | {
      readonly type: 'token';
      readonly id: number;
      /** Text that later tokens cannot change. May be empty; never part of a stop string. */
      readonly text: string;
      readonly logprob: number;
      readonly top?: readonly TokenChoice[];
      /** How the token was chosen; only with `inspect`. */
      readonly inspection?: TokenInspection;
    }
  /** After the last token: text held back that did not become a stop string, or an incomplete character. */
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
