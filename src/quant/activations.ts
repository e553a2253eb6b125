/**
 * Quantization of activations. Matmuls with block-quantized weights quantize their input too, per 32 consecutive values of
 * a row, so that the products are integer products. Every step is rounded to f32:
 *
 *   scale = max |x| / 127        q = x * (127 / max |x|), rounded half to even        value = scale * q
 *
 * Where max |x| is 0, or so small that 127 / max |x| is infinite, q = 0.
 */
import { storageLayout } from './storage.ts';

const { block: BLOCK } = storageLayout.q8_0;

export interface QuantizedActivations {
  /** One f32 per block. */
  readonly scales: Float32Array;
  /** One per value, -127 .. 127. */
  readonly q: Int8Array;
}

/** @param row whole blocks of 32 */
export function quantizeActivations(row: Float32Array): QuantizedActivations {
  const scales = new Float32Array(row.length / BLOCK);
  const q = new Int8Array(row.length);
  for (let block = 0; block < scales.length; block++) {
    const end = (block + 1) * BLOCK;
    let largest = 0;
    for (let i = end - BLOCK; i < end; i++) largest = Math.max(largest, Math.abs(row[i]!));
    scales[block] = largest / 127;
    const inverse = largest === 0 ? 0 : Math.fround(127 / largest);
    // An infinite inverse gives infinities and NaN, which an Int8Array stores as 0.
    for (let i = end - BLOCK; i < end; i++) q[i] = roundHalfEven(Math.fround(row[i]! * inverse));
  }
  return { scales, q };
}

/** The spacing of doubles near 1.5 * 2^52 is 1, so adding it rounds x to an integer. */
const roundHalfEven = (x: number): number => x + 1.5 * 2 ** 52 - 1.5 * 2 ** 52;

/** scale * q, each product rounded to f32. */
export function dequantizeActivations({ scales, q }: QuantizedActivations): Float32Array {
  return Float32Array.from(q, (value, i) => scales[Math.floor(i / BLOCK)]! * value);
}
