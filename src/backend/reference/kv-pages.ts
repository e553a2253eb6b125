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
  readonly #pages: KvEntry[][] = [];

  constructor({ kvHeads, headDim }: KvCacheSpec) {
    this.#width = kvHeads * headDim;
  }

  get pageBytes(): number {
    return PAGE * this.#width * 8;
  }

  get bytes(): number {
    return this.#pages.length * this.pageBytes;
  }

  grow(pages: number): void {
    const entry = (): KvEntry => ({ k: new Float32Array(this.#width), v: new Float32Array(this.#width) });
    while (this.#pages.length < pages) this.#pages.push(Array.from({ length: PAGE }, entry));
  }

  clear(): void {
    this.#pages.length = 0;
  }

  /** The entry of `position` in a sequence with this page table. */
  at(table: Int32Array, position: number): KvEntry {
    return this.#pages[table[Math.floor(position / PAGE)]!]![position % PAGE]!;
  }

  /** Copy of a page: k and v of one position after the other. */
  read(page: number): Uint8Array {
    const values = new Float32Array(this.pageBytes / 4);
    for (const [i, { k, v }] of this.#pages[page]!.entries()) {
      values.set(k, 2 * i * this.#width);
      values.set(v, (2 * i + 1) * this.#width);
    }
    return new Uint8Array(values.buffer);
  }

  write(page: number, bytes: Uint8Array): void {
    const values = new Float32Array(bytes.slice().buffer);
    for (const [i, { k, v }] of this.#pages[page]!.entries()) {
      k.set(values.subarray(2 * i * this.#width, (2 * i + 1) * this.#width));
      v.set(values.subarray((2 * i + 1) * this.#width, (2 * i + 2) * this.#width));
    }
  }
}
