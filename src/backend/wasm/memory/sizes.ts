/** Bytes that weights and cache pages take in a memory of this backend. */
import { pageBytes } from '../../../kernels/kv.ts';
import { matrixBytes, padded } from '../../../kernels/layout.ts';
import type { KvCacheSpec, PlannedWeight } from '../../../plan/step.ts';
import { align } from './memory.ts';

/** Bytes of one page of a cache. */
export const cachePageBytes = (spec: KvCacheSpec): number => align(pageBytes(spec));

/** Bytes of a weight as it lies in memory, padding included. */
export function heldBytes({ shape, storage }: PlannedWeight): number {
  const [rows, columns] = shape as [number, number | undefined];
  return columns === undefined ? padded(rows) * 4 : matrixBytes(storage, rows, columns);
}
