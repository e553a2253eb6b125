/** Combines the summaries of a row's chunks into the summary of the row. */
import { exp, log } from '../numbers.ts';
import type { LogitsSummary } from './backend.ts';

/** @param chunks for each chunk its largest value and the sum of e^(value - largest), as the step 'summarize' leaves them */
export function combineSummary(chunks: Float32Array): LogitsSummary {
  let [largest, chunk] = [Number.NEGATIVE_INFINITY, 0];
  for (let c = 0; c < chunks.length / 2; c++) {
    if (chunks[2 * c]! > largest) [largest, chunk] = [chunks[2 * c]!, c];
  }
  let sum = 0;
  for (let c = 0; c < chunks.length / 2; c++) {
    // A chunk of -Infinity only adds nothing; its own sum is NaN.
    if (chunks[2 * c] !== Number.NEGATIVE_INFINITY) sum += chunks[2 * c + 1]! * exp(chunks[2 * c]! - largest);
  }
  return {
    largest: Number.isNaN(sum) ? Number.NaN : largest,
    chunk,
    logSumExp: largest + log(sum),
    chunks: chunks.slice(),
  };
}
