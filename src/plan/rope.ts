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
}

export type RopeScaling =
  | { readonly type: 'default' }
  | { readonly type: 'linear'; readonly factor: number }
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
    };

/** @param rotary values of a head that are rotated, even @param base rope_theta */
export function ropeTable(name: string, rotary: number, base: number, scaling: RopeScaling): RopeTable {
  const plain = Float32Array.from(
    { length: rotary / 2 },
    (_, i) => 1 / Math.fround(pow(base, Math.fround((2 * i) / rotary))),
  );
  switch (scaling.type) {
    case 'default':
      return { name, rotary, frequencies: plain, magnitude: 1 };
    case 'linear':
      return { name, rotary, frequencies: plain.map((f) => f / scaling.factor), magnitude: 1 };
    case 'llama3':
      return { name, rotary, frequencies: plain.map((f) => llama3(f, scaling)), magnitude: 1 };
    case 'yarn':
      return yarn(name, rotary, base, plain, scaling);
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

/** YaRN (Peng et al. 2023, arXiv:2309.00071): between the pairs that turn betaFast and betaSlow times in the original context. */
function yarn(
  name: string,
  rotary: number,
  base: number,
  plain: Float32Array,
  s: Extract<RopeScaling, { type: 'yarn' }>,
): RopeTable {
  const pairOf = (turns: number): number => (rotary * log(s.original / (turns * 2 * Math.PI))) / (2 * log(base));
  const [fast, slow] = [pairOf(s.betaFast), pairOf(s.betaSlow)];
  const low = Math.max(s.truncate ? Math.floor(fast) : fast, 0);
  const high = Math.min(s.truncate ? Math.ceil(slow) : slow, rotary - 1);
  const width = high === low ? 0.001 : high - low;
  const frequencies = plain.map((f, i) => {
    const stretched = Math.min(Math.max((i - low) / width, 0), 1);
    return (f / s.factor) * stretched + f * (1 - stretched);
  });
  const attention = (scale: number): number => (s.factor <= 1 ? 1 : 0.1 * scale * log(s.factor) + 1);
  const inferred = s.mscale && s.mscaleAllDim ? attention(s.mscale) / attention(s.mscaleAllDim) : attention(1);
  return { name, rotary, frequencies, magnitude: s.magnitude ?? inferred };
}

/** Fills `out` with the cos, then the sin, of every pair at `position`. [rotary] */
export function ropeRow({ rotary, frequencies, magnitude }: RopeTable, position: number, out: Float32Array): void {
  for (let i = 0; i < rotary / 2; i++) {
    const [cos, sin] = cosSin(Math.fround(position * frequencies[i]!));
    out[i] = Math.fround(cos) * magnitude;
    out[rotary / 2 + i] = Math.fround(sin) * magnitude;
  }
}
