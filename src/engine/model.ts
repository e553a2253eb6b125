/** A loaded model: evaluates tokens, generates text, and gives everything back when disposed. */
import type { Backend, LoadTimes, LogitsSummary, Results } from '../backend/backend.ts';
import { LanewiseError, OptionError, type TokenizerError } from '../errors.ts';
import type { CacheStats } from '../evaluate/block-pool.ts';
import { Cache } from '../evaluate/cache.ts';
import { Sequence } from '../evaluate/sequence.ts';
import type { ModelDescription } from '../models/index.ts';
import { decodeBytes } from '../plan/memory.ts';
import { describeWork } from '../plan/print.ts';
import { logForward, wantsForward } from '../profile/log.ts';
import { createScopeTimer, type Phases, phasesOf, type StepMilliseconds } from '../profile/scopes.ts';
import type { GenerateOptions } from '../schedule/generation-options.ts';
import type { TextPart, Tokenizer } from '../tokenizer/tokenizer.ts';
import { type ChatFiles, type ChatFormat, type ChatPrompt, renderChat, templateOf } from './chat.ts';
import { Conversation } from './conversation.ts';
import {
  type BatchEvent,
  type BatchPrompt,
  type BatchResult,
  type GenerateEvent,
  generate,
  generateBatch,
  generateStream,
} from './generate.ts';
import { ContextLengthError, checkLength, checkPrompt, checkRows } from './limits.ts';

/**
 * Text, the ids of its tokens, or a conversation that the model's chat template puts into words. In text, what spells a
 * control token (`<|im_end|>`) is text, unless `parseSpecial` is given with it.
 */
export type Prompt = string | TextPart | { readonly tokenIds: readonly number[] } | ChatPrompt;

/** What a step says of one wanted row. */
export interface StepLogits {
  /** [vocab] */
  readonly logits: Float32Array;
  readonly summary: LogitsSummary;
}

/** Rows that one sequence adds to a forward. */
export interface SequenceRows {
  readonly sequence: Sequence;
  readonly tokens: readonly number[];
  /** Whether the logits of the last row are wanted, or of every row. */
  readonly wanted: boolean | 'all';
}

export interface ModelParts {
  readonly name: string;
  readonly description: ModelDescription;
  readonly backend: Backend;
  readonly tokenizer: Tokenizer | undefined;
  /** Why there is none, where the model has a bad one. */
  readonly tokenizerError?: TokenizerError;
  /** Or why there is none. */
  readonly chat: ChatFiles;
  readonly contextLength: number;
  readonly eosTokenIds: readonly number[];
  readonly quantize: string;
  readonly close: () => Promise<void>;
}

/** Characters that are tokenized in an instant, whatever the context. */
const QUICK_TEXT = 2 ** 20;

export class Model implements AsyncDisposable {
  readonly name: string;
  readonly description: ModelDescription;
  readonly tokenizer: Tokenizer | undefined;
  readonly contextLength: number;
  readonly eosTokenIds: ReadonlySet<number>;
  readonly quantize: string;
  readonly loadTimes: LoadTimes;
  readonly threads: number;
  /** Bits of the vectors that its kernels are made for; undefined of the reference backend. */
  readonly vectorBits: Backend['vectorBits'];
  /** Phases of the last forward, while `timing` is on or the log asks for them. */
  lastPhases: Phases | undefined;
  /** Steps of the last forward, in milliseconds, while `timing` is 'steps': one after another, with the wait behind each. */
  lastSteps: readonly StepMilliseconds[] = [];
  /** Whether forwards are timed inside: true by phase, 'steps' step by step (up to 2 % slower in small models). */
  timing: boolean | 'steps' = false;
  readonly #tokenizerError: TokenizerError | undefined;
  readonly #chat: ChatFiles;
  readonly #backend: Backend;
  readonly #cache: Cache;
  /** Logits of the rows that a sequence wanted last. */
  readonly #logits = new WeakMap<Sequence, Float32Array<ArrayBuffer>>();
  readonly #timer: ReturnType<typeof createScopeTimer>;
  readonly #close: () => Promise<void>;
  #queue: Promise<unknown> = Promise.resolve();
  #disposed: Promise<void> | undefined;
  /** Its characters. */
  #longestToken: number | undefined;

