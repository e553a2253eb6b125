/** Memory that this backend needs for a plan. */
import type { Plan } from '../../plan/step.ts';
import { PAGE } from '../backend.ts';
import { cachePageBytes, heldBytes } from './memory/sizes.ts';

/** Bytes of all weights as they lie in memory, padding included. */
export const weightBytes = ({ weights }: Pick<Plan, 'weights'>): number =>
  weights.reduce((sum, weight) => sum + (weight.shares === undefined ? heldBytes(weight) : 0), 0);

/** Bytes of the cached keys and values of one sequence of so many positions. */
export const cacheBytes = ({ caches }: Pick<Plan, 'caches'>, positions: number): number =>
  Math.ceil(positions / PAGE) * caches.reduce((sum, cache) => sum + cachePageBytes(cache), 0);
