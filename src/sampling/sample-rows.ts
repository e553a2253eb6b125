/** Samples a token for each of several rows of a forward. The backend's threads evaluate the draws. */
import type { Draw, Results } from '../backend/backend.ts';
import { LanewiseError } from '../errors.ts';
import { notNumbers, type Sample, type Sampler } from './sampler.ts';

export interface SampledRow {
  /** Index of the wanted row. */
  readonly row: number;
  /** Sampler of the row's sequence. A sampler may occur once per call: `accept` comes before its next row. */
  readonly sampler: Sampler;
}

/**
 * Samples of the rows, in order. An error of a row (NumericError, NoCandidate, CallbackFailed) is the result of that row.
 * Log-probabilities are those of the model, before anything changes the logits.
 */
export async function sampleRows(
  results: Pick<Results, 'output' | 'summary' | 'draw'>,
  rows: readonly SampledRow[],
): Promise<(Sample | LanewiseError)[]> {
  const prepared = rows.map(({ row, sampler }) =>
    attempt(() => {
      const summary = results.summary(row);
      if (Number.isNaN(summary.largest) || summary.largest === Number.POSITIVE_INFINITY)
        throw notNumbers(results.output(row));
      return { summary, next: sampler.prepare(results.output(row), summary) };
    }),
  );
  const draws = prepared.flatMap((found, i): Draw[] =>
    found instanceof LanewiseError || typeof found.next === 'number' ? [] : [{ ...found.next, row: rows[i]!.row }],
  );
  const ids = draws.length > 0 ? await results.draw(draws) : new Int32Array(0);
  let drawn = 0;
  return prepared.map((found, i) => {
    if (found instanceof LanewiseError) return found;
    const id = typeof found.next === 'number' ? found.next : ids[drawn++]!;
    const { row, sampler } = rows[i]!;
    return attempt(() => sampler.report(id, results.output(row), found.summary));
  });
}

function attempt<T>(what: () => T): T | LanewiseError {
  try {
    return what();
  } catch (error) {
    if (error instanceof LanewiseError) return error;
    throw error;
  }
}
