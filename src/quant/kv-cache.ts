/**
 * How cached keys and values are stored, and what is left of them:
 *
 *   f32    as they are
 *   f16    rounded to nearest, ties to even. What f16 does not reach becomes its largest number, 65504 with the sign of the
 *          value; NaN becomes 65504
 *   q8_0   per 32 neighbours of a head as activations are (activations.ts): an f32 scale and 32 integers. A block with an
 *          infinity or NaN in it becomes NaN
 *
 * Attention works on what is left, in f32.
 */
import { dequantizeActivations, quantizeActivations } from './activations.ts';
import { fromF16, toF16 } from './f16.ts';

export const kvStorages = ['f32', 'f16', 'q8_0'] as const;
export type KvStorage = (typeof kvStorages)[number];

/** The largest f16. */
export const LARGEST_F16 = 65504;
/** Neighbours of a head that share a scale in q8_0; head dimensions are multiples of it there. */
export const KV_BLOCK = 32;

/** Bytes of `count` cached values of a head. */
export const kvBytes = (storage: KvStorage, count: number): number =>
  storage === 'q8_0' ? count + (count / KV_BLOCK) * 4 : count * (storage === 'f16' ? 2 : 4);

/** What the cache gives back for the keys or values of whole heads. */
export function asCached(storage: KvStorage, values: Float32Array): Float32Array {
  if (storage === 'f32') return values;
  if (storage === 'f16') return values.map((x) => fromF16(toF16(withinF16(x))));
  return dequantizeActivations(quantizeActivations(values));
}

const withinF16 = (x: number): number => (x < LARGEST_F16 ? Math.max(x, -LARGEST_F16) : LARGEST_F16);
