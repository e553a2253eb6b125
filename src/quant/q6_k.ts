/**
 * Q6_K of GGUF: super-blocks of 256 values in 210 bytes, 16 blocks of 16 with an int8 scale s each.
 *
 *   128 bytes of lower bits | 64 bytes of upper bits | 16 x int8 s | f16 d          value = d * s * (q - 32), exactly
 *
 * Each half of the values (128) has 64 bytes of lower and 32 bytes of upper bits. For j = 0 .. 31, byte j of the 64 has
 * value j in its low nibble and 64 + j in its high nibble, byte 32 + j has values 32 + j and 96 + j, and byte j of the 32
 * has the upper two bits of values j, 32 + j, 64 + j and 96 + j, lowest bits first.
 */
import { type BlockLayout, decoder, encoder } from './blocks.ts';
import { fromF16, toF16 } from './f16.ts';
import { clamp, fitScale } from './k-fit.ts';

const SUPER = 256;
const BLOCK = 16;
const BLOCKS = SUPER / BLOCK;
const UPPER_AT = 128;
const SCALES_AT = 192;
const D_AT = 208;

export const q6_kLayout: BlockLayout = { block: SUPER, bytes: 210 };

/** Byte positions and shifts of the lower and upper bits of value i. */
function placeOf(i: number): { lower: number; lowerShift: number; upper: number; upperShift: number } {
  const [half, quarter, j] = [i >> 7, (i >> 5) & 3, i & 31];
  return {
    lower: 64 * half + 32 * (quarter & 1) + j,
    lowerShift: 4 * (quarter >> 1),
    upper: UPPER_AT + 32 * half + j,
    upperShift: 2 * quarter,
  };
}

export const dequantizeQ6_K = decoder(q6_kLayout, (view, at, out, start) => {
  const d = fromF16(view.getUint16(at + D_AT, true));
  for (let i = 0; i < SUPER; i++) {
    const { lower, lowerShift, upper, upperShift } = placeOf(i);
    const low = (view.getUint8(at + lower) >> lowerShift) & 15;
    const high = (view.getUint8(at + upper) >> upperShift) & 3;
    out[start + i] = d * view.getInt8(at + SCALES_AT + (i >> 4)) * ((low | (high << 4)) - 32);
  }
});

export const quantizeQ6_K = encoder(q6_kLayout, (values, start, view, at) => {
  const scales = Array.from({ length: BLOCKS }, (_, n) => fitScale(values, start + BLOCK * n, BLOCK, 32));
  const extreme = scales.reduce((most, scale) => (Math.abs(scale) > Math.abs(most) ? scale : most), 0);
  // d maps the scale of largest magnitude to -128.
  const half = toF16(extreme / -128);
  const d = fromF16(half);
  view.setUint16(at + D_AT, half, true);
  for (let n = 0; n < BLOCKS; n++) {
    const s = d === 0 ? 0 : clamp(Math.round(scales[n]! / d), -128, 127);
    view.setInt8(at + SCALES_AT + n, s);
    const scale = d * s;
    for (let i = n * BLOCK; i < (n + 1) * BLOCK; i++) {
      const q = scale === 0 ? 32 : clamp(Math.round(values[start + i]! / scale), -32, 31) + 32;
      const { lower, lowerShift, upper, upperShift } = placeOf(i);
      view.setUint8(at + lower, view.getUint8(at + lower) | ((q & 15) << lowerShift));
      view.setUint8(at + upper, view.getUint8(at + upper) | ((q >> 4) << upperShift));
    }
  }
});

export interface Q6Block {
  /** Bits of the f16 scale. */
  readonly d: number;
  /** 16 integers from -128 to 127. */
  readonly scales: readonly number[];
  /** 256 codes from 0 to 63. */
  readonly codes: Uint8Array;
}

/** Writes a super-block to bytes that are zeros. */
export function packQ6_K({ d, scales, codes }: Q6Block, view: DataView, at: number): void {
  view.setUint16(at + D_AT, d, true);
  for (const [n, scale] of scales.entries()) view.setInt8(at + SCALES_AT + n, scale);
  for (const [i, q] of codes.entries()) {
    const { lower, lowerShift, upper, upperShift } = placeOf(i);
    view.setUint8(at + lower, view.getUint8(at + lower) | ((q & 15) << lowerShift));
    view.setUint8(at + upper, view.getUint8(at + upper) | ((q >> 4) << upperShift));
  }
}
