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

  get bytes(): number {
    return this.#pages.length * PAGE * this.#width * 8;
  }

  grow(pages: number): void {
    const entry = (): KvEntry => ({ k: new Float32Array(this.#width), v: new Float32Array(this.#width) });
    while (this.#pages.length < pages) this.#pages.push(Array.from({ length: PAGE }, entry));
  }

  /** The entry of `position` in a sequence with this page table. */
  at(table: Int32Array, position: number): KvEntry {
    return this.#pages[table[Math.floor(position / PAGE)]!]![position % PAGE]!;
  }
}
