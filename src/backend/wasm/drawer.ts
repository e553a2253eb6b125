/**
 * Draws tokens from rows of logits that lie in a memory: threads walk over the row (src/kernels/draw.ts), between the walks
 * this thread decides. Same result as `drawFrom`.
 *
 * Weights are computed once. A cut to a number of tokens or a share of the weight is found in bins of logits: all tokens of
 * the bins above the one where the target is met are kept; in that bin, candidates are selected one by one. Where it holds
 * too many, it is divided into bins itself. A draw first falls on a chunk, then on a token of it.
 */
import {
  BIN_BYTES,
  BINS,
  binsKernel,
  binsRecord,
  CHUNK_SUM_BYTES,
  EDGE_BYTES,
  EDGE_IDS,
  edgeKernel,
  edgeRecord,
  maximaKernel,
  maximaRecord,
  weightsKernel,
  weightsRecord,
} from '../../kernels/draw.ts';
import { LINE } from '../../kernels/loops.ts';
import { bitsOf } from '../../kernels/record.ts';
import { flags } from '../../kernels/walker.ts';
import { SUMMARY_CHUNK } from '../../plan/step.ts';
import type { Draw } from '../backend.ts';
import {
  allowedBy,
  drawCandidates,
  inverseTemperature,
  LEAST_EXPONENT,
  leastWeight,
  tokenWeight,
  UNIT,
} from '../draw.ts';
import { hit, Selection } from '../selection.ts';
import type { DrawMap } from './lowering/draw-map.ts';
import type { KernelSet } from './lowering/kernel-set.ts';
import type { Memory } from './memory/memory.ts';

const CHUNK_LINES = SUMMARY_CHUNK / LINE;
/** Candidates of a small top-k that are looked at in this thread. */
const MOST_CANDIDATES = 1024;

/** Indices of the kernels in the table. */
export type DrawKernels = Readonly<Record<'maxima' | 'weights' | 'bins' | 'edge', number>>;

export const drawKernels = (kernels: KernelSet): DrawKernels => ({
  maxima: kernels.index('draw', 'maxima', (m) => maximaKernel(m, CHUNK_LINES)),
  weights: kernels.index('draw', 'weights', (m) => weightsKernel(m, CHUNK_LINES)),
  bins: kernels.index('draw', 'bins', (m) => binsKernel(m, CHUNK_LINES)),
  edge: kernels.index('draw', 'edge', (m) => edgeKernel(m, CHUNK_LINES)),
});

export interface DrawerOptions {
  readonly memory: Pick<Memory, 'wasm' | 'bytes' | 'i32' | 'f32'>;
  readonly map: DrawMap;
  readonly kernels: DrawKernels;
  /** Logits of a row. */
  readonly width: number;
  /** Threads that may walk. */
  readonly threads: number;
  /** Walks one record. */
  walk(tape: number): Promise<void>;
}

/** Tokens that a cut keeps. */
interface Kept {
  /** Every token with a larger logit is kept. */
  readonly above: number;
  /** Tokens kept beside these. */
  readonly others: Selection;
  /** Weight of each chunk, and of all. */
  readonly sums: Float64Array;
  readonly mass: number;
}

/** Logits that are divided into bins. */
interface Stretch {
  readonly top: number;
  readonly scale: number;
  readonly upper: number;
  readonly lower: number;
}

/** What `edge` found in one bin. */
interface Edge {
  readonly largest: number;
  readonly smallest: number;
  /** Ascending; undefined where there are more than the list holds. */
  readonly ids: readonly number[] | undefined;
}

export class Drawer {
  readonly #options: DrawerOptions;
  readonly #chunks: number;
  readonly #selection = new Selection();
  readonly #binSums = new Float64Array(BINS);
  /** Whether the mask in memory allows everything. */
  #open = false;

  constructor(options: DrawerOptions) {
    this.#options = options;
    this.#chunks = Math.ceil(options.width / SUMMARY_CHUNK);
  }

