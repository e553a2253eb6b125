/**
 * Q4_1, Q5_0 and Q5_1 of GGUF: blocks of 32 values with an f16 scale d, in Q4_1 and Q5_1 an f16 minimum m.
 *
 *   Q4_1   d | m | 16 bytes            value = d * q + m        q = 0 .. 15
 *   Q5_0   d | 4 bytes | 16 bytes      value = d * (q - 16)     q = 0 .. 31
 *   Q5_1   d | m | 4 bytes | 16 bytes  value = d * q + m        q = 0 .. 31
 *
 * Byte j of the 16 has the lower four bits of q[j] in its low nibble and of q[16 + j] in its high nibble; bit j of the four
 * bytes is the fifth bit of q[j]. Quantization rounds every step to f32:
 *
 *   with m      m = min x      d = (max x - m) / most q      q = (x - m) * (1 / d) + 0.5, truncated
 *   Q5_0        as Q4_0 (q4_0.ts), with 16 instead of 8
 *
 * q is computed from d and m before they are rounded to f16. If 1 / d is infinite or d is 0, q = 0 (Q5_0: 16).
 */
import { type BlockLayout, decoder, encoder } from './blocks.ts';
import { fromF16, toF16 } from './f16.ts';

const BLOCK = 32;
const HALF = BLOCK / 2;

interface Shape extends BlockLayout {
  readonly minimum: boolean;
  readonly bits: 4 | 5;
}

export const q4_1Layout: Shape = { block: BLOCK, bytes: 20, minimum: true, bits: 4 };
export const q5_0Layout: Shape = { block: BLOCK, bytes: 22, minimum: false, bits: 5 };
export const q5_1Layout: Shape = { block: BLOCK, bytes: 24, minimum: true, bits: 5 };

function dequantizer(shape: Shape): (source: Uint8Array) => Float32Array {
  const { bytes, minimum, bits } = shape;
  const offset = minimum ? 0 : -16;
  return decoder(shape, (view, at, out, start) => {
    const d = fromF16(view.getUint16(at, true));
    const m = minimum ? fromF16(view.getUint16(at + 2, true)) : -0;
    const fifths = bits === 5 ? view.getUint32(at + bytes - HALF - 4, true) : 0;
    for (let i = 0; i < BLOCK; i++) {
      const byte = view.getUint8(at + bytes - HALF + (i % HALF));
      const q = (i < HALF ? byte & 15 : byte >> 4) | (((fifths >>> i) & 1) << 4);
      out[start + i] = d * (q + offset) + m;
    }
  });
}

function quantizer(shape: Shape): (values: Float32Array) => Uint8Array {
  const { bytes, minimum, bits } = shape;
  const most = 2 ** bits - 1;
  return encoder(shape, (values, start, view, at) => {
    const { d, m } = minimum ? span(values, start, most) : extreme(values, start);
    const inverse = d ? Math.fround(1 / d) : 0;
    const half = minimum ? 0.5 : 16.5;
    view.setUint16(at, toF16(d), true);
    if (minimum) view.setUint16(at + 2, toF16(m), true);
    let fifths = 0;
    for (let i = 0; i < BLOCK; i++) {
      // An infinite inverse gives infinities and NaN, which `& 0xff` turns into 0.
      const scaled = Math.fround(Math.fround(values[start + i]! - m) * inverse);
      const q = Math.min(most, Math.fround(scaled + half) & 0xff);
      const place = at + bytes - HALF + (i % HALF);
      view.setUint8(place, view.getUint8(place) | ((q & 15) << (i < HALF ? 0 : 4)));
      fifths |= (q >> 4) << i;
    }
    if (bits === 5) view.setUint32(at + bytes - HALF - 4, fifths, true);
  });
}

function span(values: Float32Array, start: number, most: number): { d: number; m: number } {
  let [least, largest] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  for (let i = 0; i < BLOCK; i++) {
    least = Math.min(least, values[start + i]!);
    largest = Math.max(largest, values[start + i]!);
  }
  return { d: Math.fround(Math.fround(largest - least) / most), m: least };
}

function extreme(values: Float32Array, start: number): { d: number; m: number } {
  let largest = 0;
  for (let i = 0; i < BLOCK; i++) {
    if (Math.abs(values[start + i]!) > Math.abs(largest)) largest = values[start + i]!;
  }
  return { d: Math.fround(largest / -16), m: 0 };
}

export const dequantizeQ4_1 = dequantizer(q4_1Layout);
export const dequantizeQ5_0 = dequantizer(q5_0Layout);
export const dequantizeQ5_1 = dequantizer(q5_1Layout);
export const quantizeQ4_1 = quantizer(q4_1Layout);
export const quantizeQ5_0 = quantizer(q5_0Layout);
export const quantizeQ5_1 = quantizer(q5_1Layout);
