/** The ratio of two sides that took turns, with a bootstrap interval. Seeded: the same samples give the same interval. */
import { Random } from '../sampling/random.ts';
import { type Change, quantile } from './statistics.ts';

const RESAMPLES = 2000;

/**
 * For samples taken in pairs in the same turn: the median of the ratios `after` / `before`, which a few slow turns do not
 * move, with the 95 % interval of the bootstrap over pairs.
 *
 * Percentiles of the bootstrap are too narrow for few pairs. Those here are the ones at which the interval of a mean would be
 * Student's: "expanded percentiles", T. Hesterberg, What Teachers Should Know about the Bootstrap, 2015, section 5.
 * @param before @param after positive, not empty, of equal length
 */
export function bootstrapChange(before: readonly number[], after: readonly number[], seed = 1): Change {
  const ratios = Float64Array.from(after, (value, i) => value / before[i]!).sort();
  const medians = resampledMedians(ratios, RESAMPLES, new Random(seed)).sort();
  const tail = tailOf(ratios.length);
  return { ratio: quantile(ratios, 0.5), low: quantile(medians, tail), high: quantile(medians, 1 - tail) };
}

/** Medians of `count` samples, each as many values drawn with replacement. @param sorted ascending, not empty */
export const resampledMedians = (sorted: Float64Array, count: number, random: Random): Float64Array =>
  Float64Array.from({ length: count }, () => resampledMedian(sorted, random));

/** The median of as many values, drawn with replacement. @param sorted ascending */
function resampledMedian(sorted: Float64Array, random: Random): number {
  const drawn = new Uint32Array(sorted.length);
  for (let i = 0; i < sorted.length; i++) drawn[Math.floor(random.uniform() * sorted.length)]!++;
  const middle = (sorted.length - 1) / 2;
  return (ranked(sorted, drawn, Math.floor(middle)) + ranked(sorted, drawn, Math.ceil(middle))) / 2;
}

/** The value of rank `rank`, from 0, where value i occurs `counts[i]` times. */
function ranked(sorted: Float64Array, counts: Uint32Array, rank: number): number {
  let at = 0;
  for (let seen = counts[0]!; seen <= rank; seen += counts[at]!) at++;
  return sorted[at]!;
}

/** Share of the bootstrap's distribution beyond each end of the interval, for `count` pairs. */
export function tailOf(count: number): number {
  return count < 2 ? 0 : normalTail(Math.sqrt(count / (count - 1)) * studentQuantile(count - 1));
}

/** The 0.975 quantile of Student's distribution: Abramowitz and Stegun 26.7.5, and the values where that is inexact. */
export function studentQuantile(degrees: number): number {
  if (degrees < 3) return degrees === 1 ? 12.7062 : 4.30265;
  const z = 1.959964;
  const terms = [
    z,
    (z ** 3 + z) / 4,
    (5 * z ** 5 + 16 * z ** 3 + 3 * z) / 96,
    (3 * z ** 7 + 19 * z ** 5 + 17 * z ** 3 - 15 * z) / 384,
    (79 * z ** 9 + 776 * z ** 7 + 1482 * z ** 5 - 1920 * z ** 3 - 945 * z) / 92160,
  ];
  return terms.reduce((sum, term, power) => sum + term / degrees ** power, 0);
}

/** The probability beyond `x` > 0 of the normal distribution: Abramowitz and Stegun 26.2.17. */
function normalTail(x: number): number {
  const t = 1 / (1 + 0.2316419 * x);
  const polynomial = t * (0.31938153 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))));
  return (polynomial * Math.exp((-x * x) / 2)) / Math.sqrt(2 * Math.PI);
}
