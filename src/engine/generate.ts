/** From a prompt to events: prefill in chunks, then a token per step, until something ends it. */

import { LanewiseError, OptionError } from '../errors.ts';
import { nextTurn } from '../event-loop.ts';
import { logDecodeStep, logPrefill } from '../profile/log.ts';
import type { Phases } from '../profile/scopes.ts';
import type { IncrementalDecoder } from '../tokenizer/tokenizer.ts';
import { continueText } from './continuation.ts';
import { type GenerateOptions, type GenerateSettings, validateGenerate } from './generation-options.ts';
import type { Sequence } from './kv-cache.ts';
import { PromptLookup } from './lookup.ts';
import { checkLength, type Model, type Prompt, type StepLogits } from './model.ts';
import { Sampler, type TokenChoice } from './sampler.ts';
import { StopMatcher } from './stop.ts';

/** stop: an end token or a stop string; length: max tokens or the context; timeout: the text so far. */
export type FinishReason = 'stop' | 'length' | 'timeout';

export interface Usage {
  readonly promptTokens: number;
  readonly completionTokens: number;
  /** Tokens of the prompt that an earlier turn had computed; only in conversations. */
  readonly cachedTokens?: number;
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

/** The answer of a chat begins a text of its own. */
const continuesText = (prompt: Prompt): boolean =>
  typeof prompt === 'string' || !('messages' in prompt) || prompt.continueFinalMessage === true;

/** One sequence on its way: what it has, and what ends it. */
class Run {
  readonly promptIds: readonly number[];
  readonly settings: GenerateSettings;
  readonly sequence: Sequence;
  readonly tokenIds: number[] = [];
  readonly steps: StepTiming[] = [];
  finishReason: FinishReason | undefined;
  text = '';
  /** Prompt tokens computed so far. */
  prefilled = 0;
  /** Milliseconds of its forwards since the last token. */
  spent = 0;
  readonly #model: Model;
  readonly #sampler: Sampler;
  readonly #decoder: IncrementalDecoder | undefined;
  readonly #stops: StopMatcher;
  readonly #lookup: PromptLookup;
  readonly #deadline: number;
  /** Of a conversation: tokens that need not be computed again. */
  readonly #cached: number | undefined;

  /** @param kept the sequence of a conversation, which outlives this run */
  constructor(model: Model, prompt: Prompt, settings: GenerateSettings, start: number, kept?: Sequence) {
    this.#model = model;
    this.settings = settings;
    this.promptIds = model.encode(prompt);
    if (this.promptIds.length === 0)
      throw new OptionError('prompt', 'at least one token', typeof prompt === 'string' ? prompt : []);
    checkLength(this.promptIds.length, model.contextLength);
    this.#sampler = new Sampler(settings, this.promptIds);
    const shown = { skipSpecial: !settings.ignoreEos };
    this.#decoder =
      model.tokenizer && continueText(model.tokenizer, continuesText(prompt) ? this.promptIds : [], shown);
    this.#stops = new StopMatcher(settings.stop);
    this.#lookup = new PromptLookup(settings.speculate);
    this.#deadline = start + settings.timeout * 1000;
    this.sequence = kept ?? model.sequence(this.promptIds.length);
    if (kept) {
      // The last token is computed in any case: its logits choose the first token of the answer.
      this.#cached = this.prefilled = Math.min(kept.shared(this.promptIds), this.promptIds.length - 1);
      kept.truncate(this.prefilled);
      kept.expected = this.promptIds.length;
    }
    if (settings.maxTokens === 0) this.finishReason = 'length';
  }

  /** The tokens of the next forward: of the prompt at most `most`, or the last one generated. */
  next(most: number): number[] {
    if (this.prefilled < this.promptIds.length) return this.promptIds.slice(this.prefilled, this.prefilled + most);
    return [this.tokenIds.at(-1)!];
  }

  /** Tokens guessed to follow the next one, which a forward can check beside it. */
  draft(): readonly number[] {
    if (this.settings.speculate === 0 || this.tokenIds.length === 0) return [];
    const left = Math.min(
      this.settings.maxTokens - this.tokenIds.length,
      this.#model.contextLength - this.promptIds.length - this.tokenIds.length,
      this.#model.maxSequences,
      this.#model.steadyRows(this.sequence),
    );
    return this.#lookup.propose([...this.promptIds, ...this.tokenIds], left - 1);
  }

  /**
   * Takes the tokens that the rows' logits choose, as long as the next row's token was guessed rightly; the others' places
   * in the cache are given back.
   */
  *takeAll(rows: readonly StepLogits[], draft: readonly number[], prefill: boolean) {
    const before = this.sequence.length;
    let taken = 0;
    for (const [i, row] of rows.entries()) {
      const event = this.take(row, prefill);
      taken = i + 1;
      if (event) yield event;
      if (this.finishReason !== undefined || event?.id !== draft[i]) break;
    }
    this.#lookup.judge(draft.length, taken - 1);
    if (taken < rows.length) this.sequence.truncate(before - (rows.length - taken));
  }

  get wantsLogits(): boolean {
    return this.prefilled >= this.promptIds.length;
  }

