/** The pages of the key/value cache, behind the weights in each memory: page p has the same number in each of them. */
import { OutOfMemoryError } from '../../errors.ts';
import { headBytes, keyBytes, keyGroupBytes, pageBytes, scaleBytes, valueScaleBytes } from '../../kernels/kv.ts';
import type { KvCacheSpec, Plan } from '../../plan/step.ts';
import { type CachePages, PAGE } from '../backend.ts';
import type { PartMemory } from './loading/load-run.ts';
import { MEMORY_LIMIT } from './memory/memory.ts';

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
  count = 0;
  #partMemories: readonly PartMemory[];
  readonly #areas: readonly FloatArea[];

  constructor(plan: Plan, partMemories: readonly PartMemory[], capacity: number) {
    this.#partMemories = partMemories;
    this.capacity = capacity;
    this.tableEntries = Math.min(...partMemories.map(({ map }) => map.tableCount));
    const areas: FloatArea[] = [];
    let end = 0;
    for (const { map, part } of partMemories) {
      for (const id of part.caches) areas.push(...floatAreas(plan.caches[id]!, end + map.cacheOffsets[id]!));
      end += map.pageStride;
    }
    this.pageBytes = end;
    this.#areas = areas;
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
    const targets = this.#views(to);
    for (const [n, source] of this.#views(from).entries()) targets[n]!.set(source);
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

  firstNotFinite(bytes: Uint8Array): number | undefined {
    const words = new Uint32Array(bytes.buffer, bytes.byteOffset, this.pageBytes / 4);
    for (const { type, start, bytes: length } of this.#areas) {
      const found = firstNotFiniteWord(words, start / 4, (start + length) / 4, type);
      if (found !== undefined) return found * 4;
    }
    return undefined;
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

function firstNotFiniteWord(words: Uint32Array, from: number, to: number, type: 'f32' | 'f16'): number | undefined {
  if (type === 'f32') {
    for (let i = from; i < to; i++) if ((words[i]! & 0x7f800000) === 0x7f800000) return i;
    return undefined;
  }
  for (let i = from; i < to; i++) {
    const pair = words[i]!;
    if ((pair & 0x7c00) === 0x7c00 || (pair & 0x7c000000) === 0x7c000000) return i;
  }
  return undefined;
}
