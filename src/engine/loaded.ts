/** What all loaded models have in common. */
import type { Backend, LoadTimes } from '../backend/backend.ts';
import { LanewiseError } from '../errors.ts';
import type { ModelDescription } from '../models/index.ts';
import type { LineStats } from '../schedule/scheduler.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';

export interface LoadedInfo {
  readonly name: string;
  readonly description: ModelDescription;
  /** Most positions of one sequence. */
  readonly contextLength: number;
  /** The storage policy. */
  readonly quantize: string;
  readonly loadTimes: LoadTimes;
  readonly threads: number;
  /** Bits of the vectors that its kernels are made for; undefined of the reference backend. */
  readonly vectorBits: Backend['vectorBits'];
}

export interface AnyEngine {
  readonly info: LoadedInfo;
  readonly tokenizer: Tokenizer | undefined;
  /** Bytes in memory. */
  memory(): ReturnType<Backend['memory']>;
  stats(): LineStats;
  /** Ends all requests with the error Disposed, and frees threads and memory. */
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

  /** Most positions of one sequence, or tokens of a text. */
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

  /** Bits of the vectors that its kernels are made for; undefined of the reference backend. */
  get vectorBits(): Backend['vectorBits'] {
    return this.engine.info.vectorBits;
  }

  /** Bytes in memory. */
  memory(): ReturnType<Backend['memory']> {
    return this.engine.memory();
  }

  /** Requests waiting and running, times of recent forwards; of a decoder, pages of the cache too. */
  stats(): ReturnType<E['stats']> {
    return this.engine.stats() as ReturnType<E['stats']>;
  }

  /** Ends what is being computed; frees threads and memory. May be called twice; everything else throws afterwards. */
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
