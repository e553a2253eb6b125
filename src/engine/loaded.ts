/** Base class of loaded models. */
import type { Backend, LoadTimes } from '../backend/backend.ts';
import type { Explanation } from '../backend/explanation.ts';
import { LanewiseError } from '../errors.ts';
import type { ModelDescription } from '../models/index.ts';
import type { LineStats } from '../schedule/scheduler.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';

export interface LoadedInfo {
  readonly name: string;
  readonly description: ModelDescription;
  /** Largest number of positions of a sequence. */
  readonly contextLength: number;
  /** The storage policy. */
  readonly quantize: string;
  readonly loadTimes: LoadTimes;
  readonly threads: number;
  /** Vector width of the kernels in bits; undefined for the reference backend. */
  readonly vectorBits: Backend['vectorBits'];
  /** Decisions of the load, and why. */
  readonly explanations: readonly Explanation[];
}

export interface AnyEngine {
  readonly info: LoadedInfo;
  readonly tokenizer: Tokenizer | undefined;
  /** Bytes in memory. */
  memory(): ReturnType<Backend['memory']>;
  stats(): LineStats;
  /** Ends all requests with the error Disposed and frees threads and memory. */
  dispose(): Promise<void>;
}

export abstract class Loaded<E extends AnyEngine> implements AsyncDisposable {
  protected readonly engine: E;
  #disposed: Promise<void> | undefined;

  constructor(engine: E) {
    this.engine = engine;
  }

  get name(): string {
    return this.engine.info.name;
  }

  get description(): ModelDescription {
    return this.engine.info.description;
  }

  get tokenizer(): Tokenizer | undefined {
    return this.engine.tokenizer;
  }

  /** Largest number of positions of a sequence, or of tokens of a text. */
  get contextLength(): number {
    return this.engine.info.contextLength;
  }

  /** The storage policy. */
  get quantize(): string {
    return this.engine.info.quantize;
  }

  get loadTimes(): LoadTimes {
    return this.engine.info.loadTimes;
  }

  get threads(): number {
    return this.engine.info.threads;
  }

  /** Vector width of the kernels in bits; undefined for the reference backend. */
  get vectorBits(): Backend['vectorBits'] {
    return this.engine.info.vectorBits;
  }

  /** Bytes in memory. */
  memory(): ReturnType<Backend['memory']> {
    return this.engine.memory();
  }

  /** Every decision of the load with its origin and reason, under stable keys (docs/doctor.md). */
  explain(): readonly Explanation[] {
    return this.engine.info.explanations;
  }

  /** Numbers of requests, times of recent forwards and, for a decoder, pages of the cache. */
  stats(): ReturnType<E['stats']> {
    return this.engine.stats() as ReturnType<E['stats']>;
  }

  /** Ends all requests and frees threads and memory. May be called twice; all other calls throw afterwards. */
  dispose(): Promise<void> {
    this.#disposed ??= this.engine.dispose();
    return this.#disposed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  /** @throws LanewiseError Disposed */
  protected alive(): void {
    if (this.#disposed) throw new LanewiseError('Disposed', `${this.name} has been disposed`);
  }
}
