import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { planSlabs, slabBytes } from '../../src/backend/wasm/loading/slabs.ts';
import { type PlannedWeight, sourceRow, type WeightSource } from '../../src/plan/step.ts';

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
    heads: fc.integer({ min: 1, max: 3 }),
  });
  fc.assert(
    fc.property(shapes, ({ out: ofHead, inputs, fused, transposed, heads: most }) => {
      const heads = transposed ? 1 : most;
      const out = ofHead * heads;
      const fileShape = transposed ? [inputs, out * fused] : [out * fused, inputs];
      const weights = Array.from({ length: fused }, (_, index) => ({
        index,
        weight: weight([out, inputs], {
          transposed,
          first: index * ofHead,
          runs: heads > 1 ? { rows: ofHead, stride: ofHead * fused } : undefined,
        }),
      }));
      const capacity = 4 * 32 * Math.max(...fileShape) * 2;
      const seen = new Map<string, number>();
      const read = new Set<number>();
      for (const slab of planSlabs(
        weights,
        () => fileShape,
        () => 4,
        capacity,
      )) {
        assert.ok(slabBytes(slab) <= capacity);
        /** Where in the file each value of the slab is. */
        const places = slab.ranges.flatMap(({ start, end }) =>
          Array.from({ length: (end - start) / 4 }, (_, i) => start + 4 * i),
        );
        assert.ok(places.at(-1)! < 4 * fileShape[0]! * fileShape[1]!);
        for (const part of slab.parts) {
          assert.equal(part.firstRow % 16, 0);
          assert.equal(part.firstColumn % 32, 0);
          for (let r = 0; r < part.rows; r++) {
            for (let c = 0; c < part.columns; c++) {
              const [row, column] = [part.firstRow + r, part.firstColumn + c];
              const line = transposed ? c * part.lineBytes + r * 4 : r * part.lineBytes + c * 4;
              const at = places[(part.offset + line) / 4]!;
              const logical = sourceRow(weights[part.weight]!.weight.source, row);
              assert.equal(at, 4 * (transposed ? column * fileShape[1]! + logical : logical * inputs + column));
              read.add(at);
              const key = `${part.weight} ${row} ${column}`;
              seen.set(key, (seen.get(key) ?? 0) + 1);
            }
          }
        }
      }
      assert.equal(seen.size, fused * out * inputs);
      assert.equal(read.size, seen.size, 'the layers share the tensor without overlap');
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
