/** A loaded encoder: turns texts into embeddings, and gives everything back when disposed. */
import { type Backend, type LoadTimes, PAGE } from '../backend/backend.ts';
import { LanewiseError, ModelError, OptionError } from '../errors.ts';
import type { ModelDescription } from '../models/index.ts';
import { describeWork } from '../plan/print.ts';
import { logForward, wantsForward } from '../profile/log.ts';
import { createScopeTimer } from '../profile/scopes.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { normalize, type Pooling, pool, poolings } from './pooling.ts';

/** Rows and texts that go through one forward, as far as texts are shorter. */
export const SHARED_ROWS = 512;
const SHARED_TEXTS = 64;

export interface EmbedOptions {
  /** Default: what the model's folder says (1_Pooling/config.json), else mean. */
  pooling?: Pooling;
  /** Scale to length 1, so that a product of two embeddings is their cosine. Default true. */
  normalize?: boolean;
  /** Cut texts that are longer than the context, instead of failing. Default false. */
  truncate?: boolean;
  signal?: AbortSignal;
}

/** A text, or the ids of its tokens. */
export type Text = string | { readonly tokenIds: readonly number[] };

export interface Embedding {
  /** [dim] */
  readonly embedding: Float32Array;
  /** Tokens of the text, special ones too, as far as they were used. */
  readonly tokens: number;
}

export interface EncoderParts {
  readonly name: string;
  readonly description: ModelDescription;
  readonly backend: Backend;
  readonly tokenizer: Tokenizer | undefined;
  readonly contextLength: number;
  readonly quantize: string;
  /** What the model was trained with, or why that cannot be had. */
  readonly pooling: Pooling | ModelError;
  readonly close: () => Promise<void>;
}

export class Encoder implements AsyncDisposable {
  readonly name: string;
  readonly description: ModelDescription;
  readonly tokenizer: Tokenizer | undefined;
  /** Most tokens of a text. */
  readonly contextLength: number;
  readonly quantize: string;
  readonly loadTimes: LoadTimes;
  readonly threads: number;
  /** Bits of the vectors that its kernels are made for; undefined of the reference backend. */
  readonly vectorBits: Backend['vectorBits'];
  readonly #backend: Backend;
  readonly #pooling: Pooling | ModelError;
  readonly #timer: ReturnType<typeof createScopeTimer>;
  readonly #close: () => Promise<void>;
  #queue: Promise<unknown> = Promise.resolve();
  #disposed: Promise<void> | undefined;

  constructor({ name, description, backend, tokenizer, contextLength, quantize, pooling, close }: EncoderParts) {
    this.name = name;
    this.description = description;
    this.tokenizer = tokenizer;
    this.contextLength = contextLength;
    this.quantize = quantize;
    this.loadTimes = backend.loadTimes;
    this.threads = backend.threads;
    this.vectorBits = backend.vectorBits;
    this.#backend = backend;
    this.#pooling = pooling;
    this.#timer = createScopeTimer(description.plan.steps);
    this.#close = close;
  }

  /** Bytes in memory. */
  memory(): ReturnType<Backend['memory']> {
    return this.#backend.memory();
  }

