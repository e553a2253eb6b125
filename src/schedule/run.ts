/** One request on its way through forwards: its tokens, its text, and what ends it. */
import type { DraftRequest } from '../drafting/drafter.ts';
import { OptionError } from '../errors.ts';
import type { Evaluator } from '../evaluate/evaluator.ts';
import type { Sequence } from '../evaluate/sequence.ts';
import { logDecodeStep } from '../profile/log.ts';
import type { PhaseTimes } from '../profile/scopes.ts';
import { encodeShifted } from '../prompts/context-shift.ts';
import { checkLength } from '../prompts/limits.ts';
import type { Prompt, PromptEncoder } from '../prompts/prompt.ts';
import { type Sample, Sampler } from '../sampling/sampler.ts';
import type { FinishReason, GenerateEvent, GenerateResult, StepTiming } from './events.ts';
import type { GenerateSettings } from './generation-options.ts';
import { ShownText } from './shown-text.ts';

/** What one sequence is to answer. */
export interface Request {
  readonly prompt: Prompt;
  readonly settings: GenerateSettings;
  /** With `contextShift`: messages that the turn before left out. */
  readonly dropped?: number;
}

/** What requests of one model share. */
export interface RunContext {
  readonly evaluator: Evaluator;
  readonly prompts: PromptEncoder;
  readonly eosTokenIds: ReadonlySet<number>;
  /** Tokens to guess ahead where a request does not say how many. */
  readonly guesses: number;
}

/** The answer of a chat begins a text of its own. */
const continuesText = (prompt: Prompt): boolean =>
  typeof prompt === 'string' || !('messages' in prompt) || prompt.continueFinalMessage === true;

export class Run implements DraftRequest {
  readonly settings: GenerateSettings;
  readonly promptIds: readonly number[];
  /** Prompt and text so far. */
  readonly history: number[];
  readonly tokenIds: number[] = [];
  readonly sampler: Sampler;
  sequence: Sequence;
  finishReason: FinishReason | undefined;
  text = '';
  /** Milliseconds of its forwards since the last token. */
  spent = 0;
  /** Of the last forward, where timed. */
  phases: PhaseTimes | undefined;
  readonly #context: RunContext;
  readonly #steps: StepTiming[] = [];
  readonly #shown: ShownText;
  /** Most tokens to guess ahead. */
  readonly #guesses: number;
  /** On the clock of `performance.now()`. */
  #timeout = Number.POSITIVE_INFINITY;
  readonly #dropped: number | undefined;
  /** Tokens of the prompt that the cache had, and positions that have been computed or found so far, pauses or not. */
  #cached = 0;
  #reached = 0;
  /** Tokens of the prompt that `progress` has told. */
  #told = 0;
  /** Tokens guessed ahead, and those of them that were right. */
  #drafted = 0;
  #accepted = 0;
  #stoppedBy: number | string | undefined;

  /** @throws OptionError, TemplateError, TokenizerError, ContextLengthError */
  constructor(context: RunContext, { prompt, settings, dropped }: Request) {
    const { prompts, evaluator } = context;
    const { contextLength, longestContext, tokenizer } = prompts.files;
    this.#context = context;
    this.settings = settings;
    const shifted = settings.contextShift
      ? encodeShifted(prompts, prompt, settings.maxTokens, dropped)
      : { ids: prompts.encode(prompt), dropped: undefined };
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
    this.sequence = evaluator.cache.sequence({ expected: this.promptIds.length });
    if (settings.maxTokens === 0) this.finishReason = 'length';
  }

  /** Whether no token has been chosen yet. */
  get reading(): boolean {
    return this.tokenIds.length === 0;
  }

  /** Tokens of prompt and text. */
  get total(): number {
    return this.history.length;
  }

  /** Tokens of prompt and text that a forward has to compute yet. */
  get missing(): number {
    return this.history.length - this.sequence.length;
  }

  /** Its `timeoutMs` begin. */
  start(): void {
    this.#timeout = performance.now() + this.settings.timeoutMs;
  }

  /** Tokens of the prompt that are computed, where more are than the last time. After a pause there may be fewer. */
  progress(): number | undefined {
    const done = Math.min(this.sequence.length, this.promptIds.length);
    if (done <= this.#told) return undefined;
    this.#told = done;
    return done;
  }

  /** Takes from the cache what it has of the tokens to be computed. @param beside a running one whose last block may be copied */
  async reuse(beside?: Run): Promise<void> {
    this.#reached = Math.max(this.#reached, this.sequence.length);
    const length = await this.sequence.reuse(this.history, this.history.length - 1, beside?.sequence);
    if (length <= this.#reached) return;
    if (this.reading) this.#cached += length - this.#reached;
    this.#reached = length;
  }

  /** Tokens that prompt and text so far have in common with another's. */
  shared({ promptIds }: Run): number {
    let count = 0;
    while (count < promptIds.length && promptIds[count] === this.history[count]) count++;
    return count;
  }

  /** The tokens of the next forward, at most `most`. */
  next(most: number): number[] {
    return this.history.slice(this.sequence.length, this.sequence.length + most);
  }

  /** Most tokens that may be guessed to follow the next one, for a forward to check beside it. */
  get mostGuesses(): number {
    if (this.#guesses === 0 || this.reading || this.missing !== 1) return 0;
    const left = Math.min(
      this.settings.maxTokens - this.tokenIds.length,
      this.#context.prompts.files.contextLength - this.history.length,
      this.#context.evaluator.steadyRows(this.sequence),
    );
    return Math.min(this.#guesses, left - 1);
  }

  /** Takes the token that a row's logits chose; undefined when an end token ended the text. */
  take({ id, logprob, top }: Sample, sampleMs: number): Extract<GenerateEvent, { type: 'token' }> | undefined {
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
    return { type: 'token', id, text: piece.text, logprob, top };
  }

  /** After a forward of 1 + `drafted` rows: gives back the places of guesses that were wrong. @param taken rows that counted */
  settle(taken: number, drafted: number): void {
    if (drafted === 0) return;
    this.#drafted += drafted;
    this.#accepted += taken - 1;
    const wrong = 1 + drafted - taken;
    if (wrong > 0) this.sequence.truncate(this.sequence.length - wrong);
  }

  /** Ends it where its time is up. */
  checkTime(): void {
    if (performance.now() >= this.#timeout || Date.now() >= this.settings.deadline) this.finishReason ??= 'timeout';
  }

  /** Gives its pages back, to be computed again later. */
  pause(): void {
    this.#reached = Math.max(this.#reached, this.sequence.length);
    this.sequence.release();
    this.sequence = this.#context.evaluator.cache.sequence({ expected: this.history.length });
  }

  /** Text that was held back and became no stop string. */
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
