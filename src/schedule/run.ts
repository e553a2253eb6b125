/** One request on its way through forwards: its tokens, its text, and what ends it. */

import { encodeShifted } from '../engine/context-shift.ts';
import type { FinishReason, GenerateEvent, GenerateResult, StepTiming } from '../engine/generate.ts';
import { checkLength } from '../engine/limits.ts';
import type { Model, Prompt, StepLogits } from '../engine/model.ts';
import { OptionError } from '../errors.ts';
import type { Sequence } from '../evaluate/sequence.ts';
import { logDecodeStep } from '../profile/log.ts';
import { Sampler } from '../sampling/sampler.ts';
import type { GenerateSettings } from './generation-options.ts';
import { PromptLookup } from './lookup.ts';
import { ShownText } from './shown-text.ts';

/** State that a conversation keeps between turns. */
export interface KeptState {
  readonly sequence: Sequence;
  /** Messages that the last turn left out. */
  dropped: number;
}

/** The answer of a chat begins a text of its own. */
const continuesText = (prompt: Prompt): boolean =>
  typeof prompt === 'string' || !('messages' in prompt) || prompt.continueFinalMessage === true;

export class Run {
  readonly settings: GenerateSettings;
  readonly promptIds: readonly number[];
  readonly tokenIds: number[] = [];
  readonly steps: StepTiming[] = [];
  sequence: Sequence;
  finishReason: FinishReason | undefined;
  text = '';
  /** Milliseconds of its forwards since the last token. */
  spent = 0;
  /** Prompt and text so far. */
  readonly #history: number[];
  readonly #model: Model;
  readonly #kept: KeptState | undefined;
  readonly #sampler: Sampler;
  readonly #shown: ShownText;
  readonly #lookup: PromptLookup;
  readonly #deadline: number;
  readonly #dropped: number | undefined;
  /** Tokens of the prompt that were computed before. */
  #cached: number | undefined;
  #stoppedBy: number | string | undefined;

