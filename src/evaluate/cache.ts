/**
 * The key/value cache of one model. Sequences share the blocks of common beginnings, also while they run; what no sequence
 * uses stays until its pages are needed. The pages themselves are the backend's.
 */
import type { CachePages } from '../backend/backend.ts';
import { BlockPool, type CacheOptions, type CacheStats } from './block-pool.ts';
import { Sequence, type SequenceOptions } from './sequence.ts';

export class Cache {
  readonly #pool: BlockPool;

  constructor(pages: CachePages, options: CacheOptions) {
    this.#pool = new BlockPool(pages, options);
  }

  /** An empty sequence. Release it. */
  sequence(options: SequenceOptions = {}): Sequence {
    return new Sequence(this.#pool, options);
  }

  owns(sequence: Sequence): boolean {
    return sequence.pool === this.#pool;
  }

  stats(): CacheStats {
    return this.#pool.stats();
  }

  /** Forgets all blocks that no sequence uses. */
  clear(): void {
    this.#pool.clear();
  }
}
