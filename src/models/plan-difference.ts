/** Compares what two plans compute, regardless of how weights are stored. */
import type { Plan } from '../plan/step.ts';

/** The first difference between two plans; undefined if they compute the same. */
export const planDifference = (a: Plan, b: Plan, contextLength: number): string | undefined =>
  firstDifference('plan', comparable(a, contextLength), comparable(b, contextLength));

/** The parts of a plan that determine its results. Windows of at least the context length are dropped. */
const comparable = ({ steps, caches, ropes, buffers, weights }: Plan, contextLength: number): unknown => ({
  steps,
  caches: caches.map((cache) => ({ ...cache, window: limited(cache.window, contextLength) })),
  ropes,
  buffers,
  weights: weights.map(({ name, shape }) => ({ name, shape })),
});

const limited = (window: number | undefined, contextLength: number): number | undefined =>
  window !== undefined && window < contextLength ? window : undefined;

/** Relative tolerance: numbers in GGUF metadata are f32. */
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
