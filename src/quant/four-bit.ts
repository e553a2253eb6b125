/**
 * GGUF types besides IQ4_NL whose nibbles are indices into a table of 16 levels; IQ4_XS has its table.
 *
 *   IQ4_XS, 136 bytes per 256    f16 d | 16 bits: 8 x 2 upper bits of scales | 4 bytes: 8 x 4 lower bits | 8 x 16 bytes
 *                                per 32 values the scale d * (s - 32)
 *   MXFP4, 17 bytes per 32       exponent e of the scale 2^(e - 128) | 16 bytes           OCP Microscaling Formats 1.0
 *   NVFP4, 36 bytes per 64       per 16 values a scale as FP8 E4M3 without sign | 4 x 8 bytes
 *
 * In a run of n = 16 or 8 bytes, byte j has the index of value j in its low nibble and of value n + j in its high nibble.
 * The levels of the FP4 types are E2M1 numbers times 2, so their scales are halved.
 */
import { type BlockLayout, decoder } from './blocks.ts';
import { fromF16 } from './f16.ts';
import { iq4Levels } from './iq4_nl.ts';

export const iq4_xsLayout: BlockLayout = { block: 256, bytes: 136 };
export const mxfp4Layout: BlockLayout = { block: 32, bytes: 17 };
export const nvfp4Layout: BlockLayout = { block: 64, bytes: 36 };

const e2m1 = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12] as const;

/** scale * levels[nibble] for the 2 * `count` nibbles of the `count` bytes at `at`. */
function look(
  levels: readonly number[],
  scale: number,
  view: DataView,
  at: number,
  count: number,
  out: Float32Array,
  start: number,
): void {
  for (let j = 0; j < count; j++) {
    const byte = view.getUint8(at + j);
    out[start + j] = scale * levels[byte & 15]!;
    out[start + count + j] = scale * levels[byte >> 4]!;
  }
}

export const dequantizeIQ4_XS = decoder(iq4_xsLayout, (view, at, out, start) => {
  const d = fromF16(view.getUint16(at, true));
  const upper = view.getUint16(at + 2, true);
  for (let n = 0; n < 8; n++) {
    const lower = (view.getUint8(at + 4 + (n >> 1)) >> (4 * (n & 1))) & 15;
    const scale = d * ((lower | (((upper >> (2 * n)) & 3) << 4)) - 32);
    look(iq4Levels, scale, view, at + 8 + 16 * n, 16, out, start + 32 * n);
  }
});

export const dequantizeMXFP4 = decoder(mxfp4Layout, (view, at, out, start) =>
  look(e2m1, 2 ** (view.getUint8(at) - 128), view, at + 1, 16, out, start),
);

export const dequantizeNVFP4 = decoder(nvfp4Layout, (view, at, out, start) => {
  for (let n = 0; n < 4; n++)
    look(e2m1, fromE4M3(view.getUint8(at + n)) / 2, view, at + 4 + 8 * n, 8, out, start + 16 * n);
});

/** The value of an unsigned FP8 E4M3 number; NaN becomes 0. */
function fromE4M3(byte: number): number {
  const [exponent, mantissa] = [(byte >> 3) & 15, byte & 7];
  if (byte === 0x7f) return 0;
  return exponent === 0 ? mantissa * 2 ** -9 : (8 + mantissa) * 2 ** (exponent - 10);
}
