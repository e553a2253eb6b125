import { iq4_nlLayout } from './iq4_nl.ts';
import { q4_kLayout, q5_kLayout } from './q4_k.ts';
import { q6_kLayout } from './q6_k.ts';

/** How a weight is stored in memory. Names as in GGUF. A block has 32 or 256 consecutive values along `in`. */
export type Storage = FloatStorage | BlockStorage;
/** Types of single values: also those of tensors in a file that kernels read. */
export type FloatStorage = 'f32' | 'f16' | 'bf16';
export type BlockStorage = 'q8_0' | 'q4_0' | 'iq4_nl' | 'q4_k' | 'q5_k' | 'q6_k';

/** Values per block and bytes per block. Float types have blocks of one value. */
export const storageLayout: Readonly<Record<Storage, { readonly block: number; readonly bytes: number }>> = {
  f32: { block: 1, bytes: 4 },
  f16: { block: 1, bytes: 2 },
  bf16: { block: 1, bytes: 2 },
  q8_0: { block: 32, bytes: 34 },
  q4_0: { block: 32, bytes: 18 },
  iq4_nl: iq4_nlLayout,
  q4_k: q4_kLayout,
  q5_k: q5_kLayout,
  q6_k: q6_kLayout,
};

export const kTypes: readonly Storage[] = ['q4_k', 'q5_k', 'q6_k'];

/** Types that no kernel quantizes to, because their scales are searched for (k-fit.ts, iq4_nl.ts). */
export const searchedTypes: readonly Storage[] = [...kTypes, 'iq4_nl'];

/** Whether matmuls with such weights quantize their activations, see activations.ts. */
export const isBlockStorage = (storage: Storage): storage is BlockStorage => storageLayout[storage].block > 1;

/** Bytes of `count` values along a row; `count` must be a multiple of the block. */
export function storageBytes(storage: Storage, count: number): number {
  const { block, bytes } = storageLayout[storage];
  return (count / block) * bytes;
}
