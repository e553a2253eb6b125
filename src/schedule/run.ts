/** The state of a running request: its tokens, its text, and the conditions that end it. */
import type { DraftRequest } from '../drafting/drafter.ts';
import { OptionError } from '../errors.ts';
import type { Evaluator } from '../evaluate/evaluator.ts';
import type { Sequence } from '../evaluate/sequence.ts';
import { logDecodeStep } from '../profile/log.ts';
import type { PhaseTimes } from '../profile/scopes.ts';
import { tracedNow } from '../profile/trace.ts';
import { encodeShifted } from '../prompts/context-shift.ts';
import { checkLength } from '../prompts/limits.ts';
import type { Prompt, PromptEncoder } from '../prompts/prompt.ts';
import type { RequestRecorder } from '../recording/recorder.ts';
import { type Sample, Sampler } from '../sampling/sampler.ts';
import type { FinishReason, GenerateEvent, GenerateResult, StepTiming } from './events.ts';
import type { GenerateSettings } from './generation-options.ts';
import { ShownText } from './shown-text.ts';

/** A request for one text. */
export interface Request {
  readonly prompt: Prompt;
  readonly settings: GenerateSettings;
  /** With `contextShift`: number of messages that the previous turn dropped. */
  readonly dropped?: number;
}

/** Shared by the requests of one model. */
export interface RunContext {
  readonly evaluator: Evaluator;
  readonly prompts: PromptEncoder;
  readonly eosTokenIds: ReadonlySet<number>;
  /** Default number of draft tokens. */
  readonly guesses: number;
  readonly recorder?: RequestRecorder | undefined;
}

/** Whether the text continues the prompt; the answer in a chat is a new text. */
const continuesText = (prompt: Prompt): boolean =>
  typeof prompt === 'string' || !('messages' in prompt) || prompt.continueFinalMessage === true;

export class Run implements DraftRequest {
  readonly settings: GenerateSettings;
  readonly promptIds: readonly number[];
  /** Token ids of prompt and text so far. */
  readonly history: number[];
  readonly tokenIds: number[] = [];
  readonly sampler: Sampler;
  sequence: Sequence;
  finishReason: FinishReason | undefined;
  text = '';
  /** Milliseconds of forwards since the last token. */
  spent = 0;
  /** Phases of the last forward, if timed. */
  phases: PhaseTimes | undefined;
  readonly #context: RunContext;
  readonly #steps: StepTiming[] = [];
  readonly #shown: ShownText;
  /** Largest number of draft tokens. */
  readonly #guesses: number;
  /** Time limit, as `performance.now()`. */
  #timeout = Number.POSITIVE_INFINITY;
  readonly #dropped: number | undefined;
  /** Prompt tokens found in the cache, and positions computed or found so far, also before pauses. */
  #cached = 0;
  #reached = 0;
  /** Prompt tokens reported by the last `progress` event. */
  #told = 0;
  /** Numbers of draft tokens, and of accepted ones. */
  #drafted = 0;
  #accepted = 0;
  #stoppedBy: number | string | undefined;

