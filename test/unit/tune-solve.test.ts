/** The solver of storage plans against all combinations, and the prediction of losses from planted sensitivities. */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { predictLosses, type Sample, sampledUnits } from '../../src/tune/predict.ts';
import { Frontier, type Option, sumOf } from '../../src/tune/solve.ts';
import type { Unit } from '../../src/tune/unit.ts';

function best(units: readonly (readonly Option[])[], limit: number): number {
  let least = Number.POSITIVE_INFINITY;
  const go = (u: number, cost: number, weight: number): void => {
    if (weight > limit) return;
    if (u === units.length) least = Math.min(least, cost);
    else for (const option of units[u]!) go(u + 1, cost + option.cost, weight + option.weight);
  };
  go(0, 0, 0);
  return least;
}

const option = fc.record({ cost: fc.integer({ min: 0, max: 50 }), weight: fc.integer({ min: 1, max: 40 }) });
const units = fc.array(fc.array(option, { minLength: 1, maxLength: 4 }), { minLength: 1, maxLength: 6 });

test('within a limit the least of all combinations is found, and the least weight that reaches a cost', () => {
  fc.assert(
    fc.property(units, fc.integer({ min: 0, max: 200 }), (units, limit) => {
      const frontier = new Frontier(units);
      const found = frontier.within(limit);
      const least = best(units, limit);
      assert.equal(frontier.exact, true);
      if (found === undefined) return assert.equal(least, Number.POSITIVE_INFINITY);
      assert.deepEqual(found, sumOf(units, found.picks));
      assert.ok(found.weight <= limit);
      assert.equal(found.cost, least);
      const smallest = frontier.reaching(least)!;
      assert.ok(smallest.weight <= found.weight && smallest.cost <= least);
      assert.ok(!(best(units, smallest.weight - 1) <= least));
    }),
    { numRuns: 200 },
  );
});

test('weights that are no integers keep the limit, and are close to the best', () => {
  fc.assert(
    fc.property(units, fc.integer({ min: 20, max: 150 }), (units, limit) => {
      const real = units.map((options) => options.map(({ cost, weight }) => ({ cost, weight: weight * 0.037 })));
      const frontier = new Frontier(real);
      if (real.some((options) => options.some(({ weight }) => weight !== options[0]!.weight)))
        assert.equal(frontier.exact, false);
      const found = frontier.within(limit * 0.037);
      if (found === undefined) return assert.equal(best(units, limit), Number.POSITIVE_INFINITY);
      assert.ok(found.weight <= limit * 0.037 * (1 + 1e-9));
      // Within one step of the grid per unit.
      const nearly = best(units, limit - 1);
      assert.ok(found.cost <= nearly, `${found.cost} > ${nearly}`);
    }),
    { numRuns: 100 },
  );
});

test('a curve falls, from the least weight to the largest', () => {
  const some = Array.from({ length: 12 }, (_, i) => [
    { cost: 9 + i, weight: 3 },
    { cost: 4, weight: 5 + i },
    { cost: 0, weight: 20 },
  ]);
  const curve = new Frontier(some).curve(10);
  assert.equal(curve[0]!.weight, 36);
  assert.equal(curve.at(-1)!.cost, 0);
  for (const [i, point] of curve.entries()) if (i > 0) assert.ok(point.cost < curve[i - 1]!.cost);
});

const unit = (kind: string, layer: number | undefined, size = 32): Unit => ({
  name: layer === undefined ? kind : `layers.${layer}.${kind}`,
  kind,
  layer,
  matrices: [
    { name: kind, role: kind.startsWith('ffn') ? 'ffn' : 'attention', shape: [size, 32], uses: 1, stored: 'f32' },
  ],
  weights: [kind],
  types: ['f32', 'q4_0'],
  stored: 'f32',
});

test('sensitivities are interpolated between layers of a kind, and taken from the role where a kind has no sample', () => {
  const units = [0, 1, 2, 3, 4].flatMap((layer) => [
    unit('ffn.up', layer),
    unit('ffn.down', layer),
    unit('attention.q', layer),
  ]);
  const sensitivity = (layer: number): number => 2 ** layer;
  const samples = [0, 4].map((layer): Sample => {
    const index = units.findIndex(({ kind, layer: own }) => kind === 'ffn.up' && own === layer);
    return { unit: index, type: 'q4_0', error: 0.01, loss: 0.01 * sensitivity(layer) };
  });
  const prediction = predictLosses(units, samples);
  for (const [index, { kind, layer }] of units.entries()) {
    // The mean of the logarithms is the sensitivity of the middle layer.
    const expected = kind === 'ffn.up' ? sensitivity(layer!) : sensitivity(2);
    assert.ok(Math.abs(prediction.loss(index, 0.03) / (0.03 * expected) - 1) < 1e-9, `${kind} ${layer}`);
  }
  assert.equal(prediction.loss(0, 0), 0);
  assert.equal(prediction.typicalFactor, undefined);
});

test('the factor between prediction and measurement is that of samples left out', () => {
  const units = [0, 1, 2, 3].map((layer) => unit('ffn.up', layer));
  const sampled = (losses: readonly number[]): Sample[] =>
    losses.map((loss, index) => ({ unit: index, type: 'q4_0', error: 1, loss }));
  // The first and the last are off by 2, the others exact.
  assert.ok(Math.abs(predictLosses(units, sampled([1, 2, 4, 8])).typicalFactor! - 2 ** Math.SQRT1_2) < 1e-9);
  assert.ok(predictLosses(units, sampled([1, 100, 1, 100])).typicalFactor! > 20);
});

test('samples are spread over kinds and layers, the largest kind first', () => {
  const units = [0, 1, 2, 3, 4, 5].flatMap((layer) => [unit('attention.q', layer), unit('ffn.up', layer, 128)]);
  const named = (count: number): string[] => sampledUnits(units, count).map((index) => units[index]!.name);
  assert.deepEqual(named(3), ['layers.2.ffn.up', 'layers.2.attention.q', 'layers.0.ffn.up']);
  assert.equal(new Set(named(100)).size, 12);
  assert.deepEqual(named(0), []);
});