  /**
   * @param address of the row
   * @param summary of its chunks, as the step 'summarize' leaves them
   */
  async draw(address: number, summary: Float32Array, draw: Draw): Promise<number> {
    const { changed } = draw;
    if (!changed) return this.#draw(address, summary, draw);
    const { ids, logits } = changed;
    const row = this.#row(address);
    const before = new Float32Array(ids.length);
    for (let i = 0; i < ids.length; i++) {
      before[i] = row[ids[i]!]!;
      row[ids[i]!] = logits[i]!;
    }
    try {
      return await this.#draw(address, undefined, draw);
    } finally {
      const after = this.#row(address);
      for (let i = 0; i < ids.length; i++) after[ids[i]!] = before[i]!;
    }
  }

  #row(address: number): Float32Array {
    return this.#options.memory.f32(address, this.#options.width);
  }

  async #draw(address: number, summary: Float32Array | undefined, draw: Draw): Promise<number> {
    const { mask, temperature, topK, topP, minP, uniform } = draw;
    this.#writeMask(mask);
    const maxima = summary && !mask ? everySecond(summary) : await this.#maxima(address);
    let largest = Number.NEGATIVE_INFINITY;
    for (const most of maxima) if (most > largest) largest = most;
    if (largest === Number.NEGATIVE_INFINITY) return -1;
    if (temperature === 0) return this.#first(address, largest, maxima.indexOf(largest), mask);
    const inverse = inverseTemperature(temperature);
    if (topK > 0 && topK <= maxima.length) {
      const candidates = this.#largestCandidates(address, maxima, draw, (logit) =>
        tokenWeight(logit, largest, inverse),
      );
      if (candidates) return drawCandidates(candidates, draw);
    }
    const cuts = topK > 0 || topP < 1;
    const least = minP > 0 ? leastWeight(minP) : 1;
    const all = await this.#weights(address, largest, inverse, cuts ? 1 : least);
    let kept: Kept | undefined;
    const lower = Math.max(all.smallest, largest + LEAST_EXPONENT / inverse);
    const cut = (counts: boolean, target: number, smallest: number): Promise<Kept | undefined> =>
      this.#cut(address, { largest, lower, counts, target, least: smallest });
    if (topK > 0) kept = await cut(true, topK, topP < 1 ? 1 : least);
    if (topP < 1) kept = await cut(false, topP * (kept ?? all).mass, least);
    const nothingCut = cuts && !kept && least > 1;
    return this.#at(
      address,
      kept ?? (nothingCut ? await this.#weights(address, largest, inverse, least) : all),
      uniform,
      least,
    );
  }

  async #maxima(address: number): Promise<Float32Array> {
    const { map, memory, kernels } = this.#options;
    const words = maximaRecord.words({ x: address, mask: map.mask, out: map.maxima, lines: this.#lines });
    await this.#walk(kernels.maxima, words);
    return memory.f32(map.maxima, this.#chunks).slice();
  }

  /** Computes the weights of all tokens; those from `least` on are added up. */
  async #weights(
    address: number,
    largest: number,
    inverse: number,
    least: number,
  ): Promise<Kept & { readonly smallest: number }> {
    const { map, memory, kernels } = this.#options;
    const words = weightsRecord.words({
      x: address,
      mask: map.mask,
      weights: map.weights,
      out: map.sums,
      lines: this.#lines,
      largest: bitsOf(largest),
      inverse: bitsOf(inverse),
      least,
    });
    await this.#walk(kernels.weights, words);
    const found = memory.f32(map.sums, this.#chunks * SUM_WORDS);
    let smallest = Number.POSITIVE_INFINITY;
    for (let c = 0; c < this.#chunks; c++) smallest = Math.min(smallest, found[c * SUM_WORDS + 2]!);
    const sums = this.#sums();
    this.#selection.clear(0);
    return { sums, mass: total(sums), above: Number.NEGATIVE_INFINITY, others: this.#selection, smallest };
  }

  /** Sums that the last pass left. */
  #sums(): Float64Array {
    const { map, memory } = this.#options;
    const words = memory.i32(map.sums, this.#chunks * SUM_WORDS);
    const sums = new Float64Array(this.#chunks);
    for (let c = 0; c < sums.length; c++) sums[c] = words[c * SUM_WORDS]! * SUM_LOW + words[c * SUM_WORDS + 1]!;
    return sums;
  }

  /**
   * Keeps the shortest beginning of the tokens, ordered by (logit falling, id rising), whose number or weight reaches
   * `target`; undefined where there are no more than that.
   *
   * @param least smaller weights are not part of the sums
   */
  async #cut(
    address: number,
    {
      largest,
      lower,
      counts,
      target,
      least,
    }: Readonly<Record<'largest' | 'lower' | 'target' | 'least', number>> & {
      readonly counts: boolean;
    },
  ): Promise<Kept | undefined> {
    let stretch: Stretch = {
      top: largest,
      scale: binsPerUnit(largest - lower),
      upper: Number.POSITIVE_INFINITY,
      lower: Number.NEGATIVE_INFINITY,
    };
    let above = 0;
    for (;;) {
      const bins = await this.#bins(address, stretch, counts);
      let bin = 0;
      while (bin < BINS - 1 && above + bins[bin]! < target) above += bins[bin++]!;
      if (above + bins[bin]! < target) return undefined;
      const edge = await this.#edge(address, stretch, bin, least);
      const tied = edge.largest === edge.smallest;
      if (edge.ids || tied) {
        const others = edge.ids ? this.#candidates(address, edge.ids) : this.#tied(address, edge.largest);
        if (counts) others.keepLargest(target - above);
        else others.keepMass(target - above);
        const sums = this.#sums();
        for (const [i, id] of others.ids().entries()) {
          const weight = others.weightAt(i);
          if (weight >= least) sums[Math.floor(id / SUMMARY_CHUNK)]! += weight;
        }
        return { above: edge.largest, others, sums, mass: total(sums) };
      }
      const { largest: top, smallest } = edge;
      stretch = { top, scale: binsPerUnit(top - smallest), upper: top, lower: smallest };
    }
  }

  async #bins(address: number, { top, scale, upper, lower }: Stretch, counts: boolean): Promise<Float64Array> {
    const { map, memory, kernels, threads } = this.#options;
    memory.bytes(map.bins, threads * BIN_BYTES).fill(0);
    const words = binsRecord.words({
      x: address,
      weights: map.weights,
      out: map.bins,
      lines: this.#lines,
      top: bitsOf(top),
      scale: bitsOf(scale),
      upper: bitsOf(upper),
      lower: bitsOf(lower),
      most: counts ? 1 : UNIT,
    });
    await this.#walk(kernels.bins, words);
    const found = new Uint32Array(memory.wasm.buffer, map.bins, (threads * BIN_BYTES) / 4);
    const bins = this.#binSums.fill(0);
    for (let thread = 0, i = 0; thread < threads; thread++)
      for (let bin = 0; bin < BINS; bin++, i += 2) bins[bin]! += found[i + 1]! * 2 ** 32 + found[i]!;
    return bins;
  }

  async #edge(address: number, { top, scale, upper, lower }: Stretch, bin: number, least: number): Promise<Edge> {
    const { map, memory, kernels, threads } = this.#options;
    for (let thread = 0; thread < threads; thread++) memory.i32(map.edge + thread * EDGE_BYTES, 1)[0] = 0;
    const words = edgeRecord.words({
      x: address,
      weights: map.weights,
      above: map.sums,
      out: map.edge,
      lines: this.#lines,
      top: bitsOf(top),
      scale: bitsOf(scale),
      upper: bitsOf(upper),
      lower: bitsOf(lower),
      bin: bitsOf(bin),
      least,
    });
    await this.#walk(kernels.edge, words);
    const ids: number[] = [];
    let [full, largest, smallest] = [false, Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY];
    for (let thread = 0; thread < threads; thread++) {
      const at = map.edge + thread * EDGE_BYTES;
      const count = memory.i32(at, 1)[0]!;
      if (count === 0) continue;
      const [high, low] = memory.f32(at + 4, 2) as unknown as [number, number];
      largest = Math.max(largest, high);
      smallest = Math.min(smallest, low);
      full ||= count > EDGE_IDS;
      for (const id of memory.i32(at + 16, Math.min(count, EDGE_IDS))) ids.push(id);
    }
    return { largest, smallest, ids: full ? undefined : ids };
  }

  #candidates(address: number, ids: readonly number[]): Selection {
    const [row, weights, selection] = [this.#row(address), this.#weightView(), this.#selection];
    selection.clear(ids.length);
    for (const id of ids) selection.add(id, row[id]!, weights[id]!);
    return selection;
  }

  /** Tokens with this logit. */
  #tied(address: number, logit: number): Selection {
    const [row, weights, selection] = [this.#row(address), this.#weightView(), this.#selection];
    selection.clear(row.length);
    for (let id = 0; id < row.length; id++)
      if (row[id] === logit && weights[id]! > 0) selection.add(id, logit, weights[id]!);
    return selection;
  }

  /** All tokens that the `topK` largest logits can be; undefined where they are too many to look at here. */
  #largestCandidates(
    address: number,
    maxima: Float32Array,
    { topK, mask }: Draw,
    weigh: (logit: number) => number,
  ): Selection | undefined {
    const [row, selection] = [this.#row(address), this.#selection];
    // At least `topK` tokens reach the topK-th largest maximum of the chunks.
    const floor = Math.max(maxima.slice().sort()[maxima.length - topK]!, -MAX_FLOAT32);
    selection.clear(MOST_CANDIDATES);
    for (let chunk = 0; chunk < maxima.length; chunk++) {
      if (maxima[chunk]! < floor) continue;
      const end = Math.min(row.length, (chunk + 1) * SUMMARY_CHUNK);
      for (let id = chunk * SUMMARY_CHUNK; id < end; id++) {
        if (row[id]! < floor || (mask && !allowedBy(mask, id))) continue;
        if (selection.size === MOST_CANDIDATES) return undefined;
        selection.add(id, row[id]!, weigh(row[id]!));
      }
    }
    return selection;
  }

  /** The first token of a chunk that may come and has this logit. */
  #first(address: number, logit: number, chunk: number, mask: Uint32Array | undefined): number {
    const row = this.#row(address);
    let id = chunk * SUMMARY_CHUNK;
    while (row[id] !== logit || (mask && !allowedBy(mask, id))) id++;
    return id;
  }

  /** The token on which `uniform` of the kept weight falls. */
  #at(address: number, { above, others, sums, mass }: Kept, uniform: number, least: number): number {
    const [row, weights] = [this.#row(address), this.#weightView()];
    const { index, into } = hit(sums.length, (chunk) => sums[chunk]!, uniform * mass);
    const first = index * SUMMARY_CHUNK;
    const size = Math.min(SUMMARY_CHUNK, row.length - first);
    const kept = new Set(others.ids().filter((id) => id >= first && id < first + size));
    const weight = (i: number): number => {
      const w = weights[first + i]!;
      return w >= least && (row[first + i]! > above || kept.has(first + i)) ? w : 0;
    };
    return first + hit(size, weight, into).index;
  }

  #weightView(): Int32Array {
    const { memory, map, width } = this.#options;
    return memory.i32(map.weights, width);
  }

  get #lines(): number {
    return Math.ceil(this.#options.width / LINE);
  }

  #writeMask(mask: Uint32Array | undefined): void {
    if (!mask && this.#open) return;
    const { memory, map, width } = this.#options;
    const words = memory.i32(map.mask, map.maskBytes / 4);
    if (mask) words.set(mask.subarray(0, words.length));
    else words.fill(-1);
    if (width % 32 !== 0) words[words.length - 1]! &= 2 ** (width % 32) - 1;
    this.#open = !mask;
  }

  #walk(kernel: number, words: Int32Array): Promise<void> {
    const { memory, map, walk } = this.#options;
    const always = flags.barrier | flags.barrierMany | flags.barrierAlways;
    memory.i32(map.tape, 2 + words.length).set([kernel, always, ...words]);
    return walk(map.tape);
  }
}

const SUM_WORDS = CHUNK_SUM_BYTES / 4;
/** What the high part of a sum counts. */
const SUM_LOW = 2 ** 15;
const MAX_FLOAT32 = 3.4028234663852886e38;

function total(sums: Float64Array): number {
  let all = 0;
  for (const sum of sums) all += sum;
  return all;
}

/** The maxima of chunks that the step 'summarize' left. */
function everySecond(summary: Float32Array): Float32Array {
  const maxima = new Float32Array(summary.length / 2);
  for (let c = 0; c < maxima.length; c++) maxima[c] = summary[2 * c]!;
  return maxima;
}

/** Half a bin less than there are, so that the lowest logit is in the last one. */
const binsPerUnit = (height: number): number => (BINS - 0.5) / height;
