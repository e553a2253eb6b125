/** The merges of a byte pair encoding: pair of token ids -> rank, in a flat hash table with open addressing. */

const EMPTY = -1;

export class PairTable {
  readonly #mask: number;
  /** [slots, 3]: left, right, rank. */
  readonly #slots: Int32Array;

  constructor(count: number) {
    const size = 2 ** Math.ceil(Math.log2(2 * count + 2));
    this.#mask = size - 1;
    this.#slots = new Int32Array(3 * size).fill(EMPTY);
  }

  #slot(left: number, right: number): number {
    let hash = Math.imul(left, 0x9e3779b1) ^ Math.imul(right, 0x85ebca6b);
    hash ^= hash >>> 15;
    const slots = this.#slots;
    for (let slot = hash & this.#mask; ; slot = (slot + 1) & this.#mask) {
      const at = 3 * slot;
      if (slots[at] === EMPTY || (slots[at] === left && slots[at + 1] === right)) return at;
    }
  }

  /** A second rank of a pair replaces the first. */
  set(left: number, right: number, rank: number): void {
    const at = this.#slot(left, right);
    this.#slots[at] = left;
    this.#slots[at + 1] = right;
    this.#slots[at + 2] = rank;
  }

  /** Rank of a pair, or -1. */
  rank(left: number, right: number): number {
    return this.#slots[this.#slot(left, right) + 2]!;
  }
}
