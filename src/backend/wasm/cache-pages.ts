/** The pages of the key/value cache, behind the weights in each memory: page p has the same number in each of them. */
import { OutOfMemoryError } from '../../errors.ts';
import { headBytes, keyBytes, keyGroupBytes, pageBytes, scaleBytes, valueScaleBytes } from '../../kernels/kv.ts';
import type { KvCacheSpec, Plan } from '../../plan/step.ts';
import { type CachePages, PAGE, type PageReport } from '../backend.ts';
import { Checksum, firstNotFinite } from '../checksum.ts';
import type { PartMemory } from './loading/load-run.ts';
import { MEMORY_LIMIT } from './memory/memory.ts';

/** Bytes of a page that are looked at together, a multiple of 64. */
const STRIP = 64 * 1024;
/** Positions whose keys of one head are neighbours. */
const GROUP = 16;

/** Bytes of a page that hold numbers which may not be finite. */
interface FloatArea {
  readonly type: 'f32' | 'f16';
  readonly start: number;
  readonly bytes: number;
}

export class WasmCachePages implements CachePages {
  readonly pageBytes: number;
  readonly capacity: number;
  readonly tableEntries: number;
  readonly window: number;
  readonly cells: number;
  count = 0;
  #partMemories: readonly PartMemory[];
  readonly #areas: readonly FloatArea[];

  constructor(plan: Plan, partMemories: readonly PartMemory[], capacity: number) {
    this.#partMemories = partMemories;
    this.capacity = capacity;
    this.tableEntries = Math.min(...partMemories.map(({ map }) => map.tableCount));
    this.window = plan.caches.reduce((most, { window = 0 }) => Math.max(most, window), 0);
    this.cells = partMemories[0]!.map.cells;
    const areas: FloatArea[] = [];
    let end = 0;
    for (const { map, part } of partMemories) {
      for (const id of part.caches) areas.push(...floatAreas(plan.caches[id]!, end + map.cacheOffsets[id]!));
      end += map.pageStride;
    }
    this.pageBytes = end;
    this.#areas = areas.sort((a, b) => a.start - b.start);
    this.#ensure(1);
  }

  async ensure(count: number): Promise<void> {
    this.#ensure(count);
  }

  /** Drops the references to the memories. */
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
    const targets = this.#views(to);
    for (const [n, source] of this.#views(from).entries()) targets[n]!.set(source);
  }

  async shrink(page: number, cell: number): Promise<void> {
    for (const { map, memory } of this.#partMemories) {
      const { cache, pageStride, cellStride } = map;
      if (pageStride > 0)
        memory.bytes(cache + cell * cellStride, cellStride).set(memory.bytes(cache + page * pageStride, cellStride));
    }
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

  async fill(page: number, source: (start: number, target: Uint8Array) => Promise<void>): Promise<void> {
    let start = 0;
    for (const [n, view] of this.#views(page).entries()) {
      // The memory of a single thread lies elsewhere once it has grown.
      const stays = !(view.buffer instanceof ArrayBuffer);
      const target = stays ? view : new Uint8Array(view.length);
      await source(start, target);
      if (!stays) this.#views(page)[n]!.set(target);
      start += view.length;
    }
  }

  async inspect(page: number): Promise<PageReport> {
    const checksum = new Checksum();
    let notFinite: number | undefined;
    let start = 0;
    let n = 0;
    for (const view of this.#views(page)) {
      const words = new Int32Array(view.buffer, view.byteOffset, view.length / 4);
      // The second look finds a strip in the processor's cache.
      for (let from = 0; from < view.length; from += STRIP) {
        const to = Math.min(from + STRIP, view.length);
        checksum.add(view.subarray(from, to));
        for (let area = this.#areas[n]; area && area.start < start + to; area = this.#areas[n]) {
          const end = area.start + area.bytes - start;
          const [first, last] = [Math.max(area.start - start, from), Math.min(end, to)];
          const found = firstNotFinite(words, first / 4, last / 4, area.type);
          if (found !== undefined) notFinite ??= start + found * 4;
          if (end > to) break;
          n++;
        }
      }
      start += view.length;
    }
    return { checksum: checksum.value, notFinite };
  }

  /** The bytes of a page in each memory. */
  #views(page: number): Uint8Array[] {
    return this.#partMemories.map(({ map: { cache, pageStride }, memory }) =>
      memory.bytes(cache + page * pageStride, pageStride),
    );
  }
}

/** Of q8_0 the scales, which stand in front of the lines that they are for (src/kernels/kv.ts). */
function floatAreas({ kvHeads, ...head }: KvCacheSpec, start: number): FloatArea[] {
  const { storage } = head;
  if (storage !== 'q8_0') return [{ type: storage, start, bytes: pageBytes({ kvHeads, ...head }) }];
  return Array.from({ length: kvHeads }, (_, n) => start + n * headBytes(head)).flatMap((keys): FloatArea[] => [
    ...Array.from({ length: PAGE / GROUP }, (_, group) => ({
      type: 'f32' as const,
      start: keys + group * keyGroupBytes(head),
      bytes: scaleBytes(head),
    })),
    { type: 'f32', start: keys + keyBytes(head), bytes: valueScaleBytes(head) },
  ]);
}
