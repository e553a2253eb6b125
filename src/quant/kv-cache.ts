/**
 * Storage types of the KV cache, and the precision that they keep:
 *
 *   f32    as they are
 *   f16    rounded to nearest, ties to even. Values beyond its range become 65504 with their sign; NaN becomes 65504
 *   q8_0   per 32 consecutive values of a head an f32 scale and 32 integers, as activations (activations.ts). A block with
 *          an infinity or NaN becomes NaN
 *
 * Attention computes in f32 with the values read back.
 */
import { dequantizeActivations, quantizeActivations } from './activations.ts';
import { fromF16, toF16 } from './f16.ts';

export const kvStorages = ['f32', 'f16', 'q8_0'] as const;
export type KvStorage = (typeof kvStorages)[number];

/** Largest finite f16. */
export const LARGEST_F16 = 65504;
/** Values of a head that share a scale in q8_0. Head dimensions must be multiples of it. */
export const KV_BLOCK = 32;

/** Bytes of `count` cached values of a head. */
export const kvBytes = (storage: KvStorage, count: number): number =>
  storage === 'q8_0' ? count + (count / KV_BLOCK) * 4 : count * (storage === 'f16' ? 2 : 4);

/** Keys or values of whole heads as they are read back from the cache. */
export function asCached(storage: KvStorage, values: Float32Array): Float32Array {
  if (storage === 'f32') return values;
  if (storage === 'f16') return values.map((x) => fromF16(toF16(withinF16(x))));
  return dequantizeActivations(quantizeActivations(values));
}

const withinF16 = (x: number): number => (x < LARGEST_F16 ? Math.max(x, -LARGEST_F16) : LARGEST_F16);
