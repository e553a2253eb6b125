/** Reads rows of a weight, as the plan names them, from the tensors of a model. */
import type { TensorData } from '../backend/backend.ts';
import { type PlannedWeight, sourceRow } from '../plan/step.ts';
import { dequantize } from '../quant/codec.ts';

/** Values of consecutive rows of a matrix. [count, in] */
export interface WeightRows {
  readonly rows: number;
  readonly columns: number;
  read(first: number, count: number): Promise<Float32Array>;
}

/** A transposed matrix is read whole. */
export function weightRows({ shape, source }: PlannedWeight, tensor: TensorData): WeightRows {
  const [rows, columns] = shape as [number, number];
  let whole: Promise<Float32Array> | undefined;
  const bytesPerValue = tensor.dtype === 'f32' ? 4 : 2;
  const range = async (start: number, count: number): Promise<Float32Array> => {
    const bytes = new Uint8Array(count * bytesPerValue);
    await tensor.readInto(start * bytesPerValue, bytes);
    return dequantize(tensor.dtype, bytes);
  };
  const transposed = async (first: number, count: number): Promise<Float32Array> => {
    whole ??= range(0, tensor.byteLength / bytesPerValue);
    const values = await whole;
    const outputs = tensor.shape[1]!;
    const out = new Float32Array(count * columns);
    for (let r = 0; r < count; r++) {
      const row = sourceRow(source, first + r);
      for (let c = 0; c < columns; c++) out[r * columns + c] = values[c * outputs + row]!;
    }
    return out;
  };
  return {
    rows,
    columns,
    async read(first, count) {
      if (source.transposed) return transposed(first, count);
      if (!source.runs) return range(sourceRow(source, first) * columns, count * columns);
      const out = new Float32Array(count * columns);
      for (let r = 0; r < count; ) {
        const row = first + r;
        const run = Math.min(count - r, source.runs.rows - (row % source.runs.rows));
        out.set(await range(sourceRow(source, row) * columns, run * columns), r * columns);
        r += run;
      }
      return out;
    },
  };
}
