/**
 * Finds the dimension where one storage type becomes faster than another, from times in turns. A type wins at a dimension if
 * it is faster there in every resample of the turns: stricter than 95 %, because many dimensions are compared and noise must
 * not name winners.
 */
import { Random } from '../sampling/random.ts';
import { resampledMedians, tailOf } from './bootstrap.ts';
import { FEWEST_TURNS } from './compare.ts';
import { quantile } from './statistics.ts';

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

/** @param pairs at least one, each with at least one turn, at different dimensions */
export function findCrossings(pairs: readonly PairAt[], options: CrossingOptions = {}): PairCrossing {
  const { margin = 0.02, resamples = 1000, seed = 1 } = options;
  const sorted = pairs.toSorted((a, b) => a.dim - b.dim);
  const random = new Random(seed);
  // Logarithms, so that 2 and 1/2 are equally far from 1.
  const logs = sorted.map(({ base, other }) =>
    Float64Array.from(other, (ms, turn) => Math.log(ms / base[turn]!)).sort(),
  );
  const medians = logs.map((values) => resampledMedians(values, resamples, random));
  const middles = logs.map((values) => quantile(values, 0.5));
  const ratios = sorted.map(({ dim }, index): RatioAt => {
    const ratio = middles[index]!;
    const turns = logs[index]!.length;
    const [low, high] = interval(medians[index]!, tailOf(turns));
    const [least, most] = interval(medians[index]!, 0);
    const counts = turns >= FEWEST_TURNS && Math.abs(ratio) >= Math.log1p(margin);
    const winner = counts && least > 0 ? 'base' : counts && most < 0 ? 'other' : 'neither';
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
    const [low, high] = interval(places, tailOf(logs[from]!.length));
    const dim = at(middles.slice(from, to + 1));
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

/** The quantiles `tail` and 1 - `tail`. */
function interval(values: Float64Array, tail: number): [number, number] {
  const sorted = values.toSorted();
  return [quantile(sorted, tail), quantile(sorted, 1 - tail)];
}
