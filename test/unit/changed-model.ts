/** Copies of models whose weights are changed. */
import { cp, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { byteSource } from '../../src/formats/bytes.ts';
import { readSafeTensorsHeader } from '../../src/formats/safetensors.ts';
import { dequantize, quantize } from '../../src/quant/codec.ts';

/**
 * Copies a model's folder, and changes the matrices that are chosen by name of a file `model.safetensors` in f16 or f32.
 * @param change value and its index -> new value
 */
export async function withMatrices(
  from: string,
  to: string,
  chosen: (name: string) => boolean,
  change: (value: number, index: number) => number,
): Promise<void> {
  await cp(from, to, { recursive: true });
  const file = join(to, 'model.safetensors');
  const bytes = new Uint8Array(await readFile(file));
  const fill = async (start: number, target: Uint8Array): Promise<void> =>
    target.set(bytes.subarray(start, start + target.length));
  const { tensors } = await readSafeTensorsHeader(byteSource(file, bytes.length, fill));
  for (const { name, dtype, shape, offset, byteLength } of tensors.values()) {
    if (shape.length !== 2 || !chosen(name)) continue;
    const storage = dtype.toLowerCase() as 'f16' | 'f32';
    const values = dequantize(storage, bytes.slice(offset, offset + byteLength)).map(change);
    bytes.set(quantize(storage, values), offset);
  }
  await writeFile(file, bytes);
}
