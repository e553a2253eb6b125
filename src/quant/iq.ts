/**
 * IQ1, IQ2 and IQ3 of GGUF: super-blocks of 256 values. A codebook of lattice points gives 8 or 4 values at a time. d is
 * the f16 scale of the super-block, s the integer scale of 32, 16 or 8 values.
 *
 *   IQ1_S, 50 bytes     f16 d | 32 x 8 bits of indices | 8 x 16 bits: 4 x 3 more, s (3 bits), sign of the shift
 *                       value = d * (2 s + 1) * (point + or - 1/8)
 *   IQ1_M, 56 bytes     32 x 8 bits of indices | 16 bytes: per 8 values 3 more and the sign of the shift | 4 x 16 bits:
 *                       4 x 3 bits of s, a quarter of d
 *   IQ2_XXS, 66 bytes   f16 d | 8 x (4 x 8 bits of indices, 4 x 7 bits of signs, 4 bits of s)
 *                       value = d * (s + 1/2) / 4 * point, signs changed
 *   IQ2_XS, 74 bytes    f16 d | 32 x 16 bits: index (9), signs (7) | 16 x 4 bits of s
 *   IQ2_S, 82 bytes     f16 d | 32 x 8 bits of indices | 32 x 8 bits of signs | 8 bytes: 4 x 2 more | 16 x 4 bits of s
 *   IQ3_XXS, 98 bytes   f16 d | 64 x 8 bits of indices | 8 x (4 x 7 bits of signs, 4 bits of s)
 *                       value = d * (s + 1/2) / 2 * point, signs changed
 *   IQ3_S, 110 bytes    f16 d | 64 x 8 bits of indices | 8 bytes: 8 x 1 more | 32 x 8 bits of signs | 8 x 4 bits of s
 *                       value = d * (2 s + 1) * point, signs changed
 *
 * Where seven bits of signs are stored for eight values, the eighth makes the number of set bits even.
 */
import { type BlockLayout, decoder } from './blocks.ts';
import { fromF16 } from './f16.ts';
import { iq1Points, iq2_sPoints, iq2_xsPoints, iq2_xxsPoints, iq3_sPoints, iq3_xxsPoints } from './iq-codebooks.ts';

const SUPER = 256;

export const iq1_sLayout: BlockLayout = { block: SUPER, bytes: 50 };
export const iq1_mLayout: BlockLayout = { block: SUPER, bytes: 56 };
export const iq2_xxsLayout: BlockLayout = { block: SUPER, bytes: 66 };
export const iq2_xsLayout: BlockLayout = { block: SUPER, bytes: 74 };
export const iq2_sLayout: BlockLayout = { block: SUPER, bytes: 82 };
export const iq3_xxsLayout: BlockLayout = { block: SUPER, bytes: 98 };
export const iq3_sLayout: BlockLayout = { block: SUPER, bytes: 110 };

/** Eight bits of signs from the seven stored ones: the eighth makes the number of set bits even. */
function eightSigns(seven: number): number {
  let parity = seven;
  parity ^= parity >> 4;
  parity ^= parity >> 2;
  parity ^= parity >> 1;
  return seven | ((parity & 1) << 7);
}

/** Writes scale * point for `count` coordinates from `point` on, negated where a bit of `signs` is set. */
function put(
  out: Float32Array,
  to: number,
  scale: number,
  points: Int8Array,
  point: number,
  count: number,
  signs: number,
): void {
  for (let i = 0; i < count; i++) {
    const value = scale * points[point * count + i]!;
    out[to + i] = (signs >> i) & 1 ? -value : value;
  }
}

const nibble = (view: DataView, at: number, n: number): number => (view.getUint8(at + (n >> 1)) >> (4 * (n & 1))) & 15;

/** Groups of 8 values per super-block. */
const GROUPS = SUPER / 8;

export const dequantizeIQ2_XXS = decoder(iq2_xxsLayout, (view, at, out, start) => {
  const d = fromF16(view.getUint16(at, true));
  for (let g = 0; g < GROUPS; g++) {
    const part = at + 2 + 8 * (g >> 2);
    const word = view.getUint32(part + 4, true);
    const scale = d * ((word >>> 28) + 0.5) * 0.25;
    const signs = eightSigns((word >>> (7 * (g & 3))) & 127);
    put(out, start + 8 * g, scale, iq2_xxsPoints(), view.getUint8(part + (g & 3)), 8, signs);
  }
});

