import assert from 'node:assert/strict';
import test from 'node:test';
import { shapeConfig, shapeNames, shapeTensors } from '../../bench/shapes.ts';
import { buildModel } from '../../src/models/index.ts';
import { parsePolicy } from '../../src/models/policy.ts';
import { buffersOf, layoutBuffers, rowBytes } from '../../src/plan/memory.ts';
import { tapped } from '../../src/plan/taps.ts';

for (const name of shapeNames) {
  for (const taps of [false, true]) {
    test(`no two live buffers of ${name} overlap, ${taps ? 'with' : 'without'} taps`, () => {
      const built = buildModel(shapeConfig(name), shapeTensors(name), { policy: parsePolicy('q8_0') });
      const plan = tapped(built.plan, taps ? 'inputs' : undefined);
      const [maxRows, maxWanted] = [5, 3];
      const { offsets, byteLength } = layoutBuffers(plan, maxRows, maxWanted);
      const lives = plan.buffers.map(({ width, rows }, id) => {
        const uses = plan.steps.flatMap((step, index) => (buffersOf(step).includes(id) ? [index] : []));
        const kept = id === plan.output || plan.steps.some((step) => step.op === 'tap' && step.out === id);
        const last = kept ? plan.steps.length : Math.max(...uses);
        const bytes = rowBytes(width) * (rows === 'wanted' ? maxWanted : maxRows);
        return { start: offsets[id]!, end: offsets[id]! + bytes, first: Math.min(...uses), last };
      });
      for (const [i, a] of lives.entries()) {
        assert.ok(a.start % 64 === 0 && a.end <= byteLength);
        for (const b of lives.slice(0, i)) {
          const bothLive = a.first <= b.last && b.first <= a.last;
          assert.ok(!bothLive || a.end <= b.start || b.end <= a.start, `buffers over bytes ${a.start} and ${b.start}`);
        }
      }
      const all = lives.reduce((sum, { start, end }) => sum + end - start, 0);
      assert.ok(taps || byteLength < all / 4, 'buffers share bytes');
    });
  }
}
