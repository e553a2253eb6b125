/** Plans cut into parts: nothing lost, nothing too large, and rows copied where another part wrote them. */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { splitPlan, splitWithCache } from '../../src/backend/wasm/lowering/parts.ts';
import { OutOfMemoryError } from '../../src/errors.ts';
import { PlanBuilder, type Weight } from '../../src/plan/builder.ts';
import { buffersOf, weightsOf } from '../../src/plan/memory.ts';
import type { Plan, PlannedWeight } from '../../src/plan/step.ts';

const DIM = 32;

/** Layers of one product, a cache and a product of their own; a tied head. Every matrix counts 100 bytes. */
function layeredPlan(layers: number, tied: boolean): Plan {
  const weights: PlannedWeight[] = [];
  const weight = (name: string, shares?: number): Weight => {
    const source = { tensor: name, transposed: false, first: 0, plus: 0 };
    const planned = { name, role: 'ffn', shape: [DIM, DIM], source, storage: 'f32', linear: true } as const;
    const id = weights.push({ ...planned, reason: '', bytes: 100, shares }) - 1;
    return { id, shape: [DIM, DIM] };
  };
  const p = new PlanBuilder();
  const table = weight('embedding');
  const x = p.scope('embedding', () => p.embedTokens(table));
  for (let n = 0; n < layers; n++) {
    p.scope(`layer[${n}]`, () => {
      const q = p.matmul(x, { weight: weight(`q ${n}`) });
      const cache = p.cache({ kvHeads: 1, headDim: DIM });
      p.addMatmul(x, p.attention(q, q, q, cache, 1, 1), { weight: weight(`o ${n}`) });
    });
  }
  const head = weight('head', tied ? 0 : undefined);
  const logits = p.scope('projection', () => p.matmul(p.wantedRows(x), { weight: head }));
  return p.finish(logits, weights);
}

const sizes = (capacity: number) => ({ capacity, weightBytes: () => 100, cacheBytes: () => 10 });

test('every step runs once, in order, where its weights and its cache are', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 6 }),
      fc.boolean(),
      fc.integer({ min: 110, max: 900 }),
      (layers, tied, capacity) => {
        const plan = layeredPlan(layers, tied);
        const { parts, segments } = splitPlan(plan, sizes(capacity));
        assert.equal(segments[0]!.from, 0);
        assert.equal(segments.at(-1)!.to, plan.steps.length);
        for (const [n, { from, to, part }] of segments.entries()) {
          assert.ok(from < to && from === (segments[n - 1]?.to ?? 0));
          for (const step of plan.steps.slice(from, to)) {
            assert.ok(parts[part]!.steps.includes(step));
            for (const id of weightsOf(step)) assert.ok(parts[part]!.weights.has(plan.weights[id]!.shares ?? id));
            if ('cache' in step) assert.ok(parts[part]!.caches.has(step.cache));
          }
        }
        const held = parts.flatMap(({ weights }) => [...weights]);
        assert.equal(new Set(held).size, held.length);
        assert.equal(held.length, plan.weights.filter(({ shares }) => shares === undefined).length);
        for (const { weights, caches } of parts) assert.ok(weights.size * 100 + caches.size * 10 <= capacity);
      },
    ),
  );
});

test('a part finds the latest rows of every buffer', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 6 }),
      fc.boolean(),
      fc.integer({ min: 110, max: 900 }),
      (layers, tied, capacity) => {
        const plan = layeredPlan(layers, tied);
        const { parts, segments } = splitPlan(plan, sizes(capacity));
        // Versions as the parts see them: what a segment touches must be as new as anywhere.
        const seen = parts.map(() => new Map<number, number>());
        const newest = new Map<number, number>();
        for (const { part, from, to, copies } of segments) {
          for (const { buffer, part: source } of copies) {
            assert.ok(parts[part]!.crossing.has(buffer) && parts[source]!.crossing.has(buffer));
            seen[part]!.set(buffer, seen[source]!.get(buffer)!);
          }
          for (const step of plan.steps.slice(from, to)) {
            for (const buffer of buffersOf(step)) assert.equal(seen[part]!.get(buffer), newest.get(buffer));
            if (!('out' in step)) continue;
            newest.set(step.out, (newest.get(step.out) ?? 0) + 1);
            seen[part]!.set(step.out, newest.get(step.out)!);
          }
        }
      },
    ),
  );
});

test('layers stay whole where they fit; one memory where all fits', () => {
  const plan = layeredPlan(4, true);
  assert.equal(splitPlan(plan, sizes(10_000)).segments.length, 1);
  const { parts, segments } = splitPlan(plan, sizes(430));
  // Embedding and a layer, two layers, a layer; the tied head goes back to the first.
  assert.deepEqual(
    parts.map(({ weights }) => weights.size),
    [3, 4, 2],
  );
  assert.deepEqual(
    segments.map(({ part }) => part),
    [0, 1, 2, 0],
  );
  assert.deepEqual(
    segments.map(({ copies }) => copies.length),
    [0, 1, 1, 1],
  );
});

test('a weight that no memory can hold is refused by name', () => {
  assert.throws(
    () => splitPlan(layeredPlan(1, false), sizes(90)),
    (error) => error instanceof OutOfMemoryError && error.message.startsWith('embedding needs'),
  );
});

test('a cut for a larger cache holds what was asked for, and more only where that needs no further memory', () => {
  const setting = fc.record({
    layers: fc.integer({ min: 1, max: 6 }),
    capacity: fc.integer({ min: 130, max: 2000 }),
    least: fc.integer({ min: 1, max: 30 }),
    more: fc.integer({ min: 0, max: 300 }),
  });
  fc.assert(
    fc.property(setting, ({ layers, capacity, least, more }) => {
      const plan = layeredPlan(layers, true);
      const most = least + more;
      const sizesOf = (pages: number) => ({ capacity, weightBytes: () => 100, cacheBytes: () => pages });
      const cut = () => splitWithCache(plan, { capacity, weightBytes: () => 100, pageBytes: () => 1 }, { least, most });
      if (100 + least > capacity) {
        assert.throws(cut, OutOfMemoryError);
        return;
      }
      const { parts, segments, pages } = cut();
      assert.ok(pages >= least && pages <= most);
      assert.deepEqual({ parts, segments }, splitPlan(plan, sizesOf(pages)));
      assert.equal(parts.length, splitPlan(plan, sizesOf(least)).parts.length);
      for (const { weights, caches } of parts) assert.ok(weights.size * 100 + caches.size * pages <= capacity);
      const larger = Math.ceil((pages + 1) * 1.07);
      if (larger <= most && 100 + larger <= capacity)
        assert.ok(splitPlan(plan, sizesOf(larger)).parts.length > parts.length, `${pages} pages, ${larger} fit too`);
    }),
  );
});
