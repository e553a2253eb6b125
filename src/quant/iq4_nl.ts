/**
 * IQ4_NL of GGUF. A block of 32 values is 18 bytes: an f16 scale d, then 16 bytes, byte j with the index of value j in its
 * low nibble and of value 16 + j in its high nibble; value = d * level[index]. The 16 levels, ggml's for normally distributed
 * weights, lie closer together near zero.
 *
 * Quantization searches for d, as ggml does without an importance matrix: a candidate maps the value of largest magnitude to a
 * number near the first level or the last one; the nearest levels give the best d in closed form (least squares, a value's
 * weight is its square); the candidate with the least error wins. The indices are those of the levels nearest to x / d, with d
 * as f16.
 */
import { type BlockLayout, decoder, encoder } from './blocks.ts';
import { fromF16, toF16 } from './f16.ts';

const BLOCK = 32;
const HALF = BLOCK / 2;

export const iq4_nlLayout: BlockLayout = { block: BLOCK, bytes: 18 };

export const iq4Levels = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113] as const;

/** Numbers that a candidate maps the largest magnitude to. ggml has 127 and -134 .. -120. */
const targets = [...Array.from({ length: 15 }, (_, n) => n - 134), ...Array.from({ length: 8 }, (_, n) => 106 + 3 * n)];

/** Points half-way between levels are multiples of 1/2: entry ZERO + h has the index of the level nearest to h / 2 and on. */
const ZERO = 512;
const nearest = Uint8Array.from({ length: 2 * ZERO }, (_, i) =>
  iq4Levels.findLastIndex((level, n) => n === 0 || i - ZERO >= level + iq4Levels[n - 1]!),
);
const nearestLevel = Float64Array.from(nearest, (index) => iq4Levels[index]!);

/** Index of the level nearest to a number, the higher one half-way. NaN gives that of zero. */
export const iq4Index = (x: number): number => {
  const h = Math.floor(2 * x) || 0;
  return nearest[ZERO + Math.max(-ZERO, Math.min(ZERO - 1, h))]!;
};

const weights = new Float64Array(BLOCK);
const weighted = new Float64Array(BLOCK);

/** The best scale for the block of values from `start` on. */
function fitLevels(values: Float32Array, start: number): number {
  let extreme = 0;
  for (let i = start; i < start + BLOCK; i++) if (Math.abs(values[i]!) > Math.abs(extreme)) extreme = values[i]!;
  if (extreme === 0) return 0;
  for (let i = 0; i < BLOCK; i++) {
    const x = values[start + i]!;
    weights[i] = x * x;
    weighted[i] = x * x * x;
  }
  let [best, most] = [0, 0];
  for (const target of targets) {
    const inverse = (2 * target) / extreme;
    let [sqx, sqq] = [0, 0];
    for (let i = 0; i < BLOCK; i++) {
      const q = nearestLevel[(inverse * values[start + i]! + ZERO) | 0]!;
      sqx += weighted[i]! * q;
      sqq += weights[i]! * q * q;
    }
    // The squared error is a constant minus sqx^2 / sqq.
    if (sqx * sqx > most * sqq) [best, most] = [sqx / sqq, (sqx * sqx) / sqq];
  }
  return best;
}

export const quantizeIQ4_NL = encoder(iq4_nlLayout, (values, start, view, at) => {
  const half = toF16(fitLevels(values, start));
  const d = fromF16(half);
  const inverse = d === 0 ? 0 : 1 / d;
  view.setUint16(at, half, true);
  for (let j = 0; j < HALF; j++) {
    const [low, high] = [values[start + j]! * inverse, values[start + HALF + j]! * inverse];
    view.setUint8(at + 2 + j, iq4Index(low) | (iq4Index(high) << 4));
  }
});

export const dequantizeIQ4_NL = decoder(iq4_nlLayout, (view, at, out, start) => {
  const d = fromF16(view.getUint16(at, true));
  for (let j = 0; j < HALF; j++) {
    const byte = view.getUint8(at + 2 + j);
    out[start + j] = d * iq4Levels[byte & 15]!;
    out[start + HALF + j] = d * iq4Levels[byte >> 4]!;
  }
});