  /** Takes the token that `logits` choose; the event, or undefined when an end token ended the text. */
  take({ logits, summary }: StepLogits, prefill: boolean): Extract<GenerateEvent, { type: 'token' }> | undefined {
    const start = performance.now();
    const { id, logprob, top } = this.#sampler.sample(logits, summary);
    const ms = this.spent;
    if (!prefill) logDecodeStep(this.tokenIds.length, ms, performance.now() - start);
    if (ms > 0) this.steps.push({ prefill, ms, phases: this.#model.lastPhases });
    this.spent = 0;
    if (!this.settings.ignoreEos && this.#model.eosTokenIds.has(id)) {
      this.finishReason = 'stop';
      return undefined;
    }
    this.#sampler.accept(id);
    this.tokenIds.push(id);
    const piece = this.#stops.push(this.#decoder?.push(id) ?? '');
    this.text += piece.text;
    if (piece.stop !== undefined) this.finishReason = 'stop';
    else if (
      this.tokenIds.length >= this.settings.maxTokens ||
      this.promptIds.length + this.tokenIds.length >= this.#model.contextLength
    ) {
      this.finishReason = 'length';
    }
    return { type: 'token', id, text: piece.text, logprob, top };
  }

  checkTime(): void {
    if (performance.now() >= this.#deadline) this.finishReason ??= 'timeout';
  }

  /** Text that was held back and became no stop string. */
  flush(): string {
    const last = this.#stops.push(this.#decoder?.end() ?? '');
    const rest = last.stop === undefined ? last.text + this.#stops.end() : last.text;
    this.text += rest;
    return rest;
  }

  result(): GenerateResult {
    const ms = (prefill: boolean): number =>
      this.steps.reduce((sum, step) => sum + (step.prefill === prefill ? step.ms : 0), 0);
    return {
      finishReason: this.finishReason ?? 'length',
      promptTokenIds: this.promptIds,
      tokenIds: this.tokenIds,
      text: this.text,
      usage: {
        promptTokens: this.promptIds.length,
        completionTokens: this.tokenIds.length,
        ...(this.#cached !== undefined && { cachedTokens: this.#cached }),
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

const settingsOf = (model: Model, options: GenerateOptions): GenerateSettings =>
  validateGenerate(options, { vocab: model.description.config.vocab });

/**
 * An abort throws the signal's reason at the next forward; what came before has been yielded. Leaving the loop early frees
 * the sequence, unless it is `kept` by a conversation.
 */
export async function* generate(
  model: Model,
  prompt: Prompt,
  options: GenerateOptions,
  kept?: Sequence,
): AsyncGenerator<GenerateEvent, void, undefined> {
  const settings = settingsOf(model, options);
  settings.signal?.throwIfAborted();
  const run = new Run(model, prompt, settings, performance.now(), kept);
  try {
    while (run.finishReason === undefined) {
      const tokens = run.next(model.maxRows);
      const prefill = run.prefilled < run.promptIds.length;
      if (prefill) run.prefilled += tokens.length;
      const draft = run.draft();
      const wanted = draft.length > 0 ? 'all' : run.wantsLogits;
      const start = performance.now();
      const rows = await model.step([{ sequence: run.sequence, tokens: [...tokens, ...draft], wanted }]);
      run.spent += performance.now() - start;
      settings.signal?.throwIfAborted();
      if (prefill) yield { type: 'prefill', done: run.prefilled, total: run.promptIds.length };
      if (rows.length > 0) {
        if (prefill) logPrefill(run.promptIds.length, run.spent);
        yield* run.takeAll(rows, draft, prefill);
      }
      run.checkTime();
      // Forwards block: let timers, signals and streams have their turn.
      await nextTurn();
      settings.signal?.throwIfAborted();
    }
    const rest = run.flush();
    if (rest) yield { type: 'text', text: rest };
    yield { type: 'done', ...run.result() };
  } finally {
    if (!kept) run.sequence.release();
  }
}

/** Prompts share forwards: each step takes a chunk of every prompt that is still read and a row of every text. */
export async function generateBatch(
  model: Model,
  prompts: readonly Prompt[],
  options: GenerateOptions,
): Promise<BatchResult[]> {
  const settings = settingsOf(model, options);
  settings.signal?.throwIfAborted();
  if (!Array.isArray(prompts) || prompts.length === 0)
    throw new OptionError('prompts', 'an array of at least one prompt', prompts);
  const start = performance.now();
  const runs: Run[] = [];
  try {
    for (const [index, prompt] of prompts.entries())
      runs.push(numbered(index, () => new Run(model, prompt, settings, start)));
    for (;;) {
      const active = runs
        .filter((run) => run.finishReason === undefined)
        .slice(0, Math.min(model.maxRows, model.maxSequences));
      if (active.length === 0) break;
      await stepAll(model, active);
      settings.signal?.throwIfAborted();
      for (const run of runs) run.checkTime();
      await nextTurn();
    }
    for (const run of runs) run.flush();
    return runs.map((run) => run.result());
  } finally {
    for (const run of runs) run.sequence.release();
  }
}

/** What is wrong with one prompt of many, with its number. */
function numbered<T>(index: number, make: () => T): T {
  try {
    return make();
  } catch (error) {
    if (error instanceof LanewiseError) error.message = `prompts[${index}]: ${error.message}`;
    throw error;
  }
}

/** One forward for all active runs; what room is left after one row each goes to prompts, the first ones first. */
async function stepAll(model: Model, active: readonly Run[]): Promise<void> {
  let room = model.maxRows - active.length;
  const parts = active.map((run) => {
    const tokens = run.next(room + 1);
    room -= tokens.length - 1;
    const prefill = run.prefilled < run.promptIds.length;
    if (prefill) run.prefilled += tokens.length;
    return { run, prefill, sequence: run.sequence, tokens, wanted: run.wantsLogits };
  });
  const before = performance.now();
  const logits = await model.step(parts);
  const ms = performance.now() - before;
  for (const { run } of parts) run.spent += ms;
  const wanting = parts.filter(({ wanted }) => wanted);
  for (const [i, { run, prefill }] of wanting.entries()) run.take(logits[i]!, prefill);
}
