/**
 * The KV cache of one model. Sequences share the blocks of common prefixes, also while they run. Blocks that no
 * sequence uses stay until their pages are needed. The pages belong to the backend.
 */
import type { CachePages } from '../backend/backend.ts';
import type { ByteSource } from '../formats/bytes.ts';
import { BlockPool, type CacheOptions, type CacheStats } from './block-pool.ts';
import { type CacheFileContent, type CacheFileContext, readCache, writeCache } from './cache-file.ts';
import { Sequence, type SequenceOptions } from './sequence.ts';

type FileContext = Omit<CacheFileContext, 'pool'>;

export class Cache {
  readonly #pool: BlockPool;

  constructor(pages: CachePages, options: CacheOptions) {
    this.#pool = new BlockPool(pages, options);
  }

  /** A new, empty sequence, which the caller must release. */
  sequence(options: SequenceOptions = {}): Sequence {
    return new Sequence(this.#pool, options);
  }

  owns(sequence: Sequence): boolean {
    return sequence.pool === this.#pool;
  }

  stats(): CacheStats {
    return this.#pool.stats();
  }

  /** Writes all full blocks, see cache-file.ts. */
  save(context: FileContext, write: (bytes: Uint8Array) => Promise<void>): Promise<CacheFileContent> {
    return writeCache({ ...context, pool: this.#pool }, write);
  }

  /** Adds the blocks of a file that the cache does not have; none after an error. @throws FormatError, OutOfMemoryError */
  restore(context: FileContext, source: ByteSource): Promise<CacheFileContent> {
    return readCache({ ...context, pool: this.#pool }, source);
  }

  /** Removes all blocks that no sequence uses. */
  clear(): void {
    this.#pool.clear();
  }
}