  constructor({
    name,
    description,
    backend,
    tokenizer,
    tokenizerError,
    chat,
    contextLength,
    eosTokenIds,
    quantize,
    close,
  }: ModelParts) {
    this.name = name;
    this.description = description;
    this.tokenizer = tokenizer;
    this.#tokenizerError = tokenizerError;
    this.#chat = chat;
    this.contextLength = contextLength;
    this.eosTokenIds = new Set(eosTokenIds);
    this.quantize = quantize;
    this.loadTimes = backend.loadTimes;
    this.threads = backend.threads;
    this.vectorBits = backend.vectorBits;
    this.#backend = backend;
    this.#cache = new Cache(backend.cache, { capacity: backend.cache.capacity, ropes: description.plan.ropes });
    this.#timer = createScopeTimer(description.plan.steps);
    this.#close = close;
  }

  /** Most rows of one forward: longer prompts are computed in chunks. */
  get maxRows(): number {
    return this.#backend.maxRows;
  }

  get maxSequences(): number {
    return this.#backend.maxWanted;
  }

  /** Rows by which a sequence can grow and be cut back: not across the limit of LongRoPE, where all keys change. */
  steadyRows(sequence: Sequence): number {
    let rows = this.maxRows;
    while (rows > 1 && sequence.crosses(rows)) rows--;
    return rows;
  }

  /** Bytes in memory. */
  memory(): ReturnType<Backend['memory']> {
    return this.#backend.memory();
  }

