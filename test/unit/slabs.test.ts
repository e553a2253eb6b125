import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { planSlabs } from '../../src/backend/wasm/slabs.ts';
import type { PlannedWeight, WeightSource } from '../../src/plan/step.ts';

const weight = (shape: number[], source: Partial<WeightSource>): PlannedWeight => ({
  name: 'w',
  role: 'ffn',
  shape,
  source: { tensor: 't', transposed: false, first: 0, plus: 0, ...source },
  storage: 'f32',
  linear: true,
  reason: '',
  bytes: 0,
});

test('every value of every weight is in exactly one slab, within capacity and on group or block borders', () => {
  const shapes = fc.record({
    out: fc.integer({ min: 1, max: 100 }),
    inputs: fc.integer({ min: 1, max: 100 }),
    fused: fc.integer({ min: 1, max: 3 }),
    transposed: fc.boolean(),
  });
  fc.assert(
    fc.property(shapes, ({ out, inputs, fused, transposed }) => {
      const fileShape = transposed ? [inputs, out * fused] : [out * fused, inputs];
      const weights = Array.from({ length: fused }, (_, index) => ({
        index,
        weight: weight([out, inputs], { transposed, first: index * out }),
      }));
      const capacity = 4 * 32 * Math.max(...fileShape) * 2;
      const seen = new Map<string, number>();
      for (const slab of planSlabs(
        weights,
        () => fileShape,
        () => 4,
        capacity,
      )) {
        assert.ok(slab.end - slab.start <= capacity && slab.end <= 4 * fileShape[0]! * fileShape[1]!);
        for (const part of slab.parts) {
          assert.equal(part.firstRow % 16, 0);
          assert.equal(part.firstColumn % 32, 0);
          for (let r = 0; r < part.rows; r++) {
            for (let c = 0; c < part.columns; c++) {
              const [row, column] = [part.firstRow + r, part.firstColumn + c];
              const line = transposed ? c * part.lineBytes + r * 4 : r * part.lineBytes + c * 4;
              const at = slab.start + part.offset + line;
              const logical = part.weight * out + row;
              assert.equal(at, 4 * (transposed ? column * fileShape[1]! + logical : logical * inputs + column));
              assert.ok(at + 4 <= slab.end);
              const key = `${part.weight} ${row} ${column}`;
              seen.set(key, (seen.get(key) ?? 0) + 1);
            }
          }
        }
      }
      assert.equal(seen.size, fused * out * inputs);
      assert.ok([...seen.values()].every((n) => n === 1));
    }),
    { numRuns: 30 },
  );
});

test('weights that share another one are not read', () => {
  const table = { index: 0, weight: weight([16, 8], {}) };
  const tied = { index: 1, weight: { ...weight([16, 8], {}), shares: 0 } };
  assert.equal(
    planSlabs(
      [table, tied],
      () => [16, 8],
      () => 4,
      1 << 20,
    ).length,
    1,
  );
});
