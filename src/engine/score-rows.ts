/** How likely given tokens are by the logits of a forward. */
import type { LogitsSummary, Results } from '../backend/backend.ts';
import { SUMMARY_CHUNK } from '../plan/step.ts';
import { notNumbers } from '../sampling/sampler.ts';
import type { RowScores } from './engine.ts';

/** @param next the token after each row @throws LanewiseError NumericError */
export function scoreRows(results: Pick<Results, 'output' | 'summary'>, next: readonly number[]): RowScores {
  const logProbs = new Float64Array(next.length);
  const best = new Int32Array(next.length);
  for (const [row, id] of next.entries()) {
    const [logits, summary] = [results.output(row), results.summary(row)];
    if (!(summary.largest < Number.POSITIVE_INFINITY)) throw notNumbers(logits);
    logProbs[row] = logits[id]! - summary.logSumExp;
    best[row] = largestOf(logits, summary);
  }
  return { logProbs, best };
}

/** The largest logit, the lowest id on a tie. */
function largestOf(logits: Float32Array, { chunk, largest }: LogitsSummary): number {
  const first = chunk * SUMMARY_CHUNK;
  return first + logits.subarray(first, first + SUMMARY_CHUNK).indexOf(largest);
}
