/**
 * Summarizes repeated measurements and decides whether two of them differ. Both tests use ranks only, so that a few slow
 * samples of a shared machine do not decide. The interval by resampling is in bootstrap.ts.
 */

/** Median and quartiles. */
export interface Spread {
  readonly median: number;
  readonly low: number;
  readonly high: number;
}

/** The quantile `at` (0: smallest, 1: largest), interpolated linearly. @param sorted ascending, not empty */
export function quantile(sorted: ArrayLike<number>, at: number): number {
  const place = at * (sorted.length - 1);
  const below = Math.floor(place);
  const next = sorted[Math.min(below + 1, sorted.length - 1)]!;
  return sorted[below]! + (place - below) * (next - sorted[below]!);
}

const ascending = (values: readonly number[]): number[] => [...values].sort((a, b) => a - b);

/** @param values not empty */
export const median = (values: readonly number[]): number => quantile(ascending(values), 0.5);

/** @param values not empty */
export function spreadOf(values: readonly number[]): Spread {
  const sorted = ascending(values);
  return { median: quantile(sorted, 0.5), low: quantile(sorted, 0.25), high: quantile(sorted, 0.75) };
}

/** The ratio `after` / `before` (1.05: 5 % more) with its 95 % confidence interval. */
export interface Change {
  readonly ratio: number;
  readonly low: number;
  readonly high: number;
}

const TAIL = 0.025;
/** The normal quantile that leaves `TAIL` on each side, in standard deviations. */
const DEVIATIONS = 1.96;

/**
 * For samples taken in pairs, one right after the other: the median of their ratios, with the interval of the sign test.
 * Fewer than 6 pairs cannot reach 95 % confidence; the interval is then the range of the ratios.
 * @param before @param after not empty, of equal length
 */
export function pairedChange(before: readonly number[], after: readonly number[]): Change {
  const ratios = ascending(after.map((value, i) => value / before[i]!));
  // The largest rank with P(Binomial(n, 1/2) < rank) within the tail.
  let [rank, probability, term] = [0, 0, 0.5 ** ratios.length];
  while (probability + term <= TAIL) {
    probability += term;
    rank++;
    term *= (ratios.length - rank + 1) / rank;
  }
  return intervalOf(ratios, rank);
}

/**
 * For samples taken at different times: the median of the ratios of every `after` to every `before` (Hodges-Lehmann), with
 * the interval of the Mann-Whitney rank test.
 * @param before @param after not empty
 */
export function unpairedChange(before: readonly number[], after: readonly number[]): Change {
  const ratios = ascending(after.flatMap((value) => before.map((other) => value / other)));
  const deviation = Math.sqrt((ratios.length * (before.length + after.length + 1)) / 12);
  return intervalOf(ratios, Math.floor(ratios.length / 2 - DEVIATIONS * deviation));
}

/** The interval from the ratio of rank `rank` (from 1, ascending) to the ratio of the same rank from the end. */
function intervalOf(ratios: readonly number[], rank: number): Change {
  const first = Math.max(rank - 1, 0);
  return { ratio: quantile(ratios, 0.5), low: ratios[first]!, high: ratios[ratios.length - 1 - first]! };
}

export type Verdict = 'regression' | 'gain' | 'noise';

/**
 * @param change a ratio of times: above 1 is slower
 * @param smallest change that counts, beyond which the whole interval must be; 0.01: 1 %
 */
export function verdictOf({ low, high }: Change, smallest = 0): Verdict {
  if (low > 1 + smallest) return 'regression';
  return high < 1 - smallest ? 'gain' : 'noise';
}
