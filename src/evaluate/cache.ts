/**
 * The key/value cache of one model. Sequences share the blocks of common beginnings, also while they run; what no sequence
 * uses stays until its pages are needed. The pages themselves are the backend's.
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

  /** Writes all whole blocks, see cache-file.ts. */
  save(context: FileContext, write: (bytes: Uint8Array) => Promise<void>): Promise<CacheFileContent> {
    return writeCache({ ...context, pool: this.#pool }, write);
  }

  /** Takes over what a file has and this cache does not, or nothing. @throws FormatError, OutOfMemoryError */
  restore(context: FileContext, source: ByteSource): Promise<CacheFileContent> {
    return readCache({ ...context, pool: this.#pool }, source);
  }

  /** Forgets all blocks that no sequence uses. */
  clear(): void {
    this.#pool.clear();
  }
}
