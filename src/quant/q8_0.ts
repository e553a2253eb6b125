/**
 * Q8_0 of GGUF. A block of 32 values is 34 bytes: an f16 scale, then 32 x int8; value = scale * q.
 *
 *   d = max |x| / 127        scale = d as f16        q = x * (1 / d), rounded half away from zero
 *
 * Every step is rounded to f32. q is computed from d before it is rounded to f16. If 1 / d is infinite or d is 0, q = 0.
 */
import { fromF16, toF16 } from './f16.ts';
import { storageLayout } from './storage.ts';

const { block: BLOCK, bytes: BYTES } = storageLayout.q8_0;

/** @param values whole blocks of 32 */
export function quantizeQ8_0(values: Float32Array): Uint8Array {
  const out = new DataView(new ArrayBuffer((values.length / BLOCK) * BYTES));
  for (let start = 0, at = 0; start < values.length; start += BLOCK, at += BYTES) {
    let largest = 0;
    for (let i = 0; i < BLOCK; i++) largest = Math.max(largest, Math.abs(values[start + i]!));
    const d = Math.fround(largest / 127);
    const inverse = d ? Math.fround(1 / d) : 0;
    out.setUint16(at, toF16(d), true);
    // An infinite inverse gives infinities and NaN, which setInt8 stores as 0.
    for (let i = 0; i < BLOCK; i++) out.setInt8(at + 2 + i, roundHalfAway(Math.fround(values[start + i]! * inverse)));
  }
  return new Uint8Array(out.buffer);
}

const roundHalfAway = (x: number): number => Math.sign(x) * Math.floor(Math.abs(x) + 0.5);

/** @param bytes whole blocks of 34 bytes */
export function dequantizeQ8_0(bytes: Uint8Array): Float32Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const out = new Float32Array((bytes.length / BYTES) * BLOCK);
  for (let start = 0, at = 0; start < out.length; start += BLOCK, at += BYTES) {
    const scale = fromF16(view.getUint16(at, true));
    for (let i = 0; i < BLOCK; i++) out[start + i] = scale * view.getInt8(at + 2 + i);
  }
  return out;
}
