import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { type Access, placeBarriers, type TapeStep } from '../../src/backend/wasm/lowering/barriers.ts';

const access = (buffer: string, start: number, pattern: Access['pattern']): Access => ({
  buffer,
  start,
  end: start + 10,
  pattern,
});
const step = (reads: Access[], writes: Access[], replicable = false, fence = false): TapeStep => ({
  reads,
  writes,
  replicable,
  fence,
});

test('row-wise steps on one buffer need no barrier, a product after them does', () => {
  const barriers = placeBarriers([
    step([access('x', 0, 'rows')], [access('normed', 10, 'rows')], true),
    step([access('normed', 10, 'rows')], [access('quantized', 20, 'rows')], true),
    step([access('quantized', 20, 'any')], [access('q', 30, 'any')]),
    step([access('quantized', 20, 'any')], [access('k', 40, 'any')]),
  ]);
  assert.deepEqual(
    barriers.map((b) => b.divided),
    [false, true, false, true],
  );
  // Every thread quantized all rows itself; only the end of the walk waits.
  assert.deepEqual(
    barriers.map((b) => b.replicated),
    [false, false, false, false],
  );
});

test('steps by columns between two matmuls need only the barrier before the second matmul', () => {
  const barriers = placeBarriers([
    step([access('x', 0, 'any')], [access('up', 10, 'columns')]),
    step([access('up', 10, 'columns')], [access('activated', 20, 'columns')]),
    step([access('activated', 20, 'columns')], [access('quantized', 30, 'columns')]),
    step([access('quantized', 30, 'any')], [access('down', 40, 'columns')]),
    step([access('down', 40, 'rows')], [access('normed', 50, 'rows')], true),
  ]);
  assert.deepEqual(
    barriers.map((b) => b.divided),
    [false, false, true, true, true],
  );
});

test('a step that reads columns of a matmul with claimed groups waits for the whole matmul', () => {
  const barriers = placeBarriers([
    { ...step([access('x', 0, 'any')], [access('up', 10, 'columns')]), claims: true },
    step([access('up', 10, 'columns')], [access('activated', 20, 'columns')]),
    step([access('activated', 20, 'columns')], [access('quantized', 30, 'columns')]),
  ]);
  assert.deepEqual(
    barriers.map((b) => [b.divided, b.many]),
    [
      [false, true],
      [false, false],
      [true, true],
    ],
  );
});

test('a replicated step waits before it overwrites what another thread may still read', () => {
  const barriers = placeBarriers([
    step([access('a', 0, 'any')], [access('b', 10, 'any')]),
    step([access('c', 20, 'rows')], [access('d', 0, 'rows')], true),
  ]);
  assert.deepEqual(barriers[0], { divided: true, many: true, replicated: false });
});

test('a fence always waits', () => {
  const barriers = placeBarriers([
    step([], [access('a', 0, 'rows')], true),
    step([], [access('b', 10, 'rows')], true, true),
  ]);
  assert.deepEqual(barriers[0], { divided: true, many: true, replicated: true });
});

test('steps that may be skipped have barriers before and after their run', () => {
  const free = (run?: number): TapeStep => ({ ...step([], [access(`${run}`, 100 * (run ?? 9), 'rows')]), run });
  const barriers = placeBarriers([free(), free(0), free(0), free(1), free(), free()]);
  assert.deepEqual(
    barriers.map((b) => b.divided),
    [true, false, true, true, false, true],
  );
});

/**
 * Runs a tape on simulated threads that may each be anywhere between two barriers and reports two touches of one byte
 * by different threads, one of them a write of something else, without a barrier between them.
 */
function races(steps: readonly TapeStep[], way: 'divided' | 'replicated' | 'claimed'): string[] {
  const barriers = placeBarriers(steps);
  const found: string[] = [];
  let segment: { index: number; access: Access; write: boolean; replicated: boolean }[] = [];
  steps.forEach((current, index) => {
    const replicated = way === 'replicated' && current.replicable;
    const claimed = way === 'claimed' && current.claims === true;
    const known = (a: Access): Access => (claimed ? { ...a, pattern: 'any' } : a);
    const now = [
      ...current.reads.map((a) => ({ index, access: known(a), write: false, replicated })),
      ...current.writes.map((a) => ({ index, access: known(a), write: true, replicated })),
    ];
    for (const b of segment) {
      for (const n of now) {
        if (!(b.write || n.write) || b.access.start >= n.access.end || n.access.start >= b.access.end) continue;
        const samePart =
          b.access.buffer === n.access.buffer && b.access.pattern === n.access.pattern && n.access.pattern !== 'any';
        if (!b.replicated && !n.replicated && samePart) continue;
        if (b.replicated && b.write && !n.write && b.access.buffer === n.access.buffer) continue;
        found.push(`${b.index} and ${n.index}`);
      }
    }
    segment.push(...now);
    const { divided, many, replicated: always } = barriers[index]!;
    if (way === 'claimed' ? many : always || (divided && !replicated)) segment = [];
  });
  return found;
}

test('no tape has a race, divided, replicated or claimed', () => {
  const anyAccess = fc
    .record({
      name: fc.constantFrom('a', 'b', 'c', 'd'),
      pattern: fc.constantFrom<Access['pattern']>('rows', 'columns', 'any'),
    })
    // a and b share addresses, as buffers with disjoint lifetimes do.
    .map(({ name, pattern }) => access(name, { a: 0, b: 5, c: 20, d: 30 }[name]!, pattern));
  const anyStep = fc
    .record({
      reads: fc.array(anyAccess, { maxLength: 2 }),
      writes: fc.array(anyAccess, { minLength: 1, maxLength: 1 }),
      replicable: fc.boolean(),
      claims: fc.boolean(),
    })
    .map(({ reads, writes, replicable, claims }) => ({ ...step(reads, writes, replicable), claims }));
  fc.assert(
    fc.property(fc.array(anyStep, { minLength: 1, maxLength: 12 }), (steps) => {
      for (const way of ['divided', 'replicated', 'claimed'] as const) assert.deepEqual(races(steps, way), []);
    }),
  );
});
