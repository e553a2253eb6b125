import assert from 'node:assert/strict';
import test from 'node:test';
import { gatherProducts } from '../../src/plan/order.ts';
import type { Step } from '../../src/plan/step.ts';

const matmul = (x: number, out: number, options: { add?: boolean; scope?: string } = {}): Step => {
  const { add = false, scope = 'a' } = options;
  return { op: 'matmul', x, weight: out, add, out, scope };
};
const norm = (x: number, out: number): Step => {
  return { op: 'norm', kind: 'rms', x, eps: 1e-6, groups: 1, out, scope: 'a' };
};

const outputs = (steps: readonly Step[]): number[] =>
  gatherProducts(steps).map((step) => ('out' in step ? step.out : -1));

test('matmuls with the same input are moved together', () => {
  assert.deepEqual(outputs([matmul(0, 1), norm(1, 2), matmul(0, 3), norm(3, 4), matmul(0, 5)]), [1, 3, 5, 2, 4]);
});

test('a matmul stays in place if its input changes, in another scope, and if it adds to its output', () => {
  const changed = [matmul(0, 1), matmul(1, 0, { add: true }), matmul(0, 3)];
  const apart = [matmul(0, 1), norm(1, 2), matmul(0, 3, { scope: 'b' })];
  const adding = [matmul(0, 1), norm(1, 2), matmul(0, 3, { add: true })];
  const used = [matmul(0, 1), norm(3, 2), matmul(0, 3)];
  for (const steps of [changed, apart, adding, used]) assert.deepEqual(gatherProducts(steps), steps);
});
