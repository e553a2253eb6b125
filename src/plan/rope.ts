/**
 * Rotary position embedding (Su et al. 2021, arXiv:2104.09864): frequencies per pair of a head, and the cos and sin of a
 * position. Everything is rounded to f32 where transformers (modeling_rope_utils.py) has f32, and made of functions that
 * give the same bits everywhere.
 */
import { cosSin, log, pow } from '../numbers.ts';

export interface RopeTable {
  readonly name: string;
  /** Values of a head that are rotated, as pairs (i, i + rotary / 2). */
  readonly rotary: number;
  /** Radians per position of each pair, f32. [rotary / 2] */
  readonly frequencies: Float32Array;
  /** Factor on cos and sin (yarn's attention factor), else 1. */
  readonly magnitude: number;
  /** At position p all values are multiplied by 1 + beta * log(1 + floor(p / original)) (Ministral 3's queries). */
  readonly growth?: { readonly beta: number; readonly original: number };
  /** Other frequencies, for all positions of a sequence that is longer than `above` tokens (LongRoPE). */
  readonly long?: { readonly above: number; readonly frequencies: Float32Array };
}

export type RopeScaling =
  | { readonly type: 'default' }
  | { readonly type: 'linear'; readonly factor: number }
  /** Only the first `pairs` pairs are rotated. */
  | { readonly type: 'proportional'; readonly factor: number; readonly pairs: number }
  | {
      readonly type: 'llama3';
      readonly factor: number;
      readonly low: number;
      readonly high: number;
      readonly original: number;
    }
  | {
      readonly type: 'yarn';
      readonly factor: number;
      readonly original: number;
      readonly betaFast: number;
      readonly betaSlow: number;
      readonly magnitude?: number;
      readonly mscale?: number;
      readonly mscaleAllDim?: number;
      readonly truncate: boolean;
    }
  | {
      readonly type: 'longrope';
      readonly original: number;
      readonly factor: number;
      readonly magnitude?: number;
      /** Per pair, for sequences of at most `original` tokens, and for longer ones. */
      readonly short: readonly number[];
      readonly long: readonly number[];
    };

/** @param dims values of a head that are rotated; an odd number takes one more with it @param base rope_theta */
export function ropeTable(name: string, dims: number, base: number, scaling: RopeScaling): RopeTable {
  const powers = Float32Array.from({ length: Math.ceil(dims / 2) }, (_, i) => pow(base, Math.fround((2 * i) / dims)));
  const plain = powers.map((power) => 1 / power);
  const rotary = 2 * plain.length;
  switch (scaling.type) {
    case 'default':
      return { name, rotary, frequencies: plain, magnitude: 1 };
    case 'linear':
      return { name, rotary, frequencies: plain.map((f) => f / scaling.factor), magnitude: 1 };
    case 'proportional':
      return {
        name,
        rotary,
        frequencies: plain.map((f, i) => (i < scaling.pairs ? f / scaling.factor : 0)),
        magnitude: 1,
      };
    case 'llama3':
      return { name, rotary, frequencies: plain.map((f) => llama3(f, scaling)), magnitude: 1 };
    case 'yarn':
      return yarn(name, dims, base, plain, scaling);
    case 'longrope':
      return longRope(name, powers, scaling);
  }
}

/** Llama 3.1: wavelengths beyond original / low are stretched by factor, those below original / high kept, smooth between. */
function llama3(frequency: number, { factor, low, high, original }: Extract<RopeScaling, { type: 'llama3' }>): number {
  const wavelength = (2 * Math.PI) / frequency;
  if (wavelength < original / high) return frequency;
  if (wavelength > original / low) return frequency / factor;
  const smooth = (original / wavelength - low) / (high - low);
  return ((1 - smooth) * frequency) / factor + smooth * frequency;
}

/**
 * YaRN (Peng et al. 2023, arXiv:2309.00071): between the pairs that turn betaFast and betaSlow times in the original
 * context.
 */
function yarn(
  name: string,
  dims: number,
  base: number,
  plain: Float32Array,
  s: Extract<RopeScaling, { type: 'yarn' }>,
): RopeTable {
  const pairOf = (turns: number): number => (dims * log(s.original / (turns * 2 * Math.PI))) / (2 * log(base));
  const [fast, slow] = [pairOf(s.betaFast), pairOf(s.betaSlow)];
  const low = Math.max(s.truncate ? Math.floor(fast) : fast, 0);
  const high = Math.min(s.truncate ? Math.ceil(slow) : slow, dims - 1);
  const width = high === low ? 0.001 : high - low;
  const frequencies = plain.map((f, i) => {
    const stretched = Math.min(Math.max((i - low) / width, 0), 1);
    return (f / s.factor) * stretched + f * (1 - stretched);
  });
  const attention = (scale: number): number => (s.factor <= 1 ? 1 : 0.1 * scale * log(s.factor) + 1);
  const inferred = s.mscale && s.mscaleAllDim ? attention(s.mscale) / attention(s.mscaleAllDim) : attention(1);
  return { name, rotary: 2 * plain.length, frequencies, magnitude: s.magnitude ?? inferred };
}

/** LongRoPE (Ding et al. 2024, arXiv:2402.13753): each pair is stretched by a factor of its own, two sets of them. */
function longRope(name: string, powers: Float32Array, s: Extract<RopeScaling, { type: 'longrope' }>): RopeTable {
  const stretched = (factors: readonly number[]): Float32Array =>
    powers.map((power, i) => 1 / Math.fround(Math.fround(factors[i]!) * power));
  const inferred = s.factor <= 1 ? 1 : Math.sqrt(1 + log(s.factor) / log(s.original));
  const switches = s.long.some((factor, i) => factor !== s.short[i]);
  return {
    name,
    rotary: 2 * powers.length,
    frequencies: stretched(s.short),
    magnitude: s.magnitude ?? inferred,
    ...(switches && { long: { above: s.original, frequencies: stretched(s.long) } }),
  };
}

/** Identifies the frequencies that a sequence of `length` tokens uses; it changes where a table switches to its long ones. */
export const ropeSet = (tables: readonly RopeTable[], length: number): number =>
  tables.filter(({ long }) => long && length > long.above).length;

/**
 * Fills `out` with the cos, then the sin, of every pair at `position`. [rotary]
 * @param length tokens of the whole sequence
 */
export function ropeRow(table: RopeTable, position: number, length: number, out: Float32Array): void {
  const { rotary, long, growth } = table;
  const grown = growth ? 1 + growth.beta * log(1 + Math.floor(position / growth.original)) : 1;
  const magnitude = table.magnitude * grown;
  const frequencies = long && length > long.above ? long.frequencies : table.frequencies;
  for (let i = 0; i < rotary / 2; i++) {
    const [cos, sin] = cosSin(Math.fround(position * frequencies[i]!));
    out[i] = Math.fround(cos) * magnitude;
    out[rotary / 2 + i] = Math.fround(sin) * magnitude;
  }
}
