/** Candidates of a draw: cut down to the most probable ones in time linear in their number, then drawn from. */

/** Bits of a sort key that one pass of the search looks at. */
const DIGITS = [
  { shift: 21, mask: 0x7ff },
  { shift: 10, mask: 0x7ff },
  { shift: 0, mask: 0x3ff },
];

/** Which of `count` weights, laid end to end, `place` falls on, and how far into it: the last positive one at most. */
export function hit(count: number, weight: (i: number) => number, place: number): { index: number; into: number } {
  let [index, into, rest] = [0, 0, place];
  for (let i = 0; i < count; i++) {
    const w = weight(i);
    if (w === 0) continue;
    [index, into] = [i, rest];
    if (w > rest) break;
    rest -= w;
  }
  return { index, into };
}

/**
 * Token ids, ascending, with their logits and weights. Every cut keeps a beginning of the order (logit falling, id rising),
 * found as a threshold by a radix search over the bits of the logits; nothing is sorted. Weights are integers, so that
 * their sums are exact in any order. Its arrays can be used for one draw after the other.
 */
export class Selection {
  private count = 0;
  private candidates = new Int32Array(0);
  private logits = new Float32Array(0);
  private logitBits = new Int32Array(0);
  private weights = new Float64Array(0);
  /** Sum of the weights. */
  private mass = 0;
  private readonly masses = new Float64Array(2048);

  /** Makes room for `count` candidates, and starts with none. */
  clear(count: number): void {
    this.count = 0;
    this.mass = 0;
    if (this.candidates.length >= count) return;
    this.candidates = new Int32Array(count);
    this.logits = new Float32Array(count);
    this.logitBits = new Int32Array(this.logits.buffer);
    this.weights = new Float64Array(count);
  }

  /** Adds a candidate whose id is above all there are. */
  add(id: number, logit: number, weight: number): void {
    this.candidates[this.count] = id;
    this.logits[this.count] = logit + 0; // -0 becomes 0: equal logits have equal bits
    this.weights[this.count++] = weight;
    this.mass += weight;
  }

  /** Takes every token that may come and has a weight. */
  load(logits: Float32Array, mask: Uint32Array | undefined, weigh: (logit: number) => number, floor: number): void {
    this.clear(logits.length);
    for (let id = 0; id < logits.length; id++) {
      const logit = logits[id]!;
      if (!(logit >= floor)) continue;
      if (mask && ((mask[id >>> 5]! >>> (id & 31)) & 1) === 0) continue;
      const weight = weigh(logit);
      if (weight > 0) this.add(id, logit, weight);
    }
  }

  /** Ascending. */
  ids(): Int32Array {
    return this.candidates.subarray(0, this.count);
  }

  get size(): number {
    return this.count;
  }

  /** Sum of the weights. */
  get totalMass(): number {
    return this.mass;
  }

  /** Keeps the `most` candidates of largest logit. */
  keepLargest(most: number): void {
    if (most < this.count) this.keepUntil(most, () => 1);
  }

  /** Keeps the fewest candidates of largest logit whose weights reach `mass`. */
  keepMass(mass: number): void {
    const { weights } = this;
    this.keepUntil(mass, (i) => weights[i]!);
  }

  /** Keeps candidates of at least this weight. */
  keepWeightsFrom(least: number): void {
    this.keep((i) => this.weights[i]! >= least);
  }

  weightAt(index: number): number {
    return this.weights[index]!;
  }

  /** @param uniform in [0, 1): where in the weight, laid out by rising id, the draw falls */
  draw(uniform: number): number {
    return this.candidates[hit(this.count, (i) => this.weights[i]!, uniform * this.mass).index]!;
  }

  /** Keeps the shortest beginning of (logit falling, id rising) whose sizes reach `target`, or everything. */
  private keepUntil(target: number, size: (i: number) => number): void {
    const { logitBits, masses } = this;
    let above = 0; // sizes of all candidates known to be kept
    let prefix = 0; // leading bits of the threshold's key
    let decided = 0; // mask of these bits
    for (const { shift, mask } of DIGITS) {
      masses.fill(0, 0, mask + 1);
      for (let i = 0; i < this.count; i++) {
        const key = sortKey(logitBits[i]!);
        if ((key & decided) === prefix) masses[(key >>> shift) & mask]! += size(i);
      }
      let digit = mask;
      while (digit > 0 && above + masses[digit]! < target) above += masses[digit--]!;
      prefix |= digit << shift;
      decided |= mask << shift;
      const least = prefix >>> 0;
      this.keep((i) => (sortKey(logitBits[i]!) & decided) >>> 0 >= least);
    }
    this.keep((i) => {
      if (sortKey(logitBits[i]!) !== prefix) return true;
      if (above >= target) return false;
      above += size(i);
      return true;
    });
  }

  private keep(wanted: (i: number) => boolean): void {
    const { candidates, logits, weights } = this;
    let kept = 0;
    this.mass = 0;
    for (let i = 0; i < this.count; i++) {
      if (!wanted(i)) continue;
      this.mass += weights[i]!;
      candidates[kept] = candidates[i]!;
      logits[kept] = logits[i]!;
      weights[kept] = weights[i]!;
      kept++;
    }
    this.count = kept;
  }
}

/** Bits of a float32 as an unsigned integer (to be read with >>> 0) that rises with the number. */
const sortKey = (float: number): number => float ^ ((float >> 31) | 0x80000000);
