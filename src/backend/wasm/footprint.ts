/** Memory that this backend needs for a plan. */
import type { Plan } from '../../plan/step.ts';
import { PAGE } from '../backend.ts';
import { stagingBytes } from './loading/load-run.ts';
import { type LowerPlanOptions, lowerPlan } from './lower-plan.ts';
import type { MemoryMap } from './lowering/memory-map.ts';
import { cachePageBytes, heldBytes } from './memory/sizes.ts';

/** Bytes of all weights as they lie in memory, padding included. */
export const weightBytes = ({ weights }: Pick<Plan, 'weights'>): number =>
  weights.reduce((sum, weight) => sum + (weight.shares === undefined ? heldBytes(weight) : 0), 0);

/** Bytes of the cached keys and values of one sequence of so many positions. */
export const cacheBytes = ({ caches }: Pick<Plan, 'caches'>, positions: number): number =>
  Math.ceil(positions / PAGE) * caches.reduce((sum, cache) => sum + cachePageBytes(cache), 0);

/** Bytes in the memories of a backend. */
export interface MemoryUse {
  /** Weights with their padding. */
  readonly weights: number;
  /** Rows, tapes, tables, and a scratch area for each thread. */
  readonly activations: number;
  /** Allocated pages of keys and values. */
  readonly cache: number;
}

/** Bytes that a plan at these addresses takes with so many cache pages. */
export function memoryUse(plan: Pick<Plan, 'weights'>, maps: readonly MemoryMap[], pages: number): MemoryUse {
  const sum = (bytes: (map: MemoryMap) => number): number => maps.reduce((total, map) => total + bytes(map), 0);
  const weights = weightBytes(plan);
  return {
    weights,
    activations: sum(({ cache }) => cache) - weights,
    cache: pages * sum(({ pageStride }) => pageStride),
  };
}

/** What a backend will take, from the addresses that it will use. */
export interface Footprint {
  /** Bytes with the pages of `positions`. */
  memory(positions: number): MemoryUse;
  /** Bytes of each 32-bit memory with these pages, staging areas of the load included: a memory never shrinks. */
  memories(positions: number): number[];
  /** Bytes of the staging areas, which lie where the cache comes later. */
  readonly staging: number;
  /** Positions of the largest cache that there may be. */
  readonly mostPositions: number;
}

/** Reads no tensor. @throws OutOfMemoryError as the load would */
export function footprint(options: LowerPlanOptions): Footprint {
  const { targets, loadSteps, capacity } = lowerPlan(options);
  const staging = stagingBytes(loadSteps, targets, options.threads);
  const maps = targets.map(({ map }) => map);
  // A backend has a page from the start.
  const pagesOf = (positions: number): number => Math.max(1, Math.ceil(positions / PAGE));
  return {
    memory: (positions) => memoryUse(options.plan, maps, pagesOf(positions)),
    memories: (positions) =>
      maps.map(({ cache, pageStride }, index) => cache + Math.max(staging[index]!, pagesOf(positions) * pageStride)),
    staging: staging.reduce((sum, bytes) => sum + bytes, 0),
    mostPositions: capacity * PAGE,
  };
}
