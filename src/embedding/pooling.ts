/** From hidden states of tokens to one vector per text. */
import { ModelError } from '../errors.ts';
import type { GgufMetadata } from '../formats/gguf-types.ts';

/**
 * One vector of all tokens' vectors, special tokens included. mean: their mean; cls: the first; last: the last; max: the
 * largest value in each place; weightedmean: the mean with weights 1, 2, 3 ...; mean_sqrt_len_tokens: the sum divided by
 * the square root of the number of tokens.
 */
export type Pooling = 'mean' | 'cls' | 'last' | 'max' | 'weightedmean' | 'mean_sqrt_len_tokens';
export const poolings: readonly Pooling[] = ['mean', 'cls', 'last', 'max', 'weightedmean', 'mean_sqrt_len_tokens'];

/** The pooling of a name, also of sentence-transformers' name for `last`. */
export const poolingNamed = (name: unknown): Pooling | undefined =>
  poolings.find((pooling) => pooling === (name === 'lasttoken' ? 'last' : name));

/** `pooling_type` of GGUF files. */
export const ggufPoolings: Readonly<Partial<Record<Pooling, number>>> = { mean: 1, cls: 2, last: 3 };

/** The pooling of a GGUF file; mean where the file names none. An error for one that is not supported. */
export function ggufPooling(metadata: GgufMetadata, name: string): Pooling | ModelError {
  const key = `${metadata.get('general.architecture')?.value}.pooling_type`;
  const found = metadata.get(key)?.value;
  if (found === undefined) return 'mean';
  const pooling = poolings.find((mode) => ggufPoolings[mode] === found);
  if (pooling !== undefined) return pooling;
  const what = `expected 1 (mean), 2 (cls) or 3 (last) as ${key}, found ${String(found).slice(0, 40)}`;
  return new ModelError('UnsupportedPooling', `${name}: ${what}; name a pooling to use the model without it`);
}

/**
 * One vector from rows [first, rows) of a text. A row may be a view of memory that changes with the next call. Sums are
 * f64, in the order of the tokens.
 */
export function pool(rows: number, row: (i: number) => Float32Array, pooling: Pooling, first = 0): Float32Array {
  if (pooling === 'cls' || pooling === 'last') return row(pooling === 'cls' ? first : rows - 1).slice();
  if (pooling === 'max') {
    const most = row(first).slice();
    for (let i = first + 1; i < rows; i++)
      for (const [d, value] of row(i).entries()) if (value > most[d]!) most[d] = value;
    return most;
  }
  const sums = new Float64Array(row(first).length);
  let weights = 0;
  for (let i = first; i < rows; i++) {
    const weight = pooling === 'weightedmean' ? i + 1 : 1;
    weights += weight;
    for (const [d, value] of row(i).entries()) sums[d]! += value * weight;
  }
  const divisor = pooling === 'mean_sqrt_len_tokens' ? Math.sqrt(weights) : weights;
  return Float32Array.from(sums, (sum) => sum / divisor);
}

/** The smallest length that a vector is divided by, as in torch.nn.functional.normalize. */
const SMALLEST_LENGTH = 1e-12;

/** Scales to length 1; zeros stay. */
export function normalize(vector: Float32Array): Float32Array {
  const length = Math.sqrt(vector.reduce((sum, value) => sum + value * value, 0));
  const divisor = Math.max(length, SMALLEST_LENGTH);
  return vector.map((value) => value / divisor);
}