  /** @throws OptionError, TemplateError, TokenizerError, ContextLengthError */
  constructor(model: Model, prompt: Prompt, settings: GenerateSettings, kept?: KeptState) {
    this.#model = model;
    this.settings = settings;
    this.#kept = kept;
    const { ids, dropped } = settings.contextShift
      ? encodeShifted(model, prompt, settings.maxTokens, kept?.dropped)
      : { ids: model.encode(prompt), dropped: undefined };
    this.promptIds = ids;
    this.#dropped = dropped;
    if (kept) kept.dropped = dropped ?? 0;
    if (ids.length === 0)
      throw new OptionError('prompt', 'at least one token', typeof prompt === 'string' ? prompt : []);
    checkLength(ids.length, model.contextLength, model.description.config.contextLength);
    this.#history = [...ids];
    this.#sampler = new Sampler(settings, ids);
    this.#shown = new ShownText(model.tokenizer, continuesText(prompt) ? ids : [], {
      stop: settings.stop,
      hideSpecial: !settings.ignoreEos,
    });
    this.#lookup = new PromptLookup(settings.speculate);
    this.#deadline = performance.now() + settings.timeoutMs;
    this.sequence = kept?.sequence ?? model.sequence(ids.length);
    if (settings.maxTokens === 0) this.finishReason = 'length';
  }

  /** Whether no token has been chosen yet. */
  get reading(): boolean {
    return this.tokenIds.length === 0;
  }

  /** Takes over what the cache has of the tokens that are to be computed. @throws LanewiseError Disposed */
  async reuse(): Promise<void> {
    if (this.missing === 1 && !this.sequence.crosses(1)) return;
    const before = this.#cached === undefined ? 0 : this.sequence.length;
    const found = (await this.sequence.reuse(this.#history)) - before;
    if (this.reading) this.#cached = (this.#cached ?? 0) + found;
  }

  /** Tokens of prompt and text that a forward has to compute yet. */
  get missing(): number {
    return this.#history.length - this.sequence.length;
  }

  /** The tokens of the next forward, at most `most`. */
  next(most: number): number[] {
    return this.#history.slice(this.sequence.length, this.sequence.length + most);
  }

  /** At most `most` tokens guessed to follow the next one, which a forward can check beside it. */
  draft(most: number): readonly number[] {
    if (this.settings.speculate === 0 || this.reading || this.missing !== 1) return [];
    const left = Math.min(
      most + 1,
      this.settings.maxTokens - this.tokenIds.length,
      this.#model.contextLength - this.#history.length,
      this.#model.steadyRows(this.sequence),
    );
    return this.#lookup.propose(this.#history, left - 1);
  }

  /**
   * Takes the tokens that the rows' logits choose, as long as the next row's token was guessed rightly; the others' places
   * in the cache are given back. @throws LanewiseError NumericError, NoCandidate
   */
  *takeAll(rows: readonly StepLogits[], draft: readonly number[]): Generator<GenerateEvent, void, undefined> {
    const before = this.sequence.length;
    let taken = 0;
    for (const [i, row] of rows.entries()) {
      const event = this.#take(row);
      taken = i + 1;
      if (event) yield event;
      if (this.finishReason !== undefined || event?.id !== draft[i]) break;
    }
    this.#lookup.judge(draft.length, taken - 1);
    if (taken < rows.length) this.sequence.truncate(before - (rows.length - taken));
  }

  /** The token that the logits choose; undefined when an end token ended the text. */
  #take({ logits, summary }: StepLogits): Extract<GenerateEvent, { type: 'token' }> | undefined {
    const start = performance.now();
    const { id, logprob, top } = this.#sampler.sample(logits, summary);
    const ms = this.spent;
    const prefill = this.reading;
    if (!prefill) logDecodeStep(this.tokenIds.length, ms, performance.now() - start);
    if (ms > 0) this.steps.push({ prefill, ms, phases: this.#model.lastPhases });
    this.spent = 0;
    const { ignoreEos, stopTokenIds, maxTokens } = this.settings;
    if (stopTokenIds.has(id) || (!ignoreEos && this.#model.eosTokenIds.has(id))) {
      this.finishReason = 'stop';
      this.#stoppedBy = id;
      return undefined;
    }
    this.#sampler.accept(id);
    this.tokenIds.push(id);
    this.#history.push(id);
    const piece = this.#shown.push(id);
    this.text += piece.text;
    if (piece.stop !== undefined) {
      this.finishReason = 'stop';
      this.#stoppedBy = piece.stop;
    } else if (this.tokenIds.length >= maxTokens) this.finishReason = 'length';
    else if (this.#history.length >= this.#model.contextLength) this.finishReason = 'contextLength';
    return { type: 'token', id, text: piece.text, logprob, top };
  }

  checkAbort(): void {
    if (this.settings.signal?.aborted) this.finishReason ??= 'aborted';
  }

  /** Ends it where it was aborted or its time is up. */
  checkLimits(): void {
    this.checkAbort();
    if (performance.now() >= this.#deadline) this.finishReason ??= 'timeout';
  }

  /** Gives its pages back, to be computed again later. */
  suspend(): void {
    this.sequence.release();
    this.sequence = this.#model.sequence(this.#history.length);
  }

  /** Frees what it holds; a conversation keeps its sequence. */
  release(): void {
    if (!this.#kept) this.sequence.release();
  }

  /** Text that was held back and became no stop string. */
  flush(): string {
    const { text } = this.#shown.end();
    this.text += text;
    return text;
  }

  result(): GenerateResult {
    const ms = (prefill: boolean): number =>
      this.steps.reduce((sum, step) => sum + (step.prefill === prefill ? step.ms : 0), 0);
    return {
      finishReason: this.finishReason ?? 'length',
      ...(this.#stoppedBy !== undefined && { stoppedBy: this.#stoppedBy }),
      promptTokenIds: this.promptIds,
      tokenIds: this.tokenIds,
      text: this.text,
      usage: {
        promptTokens: this.promptIds.length,
        completionTokens: this.tokenIds.length,
        cachedTokens: this.#cached ?? 0,
        ...(this.#dropped !== undefined && { droppedMessages: this.#dropped }),
        ...(this.settings.speculate > 0 && {
          draftTokens: this.#lookup.proposed,
          acceptedDraftTokens: this.#lookup.accepted,
        }),
      },
      seed: this.settings.seed,
      timings: { prefillMs: ms(true), decodeMs: ms(false), steps: this.steps },
    };
  }
}
