/** Reads some rows of a matrix, spread evenly, whatever the type and order in which the file has them. */
import type { TensorData } from '../../backend/backend.ts';
import { type PlannedWeight, sourceRow } from '../../plan/step.ts';
import { dequantize } from '../../quant/codec.ts';
import type { Storage } from '../../quant/storage.ts';

export interface MatrixRows {
  /** [rows, inputs] */
  readonly values: Float32Array;
  readonly rows: number;
  readonly inputs: number;
  /** Storage in the file, if a weight can have it: these values are exact in it. */
  readonly stored: Storage | undefined;
}

/** @param count of rows at most */
export async function readRows(
  { shape, source }: Pick<PlannedWeight, 'shape' | 'source'>,
  tensor: TensorData,
  count: number,
): Promise<MatrixRows> {
  const [out, inputs] = shape as [number, number];
  const rows = Math.min(out, count);
  const places = Array.from({ length: rows }, (_, i) => sourceRow(source, Math.floor(((i + 0.5) * out) / rows)));
  const values = new Float32Array(rows * inputs);
  const valueBytes = tensor.dtype === 'f32' ? 4 : 2;
  if (source.transposed) {
    const bytes = new Uint8Array(tensor.byteLength);
    await tensor.readInto(0, bytes);
    const all = dequantize(tensor.dtype, bytes);
    const width = tensor.shape.at(-1)!;
    for (const [r, place] of places.entries())
      for (let c = 0; c < inputs; c++) values[r * inputs + c] = all[c * width + place]!;
  } else {
    for (const [r, place] of places.entries()) {
      const bytes = new Uint8Array(inputs * valueBytes);
      await tensor.readInto(place * bytes.length, bytes);
      values.set(dequantize(tensor.dtype, bytes), r * inputs);
    }
  }
  if (source.plus !== 0) for (let i = 0; i < values.length; i++) values[i] = values[i]! + source.plus;
  return {
    values,
    rows,
    inputs,
    stored: source.transposed || source.plus !== 0 ? undefined : (tensor.blocks?.storage ?? tensor.dtype),
  };
}