  /** @throws OptionError, TemplateError, TokenizerError, ContextLengthError */
  constructor(context: RunContext, { prompt, settings, dropped }: Request) {
    const { prompts, evaluator } = context;
    const { contextLength, longestContext, tokenizer } = prompts.files;
    this.#context = context;
    this.settings = settings;
    const encode = (): { readonly ids: readonly number[]; readonly dropped?: number | undefined } =>
      settings.contextShift
        ? encodeShifted(prompts, prompt, settings.maxTokens, dropped)
        : { ids: prompts.encode(prompt) };
    const shifted = tracedNow(evaluator.trace, 'tokenize', encode, ({ ids }) => ({ tokens: ids.length }));
    this.promptIds = shifted.ids;
    this.#dropped = shifted.dropped;
    if (this.promptIds.length === 0)
      throw new OptionError('prompt', 'at least one token', typeof prompt === 'string' ? prompt : []);
    checkLength(this.promptIds.length, contextLength, longestContext);
    this.history = [...this.promptIds];
    this.sampler = new Sampler(settings, this.promptIds);
    this.#shown = new ShownText(tokenizer, continuesText(prompt) ? this.promptIds : [], {
      stop: settings.stop,
      hideSpecial: !settings.ignoreEos,
    });
    this.#guesses = settings.speculate ?? context.guesses;
    this.sequence = evaluator.cache.sequence({ expected: this.promptIds.length, key: this.cacheKey });
    if (settings.maxTokens === 0) this.finishReason = 'length';
  }

  get cacheKey(): string {
    return this.settings.cacheKey;
  }

  /** Whether no token has been generated yet. */
  get reading(): boolean {
    return this.tokenIds.length === 0;
  }

  /** Number of tokens of prompt and text. */
  get total(): number {
    return this.history.length;
  }

  /** Number of tokens of prompt and text that remain to be computed. */
  get missing(): number {
    return this.history.length - this.sequence.length;
  }

  /** Starts `timeoutMs`. */
  start(): void {
    this.#timeout = performance.now() + this.settings.timeoutMs;
  }

  /** Number of prompt tokens computed, if it has grown since the last call. (After a pause it may be smaller.) */
  progress(): number | undefined {
    const done = Math.min(this.sequence.length, this.promptIds.length);
    if (done <= this.#told) return undefined;
    this.#told = done;
    return done;
  }

  /** Reuses cached blocks of the tokens to be computed. @param beside a running request whose last block may be copied */
  async reuse(beside?: Run): Promise<void> {
    this.#reached = Math.max(this.#reached, this.sequence.length);
    const length = await this.sequence.reuse(this.history, this.history.length - 1, beside?.sequence);
    if (length <= this.#reached) return;
    if (this.reading) this.#cached += length - this.#reached;
    this.#reached = length;
  }

  /** Number of leading tokens in common with another request's prompt. */
  shared({ promptIds }: Run): number {
    let count = 0;
    while (count < promptIds.length && promptIds[count] === this.history[count]) count++;
    return count;
  }

  /** The tokens of the next forward, at most `most`. */
  next(most: number): number[] {
    return this.history.slice(this.sequence.length, this.sequence.length + most);
  }

  /** Largest number of draft tokens after the next token, to be checked by the same forward. */
  get mostGuesses(): number {
    if (this.#guesses === 0 || this.reading || this.missing !== 1) return 0;
    const left = Math.min(
      this.settings.maxTokens - this.tokenIds.length,
      this.#context.prompts.files.contextLength - this.history.length,
      this.#context.evaluator.steadyRows(this.sequence),
    );
    return Math.min(this.#guesses, left - 1);
  }

  /** Adds a sampled token to the text; undefined if it is an end token. */
  take(
    { id, logprob, top, inspection }: Sample,
    sampleMs: number,
  ): Extract<GenerateEvent, { type: 'token' }> | undefined {
    const prefill = this.reading;
    if (!prefill) logDecodeStep(this.tokenIds.length, this.spent, sampleMs);
    if (this.spent > 0) this.#steps.push({ prefill, ms: this.spent, phases: this.phases });
    this.spent = 0;
    const { ignoreEos, stopTokenIds, maxTokens } = this.settings;
    if (stopTokenIds.has(id) || (!ignoreEos && this.#context.eosTokenIds.has(id))) {
      this.finishReason = 'stop';
      this.#stoppedBy = id;
      return undefined;
    }
    this.sampler.accept(id);
    this.tokenIds.push(id);
    this.history.push(id);
    const piece = this.#shown.push(id);
    this.text += piece.text;
    if (piece.stop !== undefined) {
      this.finishReason = 'stop';
      this.#stoppedBy = piece.stop;
    } else if (this.tokenIds.length >= maxTokens) this.finishReason = 'length';
    else if (this.history.length >= this.#context.prompts.files.contextLength) this.finishReason = 'contextLength';
    return { type: 'token', id, text: piece.text, logprob, top, ...(inspection && { inspection }) };
  }

  /** After a forward of 1 + `drafted` rows, removes the positions of rejected draft tokens. @param taken accepted rows */
  settle(taken: number, drafted: number): void {
    if (drafted === 0) return;
    this.#drafted += drafted;
    this.#accepted += taken - 1;
    const wrong = 1 + drafted - taken;
    if (wrong > 0) this.sequence.truncate(this.sequence.length - wrong);
  }

  /** Ends the request if its time is up. */
  checkTime(): void {
    if (performance.now() >= this.#timeout || Date.now() >= this.settings.deadline) this.finishReason ??= 'timeout';
  }

  /** Releases the pages; they are computed again when the request resumes. */
  pause(): void {
    this.#reached = Math.max(this.#reached, this.sequence.length);
    this.sequence.release();
    this.sequence = this.#context.evaluator.cache.sequence({ expected: this.history.length, key: this.cacheKey });
  }

  /** Text that was held back and did not become a stop string. */
  flush(): string {
    const { text } = this.#shown.end();
    this.text += text;
    return text;
  }

  result(): GenerateResult {
    const ms = (prefill: boolean): number =>
      this.#steps.reduce((sum, step) => sum + (step.prefill === prefill ? step.ms : 0), 0);
    return {
      finishReason: this.finishReason ?? 'length',
      ...(this.#stoppedBy !== undefined && { stoppedBy: this.#stoppedBy }),
      promptTokenIds: this.promptIds,
      tokenIds: this.tokenIds,
      text: this.text,
      usage: {
        promptTokens: this.promptIds.length,
        completionTokens: this.tokenIds.length,
        cachedTokens: this.#cached,
        ...(this.#dropped !== undefined && { droppedMessages: this.#dropped }),
        ...(this.#guesses > 0 && { draftTokens: this.#drafted, acceptedDraftTokens: this.#accepted }),
      },
      seed: this.settings.seed,
      timings: { prefillMs: ms(true), decodeMs: ms(false), steps: this.#steps },
    };
  }
}
