/**
 * Q4_0 of GGUF. A block of 32 values is 18 bytes: an f16 scale, then 16 bytes, byte j with value j in its low nibble and
 * value 16 + j in its high nibble; value = scale * (nibble - 8).
 *
 *   m = the first x of largest magnitude, with its sign (0 if all are 0)
 *   d = m / -8        scale = d as f16        nibble = min(15, x * (1 / d) + 8.5 truncated)
 *
 * Every step is rounded to f32. The nibble is computed from d before it is rounded to f16. A block of zeros has the scale
 * -0 and nibbles of 8. If 1 / d is infinite, nibble = 0.
 */
import { fromF16, toF16 } from './f16.ts';
import { storageLayout } from './storage.ts';

const { block: BLOCK, bytes: BYTES } = storageLayout.q4_0;
const HALF = BLOCK / 2;

/** @param values whole blocks of 32 */
export function quantizeQ4_0(values: Float32Array): Uint8Array {
  const out = new DataView(new ArrayBuffer((values.length / BLOCK) * BYTES));
  for (let start = 0, at = 0; start < values.length; start += BLOCK, at += BYTES) {
    let largest = 0;
    for (let i = 0; i < BLOCK; i++) {
      const value = values[start + i]!;
      if (Math.abs(value) > Math.abs(largest)) largest = value;
    }
    const d = Math.fround(largest / -8);
    const inverse = d ? Math.fround(1 / d) : 0;
    out.setUint16(at, toF16(d), true);
    const nibble = (i: number): number => toNibble(Math.fround(values[start + i]! * inverse));
    for (let j = 0; j < HALF; j++) out.setUint8(at + 2 + j, nibble(j) | (nibble(HALF + j) << 4));
  }
  return new Uint8Array(out.buffer);
}

/** An infinite inverse gives infinities and NaN, which `& 0xff` turns into 0. */
const toNibble = (x: number): number => Math.min(15, Math.fround(x + 8.5) & 0xff);

/** @param bytes whole blocks of 18 bytes */
export function dequantizeQ4_0(bytes: Uint8Array): Float32Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const out = new Float32Array((bytes.length / BYTES) * BLOCK);
  for (let start = 0, at = 0; start < out.length; start += BLOCK, at += BYTES) {
    const scale = fromF16(view.getUint16(at, true));
    for (let j = 0; j < HALF; j++) {
      const byte = view.getUint8(at + 2 + j);
      out[start + j] = scale * ((byte & 15) - 8);
      out[start + HALF + j] = scale * ((byte >> 4) - 8);
    }
  }
  return out;
}
