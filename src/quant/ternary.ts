/**
 * TQ1_0 and TQ2_0 of GGUF: super-blocks of 256 values -d, 0 or d.
 *
 *   TQ1_0, 54 bytes   48 + 4 bytes | f16 d: each of the 48 bytes holds five values, each of the 4 holds four, as the digits
 *                     of byte / 256 in base 3: q[n] = floor(byte * 3^(n + 1) / 256) mod 3;  value = d * (q - 1)
 *   TQ2_0, 66 bytes   64 bytes | f16 d: two bits for each value, as in Q2_K
 */
import { type BlockLayout, decoder } from './blocks.ts';
import { fromF16 } from './f16.ts';

export const tq1_0Layout: BlockLayout = { block: 256, bytes: 54 };
export const tq2_0Layout: BlockLayout = { block: 256, bytes: 66 };

/** Runs of bytes, and the number of values per byte. */
const runs = [
  { first: 0, bytes: 32, values: 5 },
  { first: 32, bytes: 16, values: 5 },
  { first: 48, bytes: 4, values: 4 },
] as const;

export const dequantizeTQ1_0 = decoder(tq1_0Layout, (view, at, out, start) => {
  const d = fromF16(view.getUint16(at + 52, true));
  let to = start;
  for (const { first, bytes, values } of runs) {
    for (let n = 0; n < values; n++) {
      for (let i = 0; i < bytes; i++) {
        const fraction = (view.getUint8(at + first + i) * 3 ** n) & 0xff;
        out[to++] = d * (((fraction * 3) >> 8) - 1);
      }
    }
  }
});

export const dequantizeTQ2_0 = decoder(tq2_0Layout, (view, at, out, start) => {
  const d = fromF16(view.getUint16(at + 64, true));
  for (let i = 0; i < 256; i++) {
    const byte = view.getUint8(at + 32 * (i >> 7) + (i & 31));
    out[start + i] = d * (((byte >> (2 * ((i >> 5) & 3))) & 3) - 1);
  }
});
