/** A trie of texts by UTF-16 code units, in flat arrays. */

const EMPTY = -1;

export class Trie {
  /** [slots, 3]: parent node, code unit, child node. */
  #slots = new Int32Array(3 * 1024).fill(EMPTY);
  #mask = 1023;
  #nodes = 1;
  /** Value of the text that ends at each node, or -1. */
  #values = new Int32Array(1024).fill(EMPTY);

  add(text: string, value: number): void {
    let node = 0;
    for (let i = 0; i < text.length; i++) node = this.#childOrNew(node, text.charCodeAt(i));
    this.#values[node] = value;
  }

  /** The child of `node` (root: 0) for a code unit, or -1. */
  child(node: number, unit: number): number {
    return this.#slots[this.#slot(node, unit) + 2]!;
  }

  /** Value of the text that ends at `node`, or -1. */
  value(node: number): number {
    return this.#values[node]!;
  }

  #slot(node: number, unit: number): number {
    let hash = Math.imul(node, 0x9e3779b1) ^ Math.imul(unit, 0x85ebca6b);
    hash ^= hash >>> 15;
    const slots = this.#slots;
    for (let slot = hash & this.#mask; ; slot = (slot + 1) & this.#mask) {
      const at = 3 * slot;
      if (slots[at] === EMPTY || (slots[at] === node && slots[at + 1] === unit)) return at;
    }
  }

  #childOrNew(node: number, unit: number): number {
    const at = this.#slot(node, unit);
    if (this.#slots[at] !== EMPTY) return this.#slots[at + 2]!;
    const child = this.#nodes++;
    this.#slots.set([node, unit, child], at);
    if (2 * this.#nodes > this.#mask) this.#grow();
    return child;
  }

  #grow(): void {
    const old = this.#slots;
    this.#mask = 2 * this.#mask + 1;
    this.#slots = new Int32Array(2 * old.length).fill(EMPTY);
    for (let at = 0; at < old.length; at += 3) {
      if (old[at] !== EMPTY) this.#slots.set(old.subarray(at, at + 3), this.#slot(old[at]!, old[at + 1]!));
    }
    const values = new Int32Array(this.#mask + 1).fill(EMPTY);
    values.set(this.#values);
    this.#values = values;
  }
}
