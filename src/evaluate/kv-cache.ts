/** Which pages of the key/value cache belong to which sequence. The pages themselves are the backend's. */
import { PAGE } from '../backend/backend.ts';
import { LanewiseError } from '../errors.ts';

export class KvCache {
  readonly #free: number[] = [];
  readonly #ensure: (count: number) => Promise<void>;
  #count = 0;

  /** @param ensure makes the backend hold so many pages; throws when it cannot */
  constructor(ensure: (count: number) => Promise<void>) {
    this.#ensure = ensure;
  }

  /** Pages in use. */
  get used(): number {
    return this.#count - this.#free.length;
  }

  /** @param expected tokens that it will have at least */
  sequence(expected = 0): Sequence {
    return new Sequence(this, expected);
  }

  /** @throws OutOfMemoryError; nothing is taken then */
  async take(): Promise<number> {
    const free = this.#free.pop();
    if (free !== undefined) return free;
    const page = this.#count++;
    try {
      await this.#ensure(page + 1);
    } catch (error) {
      this.#count--;
      throw error;
    }
    return page;
  }

  giveBack(pages: Iterable<number>): void {
    for (const page of pages) this.#free.push(page);
  }
}

/** The pages of one sequence, and how many positions they hold. */
export class Sequence {
  /** The cache that its pages are of. */
  readonly cache: KvCache;
  #pages: number[] = [];
  #tokens: number[] = [];
  #released = false;
  /** Tokens that it will have at least, as far as is known: models with LongRoPE rotate its first keys by it. */
  expected: number;
  /** The length that its keys have been rotated for. */
  span = 0;
  /** Logits of the last row that wanted them; the next step of this sequence overwrites them. */
  logits = new Float32Array(0);

  constructor(cache: KvCache, expected: number) {
    this.cache = cache;
    this.expected = expected;
  }

  /** Positions computed so far. */
  get length(): number {
    return this.#tokens.length;
  }

  /** Notes that the next positions have been computed. */
  append(tokens: readonly number[]): void {
    for (const token of tokens) this.#tokens.push(token);
  }

  /** Forgets what has been computed, to compute it anew in the same pages: the tokens. */
  rewind(): readonly number[] {
    return this.#tokens.splice(0);
  }

  /** How many of `tokens`, from the first on, are those that have been computed. */
  shared(tokens: readonly number[]): number {
    const most = Math.min(tokens.length, this.#tokens.length);
    let count = 0;
    while (count < most && tokens[count] === this.#tokens[count]) count++;
    return count;
  }

  /** Cuts off all positions from `length` on, and what has been expected. */
  truncate(length: number): void {
    this.#tokens.length = Math.min(length, this.#tokens.length);
    this.expected = 0;
  }

  /** The page table with room for `positions` positions. @throws OutOfMemoryError, LanewiseError Disposed */
  async reserve(positions: number): Promise<Int32Array> {
    if (this.#released) throw new LanewiseError('Disposed', 'the sequence, or its conversation, has been disposed');
    while (this.#pages.length * PAGE < positions) this.#pages.push(await this.cache.take());
    return Int32Array.from(this.#pages);
  }

  /** Gives the pages back; no step can use it any more. May be called twice. */
  release(): void {
    this.#released = true;
    this.cache.giveBack(this.#pages);
    this.#pages = [];
    this.#tokens = [];
    this.logits = new Float32Array(0);
  }
}
