/** Crossings of storage types: planted ones are found, noise makes none, a winner everywhere needs no threshold. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { findCrossings, type PairAt } from '../../src/measure/crossing.ts';
import { uniforms } from './planted-times.ts';

const DIMS = [64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096];
const TURNS = 12;

/** Times with noise of `spread`, some turns slower for both sides. @param ratioAt time of the other side / of the base */
function pairs(ratioAt: (dim: number) => number, spread: number, seed: number, dims = DIMS): PairAt[] {
  const random = uniforms(seed);
  const noise = (): number => 1 + spread * (random() + random() + random() - 1.5);
  return dims.map((dim) => {
    const turns = Array.from({ length: TURNS }, () => {
      const drift = 1 + random();
      return [drift * dim * dim * noise(), drift * dim * dim * ratioAt(dim) * noise()] as const;
    });
    return { dim, base: turns.map(([base]) => base), other: turns.map(([, other]) => other) };
  });
}

test('a planted crossing is found, its interval holds it, and the rule is a minimum', () => {
  let held = 0;
  for (let seed = 1; seed <= 20; seed++) {
    const { crossings, rule } = findCrossings(
      pairs((dim) => (700 / dim) ** 0.4, 0.05, seed),
      { seed },
    );
    assert.equal(crossings.length, 1);
    const [{ dim, low, high, below, above, between }] = crossings as [(typeof crossings)[0]];
    assert.deepEqual([below, above], ['base', 'other']);
    assert.ok(dim > 600 && dim < 820, `${dim}`);
    assert.ok(between[0] <= 700 && between[1] >= 700, between.join(' to '));
    assert.deepEqual(rule, { kind: 'from', dim });
    if (low <= 700 && 700 <= high) held++;
  }
  assert.ok(held >= 17, `${held} of 20 intervals hold the crossing`);
});

test('a crossing the other way round has no minimum', () => {
  const { rule } = findCrossings(pairs((dim) => (dim / 300) ** 0.5, 0.02, 3));
  assert.equal(rule.kind, 'below');
  assert.ok(rule.kind === 'below' && rule.dim > 270 && rule.dim < 330);
});

test('noise between equal sides makes no crossing in at least 95 of 100 runs', () => {
  let invented = 0;
  for (let seed = 1; seed <= 100; seed++)
    if (
      findCrossings(
        pairs(() => 1, 0.1, seed),
        { seed, resamples: 200 },
      ).crossings.length > 0
    )
      invented++;
  assert.ok(invented <= 5, `${invented} of 100`);
});

test('a side that always wins needs no threshold', () => {
  for (const [ratio, winner] of [
    [0.6, 'other'],
    [1.5, 'base'],
  ] as const) {
    const { crossings, rule, ratios } = findCrossings(pairs(() => ratio, 0.1, 5));
    assert.deepEqual(crossings, []);
    assert.deepEqual(rule, { kind: 'always', winner });
    for (const at of ratios) assert.ok(at.low <= at.ratio && at.ratio <= at.high);
  }
});

test('equal sides are called equal, and more than one change of the winner is said', () => {
  assert.deepEqual(findCrossings(pairs(() => 1, 0, 1)).rule, { kind: 'equal' });
  const waves = findCrossings(pairs((dim) => (dim < 128 || (dim >= 512 && dim < 1024) ? 1.5 : 0.6), 0.02, 1));
  assert.deepEqual(waves.rule, { kind: 'several' });
  assert.equal(waves.crossings.length, 3);
});

test('differences below the margin have no winner, however sure they are', () => {
  const { ratios } = findCrossings(pairs(() => 1.01, 0, 1));
  assert.ok(ratios.every(({ winner }) => winner === 'neither'));
});

test('dimensions may come in any order, and a few turns have ratios but no winners', () => {
  const shuffled = findCrossings(pairs((dim) => 700 / dim, 0.02, 9).toReversed());
  assert.deepEqual(
    shuffled.ratios.map(({ dim }) => dim),
    DIMS,
  );
  const once = findCrossings([{ dim: 64, base: [2], other: [1] }]);
  assert.ok(Math.abs(once.ratios[0]!.ratio - 0.5) < 1e-12);
  assert.deepEqual(once.rule, { kind: 'equal' });
});