  /** The key/value cache: pages, and tokens found there. */
  stats(): { readonly cache: CacheStats } {
    return { cache: this.#cache.stats() };
  }

  /**
   * Bytes of matrices and cache that a decode step at `position`, or some steps of its plan, reads: the least it takes
   * the memory.
   */
  decodeBytes(position: number, steps = this.description.plan.steps): number {
    return decodeBytes(this.description.plan, position, steps);
  }

  /**
   * Events of one generation, token by token. @throws OptionError for options at once; the prompt is read with the first event
   */
  generate(prompt: Prompt, options: GenerateOptions = {}): AsyncGenerator<GenerateEvent, void, undefined> {
    this.#alive();
    return generate(this, prompt, options);
  }

  /** A conversation that keeps what it has computed from turn to turn. */
  conversation(): Conversation {
    this.#alive();
    return new Conversation(this);
  }

  /** The model's chat template. @throws LanewiseError NoChatTemplate, TemplateError */
  get chatFormat(): ChatFormat {
    if (this.#chat.format instanceof LanewiseError) throw this.#chat.format;
    return this.#chat.format;
  }

  /**
   * Many prompts in shared forwards; results in their order, each as if it had run alone. What is wrong with one prompt is the
   * `error` of its result. @throws OptionError for the options, and where an abort is to throw
   */
  generateBatch(prompts: readonly BatchPrompt[], options: GenerateOptions = {}): Promise<BatchResult[]> {
    this.#alive();
    return generateBatch(this, prompts, options);
  }

  /** Events of many prompts in shared forwards, as they come; `index` says of which prompt. @throws OptionError */
  generateStream(
    prompts: readonly BatchPrompt[],
    options: GenerateOptions = {},
  ): AsyncGenerator<BatchEvent, void, undefined> {
    this.#alive();
    return generateStream(this, prompts, options);
  }

  /** A sequence of its own in the cache. Release it. @param expected tokens that it will have at least, as far as is known */
  sequence(expected = 0): Sequence {
    this.#alive();
    return this.#cache.sequence({ expected });
  }

  /**
   * Token ids of a prompt. Long texts are refused where even the longest tokens would not fit them into the context.
   * @throws OptionError, TemplateError, TokenizerError, LanewiseError NoTokenizer, NoChatTemplate, ContextLengthExceeded
   */
  encode(prompt: Prompt): number[] {
    checkPrompt(prompt);
    if (typeof prompt === 'string' || !('tokenIds' in prompt)) {
      if (this.#tokenizerError) throw this.#tokenizerError;
      if (!this.tokenizer) throw new LanewiseError('NoTokenizer', `${this.name} has no tokenizer: give token ids`);
      if (typeof prompt === 'string') {
        this.#checkText(prompt.length);
        return this.tokenizer.encode(prompt);
      }
      if ('text' in prompt) {
        this.#checkText(prompt.text.length);
        return this.tokenizer.encodeParts([prompt]);
      }
      const { template, tools } = prompt;
      const chosen = typeof template === 'object' ? template : templateOf(this.chatFormat, template, tools);
      const parts = renderChat(this.#chat.tokens, chosen, prompt);
      this.#checkText(parts.reduce((sum, { text }) => sum + text.length, 0));
      return this.tokenizer.encodeParts(parts, { addSpecial: false });
    }
    const { vocab } = this.description.config;
    for (const id of prompt.tokenIds) {
      if (!(Number.isInteger(id) && id >= 0 && id < vocab))
        throw new OptionError('tokenIds', `made of integers from 0 to ${vocab - 1}`, id);
    }
    return [...prompt.tokenIds];
  }

  #checkText(characters: number): void {
    if (characters <= QUICK_TEXT) return;
    this.#longestToken ??= longestToken(this.tokenizer!);
    if (characters <= this.contextLength * this.#longestToken) return;
    throw new ContextLengthError(
      `${characters} characters, the context holds ${this.contextLength} tokens of at most ${this.#longestToken}`,
      this.contextLength,
      this.description.config.contextLength,
    );
  }

  /**
   * One forward over rows of several sequences, at most `maxRows` in all, of which at most `maxSequences` are wanted. Logits
   * of the wanted ones, in order, valid until the next step of their sequence. Forwards of one model run one after the other, whoever asks.
   * @throws OptionError for rows that it cannot take
   */
  async step(parts: readonly SequenceRows[]): Promise<StepLogits[]> {
    checkRows(parts, {
      maxRows: this.maxRows,
      maxSequences: this.maxSequences,
      vocab: this.description.config.vocab,
      owns: (sequence) => sequence instanceof Sequence && this.#cache.owns(sequence),
    });
    return this.#exclusive(() => this.#forward(parts));
  }

  /**
   * Logits of every position of `tokenIds` [T, vocab], and the hidden states hidden.0 .. hidden.L where loaded with
   * `hidden`.
   */
  async forward(tokenIds: readonly number[]): Promise<Map<string, { shape: [number, number]; values: Float32Array }>> {
    const ids = this.encode({ tokenIds });
    checkLength(ids.length, this.contextLength, this.description.config.contextLength);
    const { plan, config } = this.description;
    const taps = plan.steps.flatMap((step) =>
      step.op === 'tap' && step.name.startsWith('hidden.') ? [step.name] : [],
    );
    const out = new Map(
      [...taps.map((name) => [name, config.dim] as const), ['logits', config.vocab] as const].map(([name, width]) => [
        name,
        { shape: [ids.length, width] as [number, number], values: new Float32Array(ids.length * width) },
      ]),
    );
    const sequence = this.sequence(ids.length);
    try {
      const chunk = Math.min(this.maxRows, this.maxSequences);
      for (let start = 0; start < ids.length; start += chunk) {
        const tokens = ids.slice(start, start + chunk);
        await this.#exclusive(async () => {
          const results = await this.#run([{ sequence, tokens, wanted: 'all' }]);
          for (const [i] of tokens.entries())
            out.get('logits')!.values.set(results.output(i), (start + i) * config.vocab);
          for (const name of taps) out.get(name)!.values.set(results.tap(name), start * config.dim);
        });
      }
    } finally {
      sequence.release();
    }
    return out;
  }

  /** Frees threads, memory and files. May be called twice; everything else throws afterwards. */
  dispose(): Promise<void> {
    this.#disposed ??= this.#queue.then(async () => {
      await this.#backend.dispose();
      await this.#close();
    });
    return this.#disposed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  #alive(): void {
    if (this.#disposed) throw new LanewiseError('Disposed', `${this.name} has been disposed`);
  }

  #exclusive<T>(work: () => Promise<T>): Promise<T> {
    const run = this.#queue.then(work);
    this.#queue = run.catch(() => {});
    return run;
  }

