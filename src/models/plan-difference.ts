/** Whether two plans compute the same, whatever their weights are stored as. */
import type { Plan } from '../plan/step.ts';

/** The first place where `b` computes something else than `a`, undefined where there is none. */
export const planDifference = (a: Plan, b: Plan, contextLength: number): string | undefined =>
  firstDifference('plan', comparable(a, contextLength), comparable(b, contextLength));

/** All that a plan computes; how the weights are stored in a file is no part of it, nor windows that nothing leaves. */
const comparable = ({ steps, caches, ropes, buffers, weights }: Plan, contextLength: number): unknown => ({
  steps,
  caches: caches.map((cache) => ({ ...cache, window: limited(cache.window, contextLength) })),
  ropes,
  buffers,
  weights: weights.map(({ name, shape }) => ({ name, shape })),
});

const limited = (window: number | undefined, contextLength: number): number | undefined =>
  window !== undefined && window < contextLength ? window : undefined;

/** Metadata are f32. */
const CLOSE = 2e-6;

function firstDifference(path: string, a: unknown, b: unknown): string | undefined {
  if (typeof a === 'number' && typeof b === 'number') {
    return Math.abs(a - b) <= CLOSE * Math.max(Math.abs(a), Math.abs(b)) ? undefined : `${path} is ${b}, not ${a}`;
  }
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) {
    return a === b ? undefined : `${path} is ${String(b)}, not ${String(a)}`;
  }
  const [x, y] = [a as Record<string, unknown>, b as Record<string, unknown>];
  for (const key of new Set([...Object.keys(x), ...Object.keys(y)])) {
    const found = firstDifference(`${path}.${key}`, x[key], y[key]);
    if (found !== undefined) return found;
  }
  return undefined;
}
