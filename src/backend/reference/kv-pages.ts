/** A key/value cache as plain arrays: one entry per position of a page. */
import type { KvCacheSpec } from '../../plan/step.ts';
import { PAGE } from '../backend.ts';

export interface KvEntry {
  /** [kvHeads * headDim] */
  readonly k: Float32Array;
  readonly v: Float32Array;
}

export class KvPages {
  readonly #width: number;
  /** Pages by number; of a cache without a window, cells. */
  readonly #pages = new Map<number, KvEntry[]>();
  /** How far the first cells of two pages are apart; 1 for caches with a window. */
  readonly #step: number;

  /** @param cells see CachePages */
  constructor({ kvHeads, headDim, window }: KvCacheSpec, cells: number) {
    this.#width = kvHeads * headDim;
    this.#step = window === undefined ? cells : 1;
  }

  get pageBytes(): number {
    return PAGE * this.#width * 8;
  }

  get bytes(): number {
    return this.#pages.size * this.pageBytes;
  }

  grow(pages: number): void {
    for (let page = 0; page < pages; page++) this.#entries(page * this.#step);
  }

  clear(): void {
    this.#pages.clear();
  }

  /** The entry of `position` in a sequence with this page table. */
  at(table: Int32Array, position: number): KvEntry {
    return this.#pages.get(table[Math.floor(position / PAGE)]!)![position % PAGE]!;
  }

  /** Copy of a page: k and v of one position after the other. */
  read(page: number): Uint8Array {
    const values = new Float32Array(this.pageBytes / 4);
    for (const [i, { k, v }] of this.#entries(page * this.#step).entries()) {
      values.set(k, 2 * i * this.#width);
      values.set(v, (2 * i + 1) * this.#width);
    }
    return new Uint8Array(values.buffer);
  }

  write(page: number, bytes: Uint8Array): void {
    const values = new Float32Array(bytes.slice().buffer);
    for (const [i, { k, v }] of this.#entries(page * this.#step).entries()) {
      k.set(values.subarray(2 * i * this.#width, (2 * i + 1) * this.#width));
      v.set(values.subarray((2 * i + 1) * this.#width, (2 * i + 2) * this.#width));
    }
  }

  /** Of a cache without a window: makes a cell equal the first one of a page. */
  shrink(page: number, cell: number): void {
    const target = this.#entries(cell);
    for (const [i, { k, v }] of this.#entries(page * this.#step).entries()) {
      target[i]!.k.set(k);
      target[i]!.v.set(v);
    }
  }

  #entries(number: number): KvEntry[] {
    const entry = (): KvEntry => ({ k: new Float32Array(this.#width), v: new Float32Array(this.#width) });
    const known = this.#pages.get(number) ?? Array.from({ length: PAGE }, entry);
    this.#pages.set(number, known);
    return known;
  }
}
