/** Candidates of a draw: cut down to the most probable ones in time linear in their number, then drawn from. */
import { decay } from '../numbers.ts';

/** Bits of a sort key that one pass of the search looks at. */
const DIGITS = [
  { shift: 21, mask: 0x7ff },
  { shift: 10, mask: 0x7ff },
  { shift: 0, mask: 0x3ff },
];

export const MAX_FLOAT32 = 3.4028234663852886e38;

/** Logits whose largest one stands for all of them in `floorOfLargest`. */
const GROUP = 256;

/** A logit that at least `count` tokens reach: the count-th largest of the maxima of groups. -Infinity where unknown. */
export function floorOfLargest(logits: Float32Array, count: number): number {
  const maxima = new Float32Array(Math.ceil(logits.length / GROUP));
  if (count > maxima.length) return Number.NEGATIVE_INFINITY;
  for (let group = 0; group < maxima.length; group++) {
    let most = Number.NEGATIVE_INFINITY;
    const end = Math.min(logits.length, (group + 1) * GROUP);
    for (let id = group * GROUP; id < end; id++) if (logits[id]! > most) most = logits[id]!;
    maxima[group] = most;
  }
  return maxima.sort()[maxima.length - count]!;
}

/** Which of `count` weights, laid end to end, `place` falls on, and how far into it: the last positive one at most. */
function hit(count: number, weight: (i: number) => number, place: number): { index: number; into: number } {
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
 * The id of a draw from all tokens: first a group, then a token of it, so that no weight need be kept.
 *
 * @param max the largest logit
 * @param uniform in [0, 1): where in the weight, laid out by rising id, the draw falls
 */
export function drawFromAll(logits: Float32Array, max: number, temperature: number, uniform: number): number {
  const weight = (id: number): number => decay((logits[id]! - max) / temperature);
  const groups = new Float64Array(Math.ceil(logits.length / GROUP));
  let mass = 0;
  for (let group = 0; group < groups.length; group++) {
    let sum = 0;
    const end = Math.min(logits.length, (group + 1) * GROUP);
    for (let id = group * GROUP; id < end; id++) sum += weight(id);
    groups[group] = sum;
    mass += sum;
  }
  const { index, into } = hit(groups.length, (group) => groups[group]!, uniform * mass);
  const first = index * GROUP;
  const size = Math.min(GROUP, logits.length - first);
  return first + hit(size, (i) => weight(first + i), into).index;
}

/**
 * Token ids, ascending, with their logits. Every cut keeps a beginning of the order (logit falling, id rising), found as
 * a threshold by a radix search over the bits of the logits; nothing is sorted. Its arrays live as long as the sampler.
 */
export class Selection {
  private count = 0;
  private candidates = new Int32Array(0);
  private logits = new Float32Array(0);
  private logitBits = new Int32Array(0);
  /** Probability of each candidate relative to the most probable one, once `weigh` was called. */
  private weights = new Float64Array(0);
  /** Sum of the weights. */
  private mass = 0;
  private readonly masses = new Float64Array(2048);

  /** Takes every token that is not masked and whose logit is at least `floor`. */
  load(logits: Float32Array, floor = Number.NEGATIVE_INFINITY): void {
    if (this.candidates.length < logits.length) {
      this.candidates = new Int32Array(logits.length);
      this.logits = new Float32Array(logits.length);
      this.logitBits = new Int32Array(this.logits.buffer);
      this.weights = new Float64Array(logits.length);
    }
    const { candidates, logits: taken } = this;
    const least = Math.max(floor, -MAX_FLOAT32);
    let count = 0;
    for (let id = 0; id < logits.length; id++) {
      const logit = logits[id]!;
      if (!(logit >= least)) continue;
      candidates[count] = id;
      taken[count++] = logit + 0; // -0 becomes 0: equal logits have equal bits
    }
    this.count = count;
  }

  ids(): Int32Array {
    return this.candidates.subarray(0, this.count);
  }

  /** Keeps the `most` candidates of largest logit. */
  keepLargest(most: number): void {
    if (most >= this.count) return;
    this.weights.fill(1, 0, this.count);
    this.keepUntil(most);
  }

  /** Sets weights to e^((logit - max) / temperature). */
  weigh(max: number, temperature: number): void {
    const { weights, logits, count } = this;
    this.mass = 0;
    for (let i = 0; i < count; i++) this.mass += weights[i] = decay((logits[i]! - max) / temperature);
  }

  /** Keeps the fewest most probable candidates that hold at least `share` of the weight. */
  keepMass(share: number): void {
    this.keepUntil(share * this.mass);
  }

  /** Keeps candidates of at least this weight. */
  keepWeightsFrom(least: number): void {
    this.keep((i) => this.weights[i]! >= least);
  }

  /** @param uniform in [0, 1): where in the weight, laid out by rising id, the draw falls */
  draw(uniform: number): number {
    return this.candidates[hit(this.count, (i) => this.weights[i]!, uniform * this.mass).index]!;
  }

  /** Keeps the shortest beginning of (logit falling, id rising) whose weights reach `target`, or everything. */
  private keepUntil(target: number): void {
    const { logitBits, weights, masses } = this;
    let above = 0; // weight of all candidates known to be kept
    let prefix = 0; // leading bits of the threshold's key
    let decided = 0; // mask of these bits
    for (const { shift, mask } of DIGITS) {
      masses.fill(0, 0, mask + 1);
      for (let i = 0; i < this.count; i++) {
        const key = sortKey(logitBits[i]!);
        if ((key & decided) === prefix) masses[(key >>> shift) & mask]! += weights[i]!;
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
      above += weights[i]!;
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
