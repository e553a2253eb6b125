/** Medians, quartiles, and the tests that tell noise from change. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { median, pairedChange, spreadOf, unpairedChange, verdictOf } from '../../src/measure/statistics.ts';

const near = (actual: number, expected: number): void =>
  assert.ok(Math.abs(actual - expected) < 1e-12, `${actual} is not ${expected}`);
const range = (count: number, make: (i: number) => number): number[] =>
  Array.from({ length: count }, (_, i) => make(i));
/** Deterministic pseudorandom numbers between 0 and 1. */
function uniforms(seed: number): () => number {
  let state = seed;
  return () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
}

test('medians and quartiles, between samples in proportion', () => {
  near(median([3]), 3);
  near(median([4, 1, 3, 2]), 2.5);
  assert.deepEqual(spreadOf([5, 1, 4, 2, 3]), { median: 3, low: 2, high: 4 });
  assert.deepEqual(spreadOf([1, 2]), { median: 1.5, low: 1.25, high: 1.75 });
});

test('samples keep their order', () => {
  const values = [3, 1, 2];
  spreadOf(values);
  assert.deepEqual(values, [3, 1, 2]);
});

// Ranks of the sign test at 95 %: tables of the binomial distribution.
for (const [count, rank] of [
  [1, 1],
  [5, 1],
  [6, 1],
  [8, 1],
  [9, 2],
  [12, 3],
  [20, 6],
  [40, 14],
] as const) {
  test(`the interval of ${count} pairs goes from ratio ${rank} to the one as far from the end`, () => {
    const { low, high } = pairedChange(
      range(count, () => 1),
      range(count, (i) => count - i),
    );
    assert.deepEqual([low, high], [rank, count + 1 - rank]);
  });
}

test('drift that both sides of a pair share is no change, and hides none', () => {
  const drift = range(12, (i) => 10 * (1 + i / 4));
  const wobble = range(12, (i) => 1 + (i % 2 ? 0.01 : -0.01));
  const same = pairedChange(
    drift,
    drift.map((ms, i) => ms * wobble[i]!),
  );
  assert.equal(verdictOf(same), 'noise');
  const slower = pairedChange(
    drift,
    drift.map((ms, i) => ms * wobble[i]! * 1.05),
  );
  assert.equal(verdictOf(slower), 'regression');
  near(slower.ratio, 1.05);
});

test('one outlier pair does not change the verdict', () => {
  const before = range(12, () => 10);
  assert.equal(verdictOf(pairedChange(before, [...before.slice(1), 1000])), 'noise');
});

test('unpaired samples: every ratio, and the ranks of Mann and Whitney', () => {
  const { ratio, low, high } = unpairedChange([1, 2], [2, 4, 8]);
  // 1 2 2 4 4 8: too few samples for the confidence, so that the interval is all of them.
  assert.deepEqual([ratio, low, high], [3, 1, 8]);
  const before = range(12, (i) => 100 + i);
  assert.equal(verdictOf(unpairedChange(before, before)), 'noise');
  const after = before.map((ms) => ms * 0.9);
  assert.equal(verdictOf(unpairedChange(before, after)), 'gain');
  assert.equal(verdictOf(unpairedChange(after, before)), 'regression');
});

test('equal distributions rarely differ significantly, distributions 10 % apart nearly always', () => {
  const random = uniforms(1);
  const sample = (scale: number): number[] => range(12, () => scale * (1 + 0.1 * (random() + random() - 1)));
  const changed = (scale: number, change: typeof pairedChange): number =>
    range(300, () => Number(verdictOf(change(sample(1), sample(scale))) !== 'noise')).reduce((a, b) => a + b) / 300;
  for (const change of [pairedChange, unpairedChange]) {
    assert.ok(changed(1, change) < 0.08, `${change.name}: ${changed(1, change)}`);
    assert.ok(changed(1.1, change) > 0.9, `${change.name}: ${changed(1.1, change)}`);
  }
});
