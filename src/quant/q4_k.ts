/**
 * Q4_K and Q5_K of GGUF: super-blocks of 256 values, 8 blocks of 32 with a scale s and a minimum m each (k-scales.ts).
 *
 *   Q4_K, 144 bytes    f16 d | f16 dmin | 12 bytes of scales | 128 bytes of q
 *   Q5_K, 176 bytes    f16 d | f16 dmin | 12 bytes of scales | 32 bytes of fifth bits | 128 bytes of q
 *
 *   value = d * s * q - dmin * m, rounded to f32 once: d * s * q and dmin * m are exact
 *
 * The 128 bytes have four bits of each q. Every 32 bytes hold two blocks: byte j has value j of the first in its low nibble
 * and value j of the second in its high nibble. Bit n of byte j of the fifth bits belongs to value j of block n.
 */
import { type BlockLayout, decoder, encoder } from './blocks.ts';
import { fromF16, toF16 } from './f16.ts';
import { clamp, fitLine } from './k-fit.ts';
import { readScale, SCALE_BYTES, writeScales } from './k-scales.ts';

const SUPER = 256;
const BLOCK = 32;
const BLOCKS = SUPER / BLOCK;
const SCALES_AT = 4;
const AFTER_SCALES = SCALES_AT + SCALE_BYTES;
const MOST_SCALE = 63;

interface Shape extends BlockLayout {
  readonly bits: 4 | 5;
}

export const q4_kLayout: Shape = { block: SUPER, bytes: 144, bits: 4 };
export const q5_kLayout: Shape = { block: SUPER, bytes: 176, bits: 5 };

function dequantizer(shape: Shape): (source: Uint8Array) => Float32Array {
  const quants = shape.bytes - SUPER / 2;
  return decoder(shape, (view, at, out, start) => {
    const d = fromF16(view.getUint16(at, true));
    const dmin = fromF16(view.getUint16(at + 2, true));
    for (let n = 0; n < BLOCKS; n++) {
      const { s, m } = readScale(view, at + SCALES_AT, n);
      const [scale, minimum] = [d * s, dmin * m];
      for (let j = 0; j < BLOCK; j++) {
        const low = (view.getUint8(at + quants + BLOCK * (n >> 1) + j) >> (4 * (n & 1))) & 15;
        const fifth = shape.bits === 5 ? (view.getUint8(at + AFTER_SCALES + j) >> n) & 1 : 0;
        out[start + BLOCK * n + j] = scale * (low | (fifth << 4)) - minimum;
      }
    }
  });
}

function quantizer(shape: Shape): (values: Float32Array) => Uint8Array {
  const most = 2 ** shape.bits - 1;
  return encoder(shape, (values, start, view, at) => {
    const lines = Array.from({ length: BLOCKS }, (_, n) => fitLine(values, start + BLOCK * n, BLOCK, most));
    const largest = (of: 'scale' | 'minimum'): number => lines.reduce((max, line) => Math.max(max, line[of]), 0);
    const [halfD, halfMin] = [toF16(largest('scale') / MOST_SCALE), toF16(largest('minimum') / MOST_SCALE)];
    const [d, dmin] = [fromF16(halfD), fromF16(halfMin)];
    const scales = lines.map(({ scale, minimum }) => ({ s: nearest(scale, d), m: nearest(minimum, dmin) }));
    view.setUint16(at, halfD, true);
    view.setUint16(at + 2, halfMin, true);
    writeScales(view, at + SCALES_AT, scales);
    for (const [n, { s, m }] of scales.entries()) {
      const [scale, minimum] = [d * s, dmin * m];
      for (let i = BLOCK * n; i < BLOCK * (n + 1); i++)
        codes[i] = scale === 0 ? 0 : clamp(Math.round((values[start + i]! + minimum) / scale), 0, most);
    }
    pack(shape, codes, view, at);
  });
}

/** Writes the 256 codes of a super-block to the bytes behind its scales, which are zeros. */
function pack(shape: Shape, codes: Uint8Array, view: DataView, at: number): void {
  const quants = shape.bytes - SUPER / 2;
  for (let i = 0; i < SUPER / 2; i++) {
    const low = 2 * BLOCK * (i >> 5) + (i & 31);
    view.setUint8(at + quants + i, (codes[low]! & 15) | ((codes[low + BLOCK]! & 15) << 4));
  }
  if (shape.bits === 4) return;
  for (let j = 0; j < BLOCK; j++) {
    let fifths = 0;
    for (let n = 0; n < BLOCKS; n++) fifths |= (codes[BLOCK * n + j]! >> 4) << n;
    view.setUint8(at + AFTER_SCALES + j, fifths);
  }
}

/** Codes of one super-block, reused between calls. */
const codes = new Uint8Array(SUPER);

const nearest = (value: number, unit: number): number =>
  unit === 0 ? 0 : clamp(Math.round(value / unit), 0, MOST_SCALE);

export const dequantizeQ4_K = dequantizer(q4_kLayout);
export const dequantizeQ5_K = dequantizer(q5_kLayout);
export const quantizeQ4_K = quantizer(q4_kLayout);
export const quantizeQ5_K = quantizer(q5_kLayout);

export const packQ4_K = (codes: Uint8Array, view: DataView, at: number): void => pack(q4_kLayout, codes, view, at);
export const packQ5_K = (codes: Uint8Array, view: DataView, at: number): void => pack(q5_kLayout, codes, view, at);
