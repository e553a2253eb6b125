/** The order of a plan's steps. */
import { buffersOf } from './memory.ts';
import type { Step } from './step.ts';

/**
 * Within a scope, moves matmuls with the same input together, saving the barriers between them: a norm or rotation of the
 * first one's result would need one.
 */
export function gatherProducts(steps: readonly Step[]): Step[] {
  const ordered: Step[] = [];
  for (const step of steps) ordered.splice(placeOf(step, ordered), 0, step);
  return ordered;
}

function placeOf(step: Step, before: readonly Step[]): number {
  const last = before.length;
  if (step.op !== 'matmul' || step.add) return last;
  const product = before.findLastIndex((other) => other.op === 'matmul' && other.x === step.x);
  const between = before.slice(product + 1);
  const free = (other: Step): boolean =>
    other.scope === step.scope && !('out' in other && other.out === step.x) && !buffersOf(other).includes(step.out);
  return product >= 0 && before[product]!.scope === step.scope && between.every(free) ? product + 1 : last;
}
