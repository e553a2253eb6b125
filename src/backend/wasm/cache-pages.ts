/** The pages of the key/value cache, behind the weights in each memory. */
import { OutOfMemoryError } from '../../errors.ts';
import type { CachePages } from '../backend.ts';
import type { PartMemory } from './loading/load-run.ts';
import { MEMORY_LIMIT } from './memory/memory.ts';

/** The cache pages of all memories: page p is at one number in each. */
export class WasmCachePages implements CachePages {
  readonly pageBytes: number;
  readonly capacity: number;
  readonly tableEntries: number;
  count = 0;
  #partMemories: readonly PartMemory[];

  constructor(partMemories: readonly PartMemory[], capacity: number) {
    this.#partMemories = partMemories;
    this.capacity = capacity;
    this.tableEntries = Math.min(...partMemories.map(({ map }) => map.tableCount));
    this.pageBytes = partMemories.reduce((sum, { map }) => sum + map.pageStride, 0);
    this.#ensure(1);
  }

  async ensure(count: number): Promise<void> {
    this.#ensure(count);
  }

  /** Lets the memories go. */
  dispose(): void {
    this.#partMemories = [];
    this.count = 0;
  }

  #ensure(count: number): void {
    if (count <= this.count) return;
    for (const { map, memory } of this.#partMemories) {
      const end = map.cache + count * map.pageStride;
      if (end > MEMORY_LIMIT)
        throw new OutOfMemoryError('the key/value cache', end - map.cache, MEMORY_LIMIT - map.cache);
      memory.reserve('the key/value cache', end);
    }
    this.count = count;
  }

  async copy(from: number, to: number): Promise<void> {
    for (const [n, source] of this.#views(from).entries()) this.#views(to)[n]!.set(source);
  }

  async read(page: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(this.pageBytes);
    let at = 0;
    for (const view of this.#views(page)) {
      bytes.set(view, at);
      at += view.length;
    }
    return bytes;
  }

  async write(page: number, bytes: Uint8Array): Promise<void> {
    let at = 0;
    for (const view of this.#views(page)) {
      view.set(bytes.subarray(at, at + view.length));
      at += view.length;
    }
  }

  /** The bytes of a page in each memory. */
  #views(page: number): Uint8Array[] {
    return this.#partMemories.map(({ map: { cache, pageStride }, memory }) =>
      memory.bytes(cache + page * pageStride, pageStride),
    );
  }
}
