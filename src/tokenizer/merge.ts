/** The merge loop of byte pair encodings: merges adjacent symbols, lowest rank first, until none merge. O(n log n). */

/** Which adjacent symbols merge, and to what. */
export interface MergeRules {
  /** An integer below 2^26. Lower ranks merge first, of equal ranks the leftmost; negative: no merge. */
  rank(left: number, right: number): number;
  /** The symbol that replaces a pair of this rank. */
  result(rank: number, left: number, right: number): number;
}

/** Up to this length, scanning all pairs is faster than a heap. */
const SHORT = 40;
const NEVER = 2 ** 31 - 1;
/** A heap key is rank * POSITIONS + position. Texts are shorter than this. */
const POSITIONS = 2 ** 26;

/** Merges the first `count` of `symbols` in place and returns the new count. */
export function mergeAll(symbols: Int32Array, count: number, rules: MergeRules): number {
  return count <= SHORT ? mergeShort(symbols, count, rules) : mergeLong(symbols, count, rules);
}

const shortRanks = new Int32Array(SHORT + 1);

function mergeShort(symbols: Int32Array, count: number, rules: MergeRules): number {
  const rankAt = (i: number, last: number): number => {
    if (i + 1 >= last) return NEVER;
    const rank = rules.rank(symbols[i]!, symbols[i + 1]!);
    return rank < 0 ? NEVER : rank;
  };
  let length = count;
  for (let i = 0; i < length; i++) shortRanks[i] = rankAt(i, length);
  for (;;) {
    let best = 0;
    for (let i = 1; i < length; i++) if (shortRanks[i]! < shortRanks[best]!) best = i;
    const rank = shortRanks[best]!;
    if (length < 2 || rank === NEVER) return length;
    symbols[best] = rules.result(rank, symbols[best]!, symbols[best + 1]!);
    length--;
    symbols.copyWithin(best + 1, best + 2, length + 1);
    shortRanks.copyWithin(best + 1, best + 2, length + 1);
    shortRanks[best] = rankAt(best, length);
    if (best > 0) shortRanks[best - 1] = rankAt(best - 1, length);
  }
}

/** Uses a linked list of symbols and a heap of pairs. A heap entry is skipped if the pair at its position has changed. */
function mergeLong(symbols: Int32Array, count: number, rules: MergeRules): number {
  const next = Int32Array.from({ length: count }, (_, i) => i + 1);
  const previous = Int32Array.from({ length: count }, (_, i) => i - 1);
  const ranks = new Int32Array(count).fill(-1);
  const heap = new Heap(count);
  const consider = (at: number): void => {
    const right = next[at]!;
    const rank = right < count ? rules.rank(symbols[at]!, symbols[right]!) : -1;
    ranks[at] = rank;
    if (rank >= 0) heap.push(rank * POSITIONS + at);
  };
  for (let i = 0; i < count; i++) consider(i);
  while (heap.length) {
    const key = heap.pop();
    const at = key % POSITIONS;
    const rank = (key - at) / POSITIONS;
    if (ranks[at] !== rank) continue;
    const right = next[at]!;
    symbols[at] = rules.result(rank, symbols[at]!, symbols[right]!);
    ranks[right] = -1;
    next[at] = next[right]!;
    if (next[at] < count) previous[next[at]] = at;
    consider(at);
    if (previous[at]! >= 0) consider(previous[at]!);
  }
  let length = 0;
  for (let at = 0; at < count; at = next[at]!) symbols[length++] = symbols[at]!;
  return length;
}

/** A binary min-heap of numbers. */
class Heap {
  #keys: Float64Array;
  length = 0;

  constructor(capacity: number) {
    this.#keys = new Float64Array(capacity);
  }

  push(key: number): void {
    if (this.length === this.#keys.length) {
      const grown = new Float64Array(2 * this.length);
      grown.set(this.#keys);
      this.#keys = grown;
    }
    const keys = this.#keys;
    let at = this.length++;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (keys[parent]! <= key) break;
      keys[at] = keys[parent]!;
      at = parent;
    }
    keys[at] = key;
  }

  pop(): number {
    const keys = this.#keys;
    const top = keys[0]!;
    const key = keys[--this.length]!;
    let at = 0;
    for (let child = 1; child < this.length; child = 2 * at + 1) {
      if (child + 1 < this.length && keys[child + 1]! < keys[child]!) child++;
      if (keys[child]! >= key) break;
      keys[at] = keys[child]!;
      at = child;
    }
    keys[at] = key;
    return top;
  }
}
