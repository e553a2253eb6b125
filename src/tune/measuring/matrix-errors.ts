/** Errors of a matrix in another storage: of its values, and of its products with the rows of a text. */
import { dequantizeActivations, quantizeActivations } from '../../quant/activations.ts';
import { dequantize, quantize } from '../../quant/codec.ts';
import { isBlockStorage, type Storage } from '../../quant/storage.ts';
import type { MatrixRows } from './matrix-rows.ts';

/** Sums of squares. */
export interface ErrorSums {
  readonly signal: number;
  readonly noise: number;
}

export interface MatrixErrors {
  readonly weights: ErrorSums;
  /** Undefined without inputs. */
  readonly output: ErrorSums | undefined;
}

/** Makes the values of rows that a storage stands for. */
export type Requantize = (type: Storage, rows: MatrixRows) => Float32Array;

export const rounded: Requantize = (type, { values, stored }) =>
  type === stored ? values : dequantize(type, quantize(type, values));

/**
 * Errors by type.
 * @param inputs rows that the matrix is multiplied with [count, inputs]; kernels quantize them for block types, which counts
 */
export function matrixErrors(
  rows: MatrixRows,
  types: readonly Storage[],
  inputs: Float32Array | undefined,
  requantize: Requantize = rounded,
): MatrixErrors[] {
  const exact = inputs && products(rows.values, inputs, rows.inputs);
  const coarse = inputs && types.some(isBlockStorage) ? quantizedRows(inputs, rows.inputs) : undefined;
  return types.map((type) => {
    const values = requantize(type, rows);
    const weights = errorOf(rows.values, values);
    if (exact === undefined) return { weights, output: undefined };
    const seen = isBlockStorage(type) ? coarse! : inputs!;
    return { weights, output: errorOf(exact, products(values, seen, rows.inputs)) };
  });
}

function quantizedRows(rows: Float32Array, width: number): Float32Array {
  const out = new Float32Array(rows.length);
  for (let at = 0; at < rows.length; at += width)
    out.set(dequantizeActivations(quantizeActivations(rows.subarray(at, at + width))), at);
  return out;
}

/** Products of every row of the matrix with every input. */
function products(values: Float32Array, inputs: Float32Array, width: number): Float64Array {
  const [rows, count] = [values.length / width, inputs.length / width];
  const out = new Float64Array(rows * count);
  for (let r = 0; r < rows; r++) {
    const row = values.subarray(r * width, (r + 1) * width);
    let at = 0;
    // Four inputs at a time, so that a value of the row is read once for all of them.
    let t = 0;
    for (; t + 4 <= count; t += 4, at += 4 * width) {
      let [a, b, c, d] = [0, 0, 0, 0];
      for (let i = 0; i < width; i++) {
        const w = row[i]!;
        a += w * inputs[at + i]!;
        b += w * inputs[at + width + i]!;
        c += w * inputs[at + 2 * width + i]!;
        d += w * inputs[at + 3 * width + i]!;
      }
      out[r * count + t] = a;
      out[r * count + t + 1] = b;
      out[r * count + t + 2] = c;
      out[r * count + t + 3] = d;
    }
    for (; t < count; t++, at += width) {
      let sum = 0;
      for (let i = 0; i < width; i++) sum += row[i]! * inputs[at + i]!;
      out[r * count + t] = sum;
    }
  }
  return out;
}

function errorOf(expected: Float32Array | Float64Array, actual: Float32Array | Float64Array): ErrorSums {
  let [signal, noise] = [0, 0];
  for (let i = 0; i < expected.length; i++) {
    signal += expected[i]! ** 2;
    noise += (actual[i]! - expected[i]!) ** 2;
  }
  return { signal, noise: Number.isFinite(noise) ? noise : Number.POSITIVE_INFINITY };
}

/** Relative error over several matrices. Of zeros: 0, unless something else comes out. */
export function relative(sums: readonly ErrorSums[]): number {
  const signal = sums.reduce((total, sum) => total + sum.signal, 0);
  const noise = sums.reduce((total, sum) => total + sum.noise, 0);
  return noise === 0 ? 0 : noise / signal;
}
