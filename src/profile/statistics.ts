/**
 * What repeated measurements say, and whether two of them differ. Both tests count ranks only, so that a few slow samples
 * of a shared machine do not decide, and nothing is drawn at random: the same samples give the same verdict.
 */

/** The middle of some samples, and the quartiles around it. */
export interface Spread {
  readonly median: number;
  readonly low: number;
  readonly high: number;
}

/** @param sorted not empty @param at 0: the smallest, 1: the largest; between two samples, in proportion */
function quantile(sorted: readonly number[], at: number): number {
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

/** `after` over `before`: 1.05 is 5 % more. The interval holds the true ratio with a confidence of about 95 %. */
export interface Change {
  readonly ratio: number;
  readonly low: number;
  readonly high: number;
}

const TAIL = 0.025;
/** How many deviations of a normal distribution leave `TAIL` on each side. */
const DEVIATIONS = 1.96;

/**
 * Samples that were taken in pairs, one right after the other: the median of their ratios, with the interval of the sign
 * test. Fewer than 6 pairs cannot give that confidence; the interval is then as wide as the ratios.
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
 * Samples that were taken at different times: the median of the ratios of every `after` to every `before` (Hodges and
 * Lehmann), with the interval of the rank test of Mann and Whitney.
 * @param before @param after not empty
 */
export function unpairedChange(before: readonly number[], after: readonly number[]): Change {
  const ratios = ascending(after.flatMap((value) => before.map((other) => value / other)));
  const deviation = Math.sqrt((ratios.length * (before.length + after.length + 1)) / 12);
  return intervalOf(ratios, Math.floor(ratios.length / 2 - DEVIATIONS * deviation));
}

/** From the ratio of that rank, counted from 1, to the one of the same rank from the end. */
function intervalOf(ratios: readonly number[], rank: number): Change {
  const first = Math.max(rank - 1, 0);
  return { ratio: quantile(ratios, 0.5), low: ratios[first]!, high: ratios[ratios.length - 1 - first]! };
}

export type Verdict = 'faster' | 'slower' | 'no change';

/** @param change of times: above 1 is slower */
export function verdictOf({ low, high }: Change): Verdict {
  if (low > 1) return 'slower';
  return high < 1 ? 'faster' : 'no change';
}
