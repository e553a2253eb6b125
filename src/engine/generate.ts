/** From prompts to events: what callers of a model see of its runs. */
import { LanewiseError, OptionError } from '../errors.ts';
import type { Phases } from '../profile/scopes.ts';
import type { TokenChoice } from '../sampling/sampler.ts';
import { type Request, type RequestEvent, runAll } from '../schedule/batch.ts';
import { type GenerateOptions, type GenerateSettings, validateGenerate } from '../schedule/generation-options.ts';
import type { KeptState } from '../schedule/run.ts';
import { checkPrompt } from './limits.ts';
import type { Model, Prompt } from './model.ts';

/**
 * stop: an end token or a stop string; length: `maxTokens`; contextLength: the context is full; timeout and aborted: the
 * text so far; error: in batches, see `error` of the result.
 */
export type FinishReason = 'stop' | 'length' | 'contextLength' | 'timeout' | 'aborted' | 'error';

export interface Usage {
  readonly promptTokens: number;
  readonly completionTokens: number;
  /** Tokens of the prompt that had been computed before, for whatever request. */
  readonly cachedTokens: number;
  /** Messages at the front that the context did not hold; only with `contextShift`. */
  readonly droppedMessages?: number;
  /** Tokens guessed ahead, and those of them that were right; only where `speculate` asked for it. */
  readonly draftTokens?: number;
  readonly acceptedDraftTokens?: number;
}

/** What led to a token: one forward, or all those that read the prompt. In a batch they are shared with other sequences. */
export interface StepTiming {
  readonly prefill: boolean;
  readonly ms: number;
  /** While timing is on. */
  readonly phases: Phases | undefined;
}

export interface GenerateResult {
  readonly finishReason: FinishReason;
  /** What ended it with finish reason `stop`: the id of an end token, or a stop string. */
  readonly stoppedBy?: number | string;
  /** Only in batches, with finish reason `error`. */
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

export type BatchResult = GenerateResult;

/** A prompt of a batch, with options of its own. */
export type BatchPrompt = Prompt | { readonly prompt: Prompt; readonly options?: GenerateOptions };

/** `index` counts the prompts of the batch from 0. */
export type BatchEvent = RequestEvent;

const settingsOf = (model: Model, options: GenerateOptions): GenerateSettings =>
  validateGenerate(options, { vocab: model.description.config.vocab });

/**
 * Options are checked at once. An abort or timeout ends with a `done` event; then `throwOnAbort` and `throwOnTimeout` decide
 * whether an error follows. Leaving the loop early frees the sequence, unless it is `kept` by a conversation.
 * @throws OptionError
 */
export function generate(
  model: Model,
  prompt: Prompt,
  options: GenerateOptions,
  kept?: KeptState,
): AsyncGenerator<GenerateEvent, void, undefined> {
  const settings = settingsOf(model, options);
  checkPrompt(prompt);
  return runOne(model, { prompt, settings, kept }, settings);
}

async function* runOne(
  model: Model,
  request: Request,
  settings: GenerateSettings,
): AsyncGenerator<GenerateEvent, void, undefined> {
  // What never began has no end to tell.
  if (settings.throwOnAbort) settings.signal?.throwIfAborted();
  for await (const { index: _, ...event } of runAll(model, [request])) {
    if (event.type === 'done' && event.error) throw event.error;
    yield event;
    if (event.type === 'done') throwEnd(event, settings);
  }
}

/** The error that the options ask for where a generation was ended from outside. */
function throwEnd({ finishReason }: Pick<GenerateResult, 'finishReason'>, settings: GenerateSettings): void {
  if (finishReason === 'aborted' && settings.throwOnAbort) settings.signal?.throwIfAborted();
  if (finishReason === 'timeout' && settings.throwOnTimeout)
    throw new LanewiseError('Timeout', `the generation took more than timeoutMs ${settings.timeoutMs}`);
}

/**
 * Events of many prompts in shared forwards, as they come. An error of one prompt is in its `done` event, and the others go on.
 * Without a seed one is drawn for every prompt; a given seed is that of every prompt.
 * @throws OptionError for the options that are common to all, and for values that are no prompts
 */
export function generateStream(
  model: Model,
  prompts: readonly BatchPrompt[],
  options: GenerateOptions,
): AsyncGenerator<BatchEvent, void, undefined> {
  if (!Array.isArray(prompts) || prompts.length === 0)
    throw new OptionError('prompts', 'an array of at least one prompt', prompts);
  const common = settingsOf(model, options);
  const requests = prompts.map((prompt, index) => requestOf(model, prompt, options, index));
  return streamAll(model, requests, common);
}

async function* streamAll(
  model: Model,
  requests: readonly Request[],
  common: GenerateSettings,
): AsyncGenerator<BatchEvent, void, undefined> {
  if (common.throwOnAbort) common.signal?.throwIfAborted();
  let aborted = false;
  let late = false;
  for await (const event of runAll(model, requests)) {
    yield event;
    if (event.type !== 'done') continue;
    aborted ||= event.finishReason === 'aborted' && common.signal?.aborted === true;
    late ||= event.finishReason === 'timeout';
  }
  if (aborted) throwEnd({ finishReason: 'aborted' }, common);
  if (late) throwEnd({ finishReason: 'timeout' }, common);
}

function requestOf(model: Model, given: BatchPrompt, common: GenerateOptions, index: number): Request {
  const own = typeof given === 'object' && given !== null && 'prompt' in given ? given : { prompt: given };
  const { prompt, options = {} } = own as { prompt: Prompt; options?: GenerateOptions };
  try {
    checkPrompt(prompt);
    if (typeof options !== 'object' || options === null) throw new OptionError('options', 'an object', options);
  } catch (error) {
    if (error instanceof LanewiseError) error.message = `prompts[${index}]: ${error.message}`;
    throw error;
  }
  try {
    return { prompt, settings: settingsOf(model, { ...common, ...options }) };
  } catch (error) {
    if (error instanceof LanewiseError) return { prompt, settings: error };
    throw error;
  }
}

/** Results in the order of the prompts. @throws as `generateStream` */
export async function generateBatch(
  model: Model,
  prompts: readonly BatchPrompt[],
  options: GenerateOptions,
): Promise<BatchResult[]> {
  const results: BatchResult[] = [];
  for await (const event of generateStream(model, prompts, options)) {
    if (event.type !== 'done') continue;
    const { type: _, index, ...result } = event;
    results[index] = result;
  }
  return results;
}