  /**
   * Embeddings of texts (or of token ids), in their order; each is what it would be alone, bit for bit.
   * @throws OptionError, ModelError UnsupportedPooling, LanewiseError NoTokenizer, ContextLengthExceeded; the signal's reason
   */
  async embed(texts: readonly Text[], options: EmbedOptions = {}): Promise<Embedding[]> {
    checkTexts(texts);
    const { pooling = this.#pooling, normalize: scaled = true, truncate = false, signal } = options;
    if (pooling instanceof ModelError) throw pooling;
    if (!poolings.includes(pooling)) throw new OptionError('pooling', `one of ${poolings.join(', ')}`, pooling);
    const ids = texts.map((text) => this.#fit(this.#encode(text), text, truncate));
    const embeddings: Embedding[] = [];
    for (const batch of batches(ids)) {
      const work = async (): Promise<Embedding[]> => {
        this.#alive();
        signal?.throwIfAborted();
        await this.#forward(batch);
        let first = 0;
        return batch.map(({ length }) => {
          const start = first;
          first += length;
          const vector = pool(length, (i) => this.#backend.output(start + i), pooling);
          return { embedding: scaled ? normalize(vector) : vector, tokens: length };
        });
      };
      const run = this.#queue.then(work);
      this.#queue = run.catch(() => {});
      embeddings.push(...(await run));
    }
    return embeddings;
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

  #encode(text: Text): readonly number[] {
    if (typeof text === 'string') {
      if (!this.tokenizer) throw new LanewiseError('NoTokenizer', `${this.name} has no tokenizer.json: give token ids`);
      return this.tokenizer.encode(text);
    }
    const { vocab } = this.description.config;
    const unknown = text.tokenIds.find((id) => !(Number.isInteger(id) && id >= 0 && id < vocab));
    if (unknown !== undefined) throw new OptionError('tokenIds', `made of integers from 0 to ${vocab - 1}`, unknown);
    return text.tokenIds;
  }

  /** The ids, cut where they may be: special tokens behind the text stay. */
  #fit(ids: readonly number[], text: Text, truncate: boolean): readonly number[] {
    if (ids.length === 0) throw new OptionError('texts', 'of at least one token each', text);
    const { contextLength } = this;
    if (ids.length <= contextLength) return ids;
    if (!truncate) {
      throw new LanewiseError(
        'ContextLengthExceeded',
        `${nameOf(text)} has ${ids.length} tokens, the context holds ${contextLength}; shorten it, or ask to truncate`,
      );
    }
    const special = new Set(this.tokenizer?.specialIds);
    let end = ids.length;
    while (ids.length - end < contextLength && special.has(ids[end - 1]!)) end--;
    const behind = ids.slice(end);
    return [...ids.slice(0, contextLength - behind.length), ...behind];
  }

  async #forward(texts: readonly (readonly number[])[]): Promise<void> {
    let pageCount = 0;
    const pages = texts.map(({ length }) => Int32Array.from({ length: Math.ceil(length / PAGE) }, () => pageCount++));
    this.#backend.ensurePages(pageCount);
    const logs = wantsForward();
    this.#backend.timing = logs ?? 'off';
    await this.#backend.forward({
      tokens: Int32Array.from(texts.flat()),
      positions: Int32Array.from(texts.flatMap((ids) => [...ids.keys()])),
      sequences: Int32Array.from(texts.flatMap((ids, sequence) => ids.map(() => sequence))),
      pages,
      wanted: new Int32Array(0),
    });
    if (!logs) return;
    const { plan } = this.description;
    const [times, rows] = [this.#backend.stepTimes(), texts.flat().length];
    logForward(this.#timer(times), plan.steps, times, (step) => describeWork(plan, step, rows, 0));
  }
}

/** @throws OptionError */
function checkTexts(texts: readonly unknown[]): void {
  const isText = (text: unknown): boolean =>
    typeof text === 'string' ||
    (typeof text === 'object' && text !== null && 'tokenIds' in text && Array.isArray(text.tokenIds));
  // Not `find`: a bad text may be undefined.
  const bad = Array.isArray(texts) ? texts.findIndex((text) => !isText(text)) : undefined;
  if (bad === -1) return;
  throw new OptionError('texts', 'an array of strings or { tokenIds }', bad === undefined ? texts : texts[bad]);
}

const nameOf = (text: Text): string =>
  typeof text === 'string' ? `the text ${JSON.stringify(`${text.slice(0, 40)}...`)}` : 'a text of token ids';

/** Neighbours that fit one forward. */
function* batches<T extends { readonly length: number }>(texts: readonly T[]): Generator<T[]> {
  let batch: T[] = [];
  let rows = 0;
  for (const text of texts) {
    if (batch.length && (rows + text.length > SHARED_ROWS || batch.length === SHARED_TEXTS)) {
      yield batch;
      [batch, rows] = [[], 0];
    }
    batch.push(text);
    rows += text.length;
  }
  if (batch.length) yield batch;
}