export const dequantizeIQ2_XS = decoder(iq2_xsLayout, (view, at, out, start) => {
  const d = fromF16(view.getUint16(at, true));
  for (let g = 0; g < GROUPS; g++) {
    const word = view.getUint16(at + 2 + 2 * g, true);
    const scale = d * (nibble(view, at + 66, g >> 1) + 0.5) * 0.25;
    put(out, start + 8 * g, scale, iq2_xsPoints(), word & 511, 8, eightSigns(word >> 9));
  }
});

export const dequantizeIQ2_S = decoder(iq2_sLayout, (view, at, out, start) => {
  const d = fromF16(view.getUint16(at, true));
  for (let g = 0; g < GROUPS; g++) {
    const upper = (view.getUint8(at + 66 + (g >> 2)) >> (2 * (g & 3))) & 3;
    const scale = d * (nibble(view, at + 74, g >> 1) + 0.5) * 0.25;
    const index = view.getUint8(at + 2 + g) | (upper << 8);
    put(out, start + 8 * g, scale, iq2_sPoints(), index, 8, view.getUint8(at + 34 + g));
  }
});

export const dequantizeIQ3_XXS = decoder(iq3_xxsLayout, (view, at, out, start) => {
  const d = fromF16(view.getUint16(at, true));
  for (let g = 0; g < GROUPS; g++) {
    const word = view.getUint32(at + 66 + 4 * (g >> 2), true);
    const scale = d * ((word >>> 28) + 0.5) * 0.5;
    const signs = eightSigns((word >>> (7 * (g & 3))) & 127);
    for (const half of [0, 1]) {
      const index = view.getUint8(at + 2 + 2 * g + half);
      put(out, start + 8 * g + 4 * half, scale, iq3_xxsPoints(), index, 4, signs >> (4 * half));
    }
  }
});

export const dequantizeIQ3_S = decoder(iq3_sLayout, (view, at, out, start) => {
  const d = fromF16(view.getUint16(at, true));
  for (let g = 0; g < GROUPS; g++) {
    const scale = d * (2 * nibble(view, at + 106, g >> 2) + 1);
    const signs = view.getUint8(at + 74 + g);
    for (const half of [0, 1]) {
      const n = 2 * g + half;
      const index = view.getUint8(at + 2 + n) | (((view.getUint8(at + 66 + (n >> 3)) >> (n & 7)) & 1) << 8);
      put(out, start + 8 * g + 4 * half, scale, iq3_sPoints(), index, 4, signs >> (4 * half));
    }
  }
});

/** Writes scale * (point + shift) for the eight coordinates of an IQ1 point. */
function putShifted(out: Float32Array, to: number, scale: number, point: number, shift: number): void {
  const points = iq1Points();
  for (let i = 0; i < 8; i++) out[to + i] = scale * (points[point * 8 + i]! + shift);
}

export const dequantizeIQ1_S = decoder(iq1_sLayout, (view, at, out, start) => {
  const d = fromF16(view.getUint16(at, true));
  for (let g = 0; g < GROUPS; g++) {
    const word = view.getUint16(at + 34 + 2 * (g >> 2), true);
    const index = view.getUint8(at + 2 + g) | (((word >> (3 * (g & 3))) & 7) << 8);
    putShifted(out, start + 8 * g, d * (2 * ((word >> 12) & 7) + 1), index, word & 0x8000 ? -0.125 : 0.125);
  }
});

export const dequantizeIQ1_M = decoder(iq1_mLayout, (view, at, out, start) => {
  const word = (n: number): number => view.getUint16(at + 48 + 2 * n, true);
  const d = fromF16((word(0) >> 12) | ((word(1) >> 8) & 0xf0) | ((word(2) >> 4) & 0xf00) | (word(3) & 0xf000));
  for (let g = 0; g < GROUPS; g++) {
    const upper = nibble(view, at + 32, g);
    const scale = d * (2 * ((word(g >> 3) >> (3 * ((g >> 1) & 3))) & 7) + 1);
    putShifted(out, start + 8 * g, scale, view.getUint8(at + g) | ((upper & 7) << 8), upper & 8 ? -0.125 : 0.125);
  }
});
