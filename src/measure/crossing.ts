/**
 * Finds the dimension where one storage type becomes faster than another, from times in turns. A type wins at a dimension if
 * it is faster there with 95 % confidence over all dimensions together, so that noise alone rarely names a winner.
 */
import { median } from './statistics.ts';

/** Times of two sides at one dimension; turns are pairs. */
export interface PairAt {
  readonly dim: number;
  readonly base: readonly number[];
  readonly other: readonly number[];
}

export type Winner = 'base' | 'other' | 'neither';

export interface RatioAt {
  readonly dim: number;
  /** Time of `other` / time of `base`, median over turns, with its interval at 95 %. */
  readonly ratio: number;
  readonly low: number;
  readonly high: number;
  readonly winner: Winner;
}

export interface Crossing {
  /** Estimated dimension, with its interval at 95 %. */
  readonly dim: number;
  readonly low: number;
  readonly high: number;
  /** Measured dimensions between which it lies: the winners differ surely there. */
  readonly between: readonly [number, number];
  readonly below: Exclude<Winner, 'neither'>;
  readonly above: Exclude<Winner, 'neither'>;
}

/** What a threshold for converting to `other` would have to be. */
export type ThresholdRule =
  /** `other` from this dimension on. */
  | { readonly kind: 'from'; readonly dim: number }
  /** `other` below this dimension: no minimum can say that. */
  | { readonly kind: 'below'; readonly dim: number }
  /** No threshold: one side wins at some dimensions and loses at none. */
  | { readonly kind: 'always'; readonly winner: Exclude<Winner, 'neither'> }
  | { readonly kind: 'equal' }
  /** The winner changes more than once. */
  | { readonly kind: 'several' };

export interface PairCrossing {
  /** By rising dimension. */
  readonly ratios: readonly RatioAt[];
  readonly crossings: readonly Crossing[];
  readonly rule: ThresholdRule;
}

export interface CrossingOptions {
  /** Differences below this share count as equal. Default 0.02. */
  readonly margin?: number;
  readonly resamples?: number;
  readonly seed?: number;
}

const LEVEL = 0.95;

/** @param pairs at least one, each with at least one turn, at different dimensions */
export function findCrossings(pairs: readonly PairAt[], options: CrossingOptions = {}): PairCrossing {
  const { margin = 0.02, resamples = 1000, seed = 1 } = options;
  const sorted = pairs.toSorted((a, b) => a.dim - b.dim);
  const random = uniforms(seed);
  // Logarithms, so that 2 and 1/2 are equally far from 1.
  const logs = sorted.map(({ base, other }) => other.map((ms, turn) => Math.log(ms / base[turn]!)));
  const medians = logs.map((values) => resampledMedians(values, resamples, random));
  const ratios = sorted.map(({ dim }, index): RatioAt => {
    const ratio = median(logs[index]!);
    const [low, high] = interval(medians[index]!, LEVEL);
    const [surelyAbove, surelyBelow] = interval(medians[index]!, 1 - (1 - LEVEL) / sorted.length);
    const large = Math.abs(ratio) >= Math.log1p(margin);
    const winner = large && surelyAbove > 0 ? 'base' : large && surelyBelow < 0 ? 'other' : 'neither';
    return { dim, ratio: Math.exp(ratio), low: Math.exp(low), high: Math.exp(high), winner };
  });
  const sure = ratios.flatMap(({ winner }, index) => (winner === 'neither' ? [] : [index]));
  const crossings = sure.slice(1).flatMap((to, n): Crossing[] => {
    const from = sure[n]!;
    const [below, above] = [ratios[from]!.winner, ratios[to]!.winner];
    if (below === above || below === 'neither' || above === 'neither') return [];
    const dims = sorted.slice(from, to + 1).map(({ dim }) => dim);
    const at = (values: readonly number[]): number => signChange(dims, values, below === 'base' ? 1 : -1);
    const places = Float64Array.from({ length: resamples }, (_, sample) =>
      at(medians.slice(from, to + 1).map((values) => values[sample]!)),
    );
    const [low, high] = interval(places, LEVEL);
    const dim = at(logs.slice(from, to + 1).map(median));
    return [{ dim, low, high, between: [dims[0]!, dims.at(-1)!], below, above }];
  });
  return { ratios, crossings, rule: ruleOf(ratios, crossings) };
}

function ruleOf(ratios: readonly RatioAt[], crossings: readonly Crossing[]): ThresholdRule {
  const [only] = crossings;
  if (crossings.length > 1) return { kind: 'several' };
  if (only) return { kind: only.above === 'other' ? 'from' : 'below', dim: only.dim };
  const winner = ratios.map((ratio) => ratio.winner).find((side) => side !== 'neither');
  return winner === undefined ? { kind: 'equal' } : { kind: 'always', winner };
}

/**
 * The dimension where values turn from `sign` to its opposite, by linear interpolation over log(dimension). Where noise makes
 * several, the middle of the first and the last one.
 */
function signChange(dims: readonly number[], values: readonly number[], sign: 1 | -1): number {
  const turned = values.map((value) => value * sign <= 0);
  const [first, last] = [turned.indexOf(true), turned.lastIndexOf(false) + 1];
  const start = first < 0 ? dims.at(-1)! : before(first);
  const end = last >= dims.length ? dims.at(-1)! : before(last);
  return Math.sqrt(start * end);

  /** Where the values reach 0 between the dimension in front of `index` and the one there. */
  function before(index: number): number {
    if (index === 0) return dims[0]!;
    const [a, b] = [values[index - 1]!, values[index]!];
    const share = a === b ? 0.5 : Math.min(1, Math.max(0, a / (a - b)));
    return Math.exp(Math.log(dims[index - 1]!) + share * Math.log(dims[index]! / dims[index - 1]!));
  }
}

/** Medians of samples drawn from `values` with replacement. */
function resampledMedians(values: readonly number[], count: number, random: () => number): Float64Array {
  const size = values.length;
  const sample = new Float64Array(size);
  return Float64Array.from({ length: count }, () => {
    for (let i = 0; i < size; i++) sample[i] = values[Math.floor(random() * size)]!;
    sample.sort();
    return (sample[(size - 1) >> 1]! + sample[size >> 1]!) / 2;
  });
}

/** The part of `level` in the middle. */
function interval(values: Float64Array, level: number): [number, number] {
  const sorted = values.toSorted();
  const tail = Math.floor(((1 - level) / 2) * (sorted.length - 1));
  return [sorted[tail]!, sorted[sorted.length - 1 - tail]!];
}

/** The median with its interval at 95 %. @param values not empty */
export function medianInterval(values: readonly number[], seed = 1): { median: number; low: number; high: number } {
  const [low, high] = interval(resampledMedians(values, 1000, uniforms(seed)), LEVEL);
  return { median: median(values), low, high };
}

/** Numbers in [0, 1): Mulberry32. */
function uniforms(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