  async #forward(parts: readonly SequenceRows[]): Promise<StepLogits[]> {
    const results = await this.#run(parts);
    const { vocab } = this.description.config;
    let row = 0;
    return parts.flatMap(({ sequence, tokens, wanted }) => {
      const count = wanted === 'all' ? tokens.length : wanted ? 1 : 0;
      const before = this.#logits.get(sequence);
      const own = before && before.length >= count * vocab ? before : new Float32Array(count * vocab);
      this.#logits.set(sequence, own);
      return Array.from({ length: count }, (_, i) => {
        const logits = own.subarray(i * vocab, (i + 1) * vocab);
        logits.set(results.output(row));
        return { logits, summary: results.summary(row++) };
      });
    });
  }

  async #run(parts: readonly SequenceRows[]): Promise<Results> {
    this.#alive();
    for (const part of parts) await this.#stretch(part);
    return this.#evaluate(parts);
  }

  /**
   * LongRoPE has other frequencies for all tokens of a sequence above a limit: one that crosses it is computed anew, as if
   * its length had been known from the start.
   */
  async #stretch({ sequence, tokens }: SequenceRows): Promise<void> {
    if (!sequence.crosses(tokens.length)) return;
    const before = sequence.tokens;
    await sequence.reuse([...before, ...tokens], before.length);
    while (sequence.length < before.length) {
      const chunk = before.slice(sequence.length, sequence.length + this.maxRows);
      await this.#evaluate([{ sequence, tokens: chunk, wanted: false }]);
    }
  }

  async #evaluate(parts: readonly SequenceRows[]): Promise<Results> {
    const tokens: number[] = [];
    const positions: number[] = [];
    const sequences: number[] = [];
    const wanted: number[] = [];
    const pages: Int32Array[] = [];
    for (const [index, { sequence, tokens: added, wanted: which }] of parts.entries()) {
      for (const [i, id] of added.entries()) {
        tokens.push(id);
        positions.push(sequence.length + i);
        sequences.push(index);
        if (which === 'all' || (which && i === added.length - 1)) wanted.push(tokens.length - 1);
      }
      await sequence.reserve(sequence.length + added.length);
      pages.push(sequence.table());
    }
    const logs = wantsForward();
    const timing = this.timing === 'steps' ? 'steps' : (logs ?? (this.timing ? 'scopes' : 'off'));
    const results = await this.#backend.forward({
      tokens: Int32Array.from(tokens),
      positions: Int32Array.from(positions),
      sequences: Int32Array.from(sequences),
      pages,
      wanted: Int32Array.from(wanted),
      lengths: Int32Array.from(parts, ({ sequence, tokens: added }) => sequence.span(added.length)),
      timing,
    });
    for (const { sequence, tokens: added } of parts) sequence.append(added);
    if (timing === 'off') return results;
    const { times } = results;
    const tree = this.#timer(times);
    this.lastPhases = phasesOf(tree);
    if (this.timing === 'steps') this.lastSteps = times;
    const { plan } = this.description;
    if (logs) logForward(tree, plan.steps, times, (step) => describeWork(plan, step, tokens.length, wanted.length));
    return results;
  }
}

/** Characters of its longest token as it is spelled, which is never shorter than the text that it stands for. */
function longestToken(tokenizer: Tokenizer): number {
  let longest = 1;
  for (let id = 0; id < tokenizer.vocabSize; id++) longest = Math.max(longest, tokenizer.token(id)?.length ?? 0);
  return longest;
}
