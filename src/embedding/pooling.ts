/** Pools the hidden states of a text's tokens into one vector. */
import { ModelError } from '../errors.ts';
import type { GgufMetadata } from '../formats/gguf-types.ts';

/**
 * How the hidden states of all tokens, special tokens included, become one vector. mean: their mean; cls: the first; last:
 * the last; max: the maximum of each dimension; weightedmean: the mean with weights 1, 2, 3 ...; mean_sqrt_len_tokens: the
 * sum divided by the square root of the number of tokens.
 */
export type Pooling = 'mean' | 'cls' | 'last' | 'max' | 'weightedmean' | 'mean_sqrt_len_tokens';
export const poolings: readonly Pooling[] = ['mean', 'cls', 'last', 'max', 'weightedmean', 'mean_sqrt_len_tokens'];

/** The pooling of that name; `lasttoken`, sentence-transformers' name for `last`, is accepted. */
export const poolingNamed = (name: unknown): Pooling | undefined =>
  poolings.find((pooling) => pooling === (name === 'lasttoken' ? 'last' : name));

/** Values of `pooling_type` in GGUF files. */
export const ggufPoolings: Readonly<Partial<Record<Pooling, number>>> = { mean: 1, cls: 2, last: 3 };

/** The pooling of a GGUF file, mean if it names none. Returns (does not throw) an error for unsupported pooling. */
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
 * Pools rows [first, rows) of a text. `row` may return a view that the next call overwrites. Sums are f64, in the order of
 * the tokens.
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

/** Lower bound of the divisor, as in torch.nn.functional.normalize. */
const SMALLEST_LENGTH = 1e-12;

/** Scales to length 1. A zero vector stays zero. */
export function normalize(vector: Float32Array): Float32Array {
  const length = Math.sqrt(vector.reduce((sum, value) => sum + value * value, 0));
  const divisor = Math.max(length, SMALLEST_LENGTH);
  return vector.map((value) => value / divisor);
}
