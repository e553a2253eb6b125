/** Compares logits of one place in a text by two models. */
import { exp, log } from '../numbers.ts';
import { notNumbers } from '../sampling/sampler.ts';

export interface RowDivergence {
  /** Kullback-Leibler divergence KL(A || B) of the next token's distributions, in nats. */
  readonly kl: number;
  /** The most likely token of each, and the logarithm of its probability. */
  readonly bestA: number;
  readonly bestB: number;
  readonly logBestA: number;
  readonly logBestB: number;
  /** Logarithm of the probability of the token that followed. */
  readonly logNextA: number;
  readonly logNextB: number;
}

/**
 * With u = logits of A, v = logits of B: KL = sum of p (u - v) + ln sum e^v - ln sum e^u, in f64, each sum relative to its largest
 * logit.
 * @param a @param b of equal length
 * @throws LanewiseError NumericError
 */
export function divergeRows(a: Float32Array, b: Float32Array, next: number): RowDivergence {
  const [bestA, bestB] = [largestOf(a), largestOf(b)];
  const [topA, topB] = [a[bestA]!, b[bestB]!];
  let [sumA, sumB, weighted] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    const u = a[i]! - topA;
    const v = b[i]! - topB;
    const weight = exp(u);
    sumA += weight;
    sumB += exp(v);
    // A token that A rules out counts nothing, even if B rules it out too.
    if (weight > 0) weighted += weight * (u - v);
  }
  const [lnA, lnB] = [log(sumA), log(sumB)];
  return {
    kl: Math.max(0, weighted / sumA + lnB - lnA),
    bestA,
    bestB,
    logBestA: -lnA,
    logBestB: -lnB,
    logNextA: a[next]! - topA - lnA,
    logNextB: b[next]! - topB - lnB,
  };
}

/** The largest logit, the lowest id on a tie. @throws LanewiseError NumericError */
function largestOf(logits: Float32Array): number {
  let best = 0;
  for (let i = 0; i < logits.length; i++) {
    const x = logits[i]!;
    if (!(x < Number.POSITIVE_INFINITY)) throw notNumbers(logits);
    if (x > logits[best]!) best = i;
  }
  return best;
}
