/**
 * Q2_K, Q3_K and Q8_K of GGUF: super-blocks of 256 values.
 *
 *   Q2_K, 84 bytes    16 bytes of scales | 64 bytes of q | f16 d | f16 dmin
 *                     per 16 values a byte, low nibble s and high nibble m;     value = d * s * q - dmin * m
 *   Q3_K, 110 bytes   32 bytes of third bits | 64 bytes of q | 12 bytes of scales | f16 d
 *                     per 16 values a scale s of 6 bits, minus 32;              value = d * s * (q - 4 if third bit is 0)
 *   Q8_K, 292 bytes   f32 d | 256 x int8 | 16 x int16 sums of 16                value = d * q
 *
 * Each half of the 64 bytes of q holds 128 values: byte j has values j, 32 + j, 64 + j and 96 + j, two bits each.
 */
import { type BlockLayout, decoder } from './blocks.ts';
import { fromF16 } from './f16.ts';

const SUPER = 256;

export const q2_kLayout: BlockLayout = { block: SUPER, bytes: 84 };
export const q3_kLayout: BlockLayout = { block: SUPER, bytes: 110 };
export const q8_kLayout: BlockLayout = { block: SUPER, bytes: 292 };

/** The two bits of value i of a super-block. */
const twoBits = (view: DataView, at: number, i: number): number =>
  (view.getUint8(at + 32 * (i >> 7) + (i & 31)) >> (2 * ((i >> 5) & 3))) & 3;

export const dequantizeQ2_K = decoder(q2_kLayout, (view, at, out, start) => {
  const d = fromF16(view.getUint16(at + 80, true));
  const dmin = fromF16(view.getUint16(at + 82, true));
  for (let i = 0; i < SUPER; i++) {
    const byte = view.getUint8(at + (i >> 4));
    out[start + i] = d * (byte & 15) * twoBits(view, at + 16, i) - dmin * (byte >> 4);
  }
});

export const dequantizeQ3_K = decoder(q3_kLayout, (view, at, out, start) => {
  const d = fromF16(view.getUint16(at + 108, true));
  for (let i = 0; i < SUPER; i++) {
    const n = i >> 4;
    const low = (view.getUint8(at + 96 + (n & 7)) >> (4 * (n >> 3))) & 15;
    const high = (view.getUint8(at + 104 + (n & 3)) >> (2 * (n >> 2))) & 3;
    const third = (view.getUint8(at + (i & 31)) >> (i >> 5)) & 1;
    out[start + i] = d * ((low | (high << 4)) - 32) * (twoBits(view, at + 32, i) - (third ? 0 : 4));
  }
});

export const dequantizeQ8_K = decoder(q8_kLayout, (view, at, out, start) => {
  const d = view.getFloat32(at, true);
  for (let i = 0; i < SUPER; i++) out[start + i] = d * view.getInt8(at + 4 + i);
});
