/** Timing of linear layers: what is in memory together, what a scope's time is made of, and a run on this machine. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { createReferenceBackend } from '../../src/backend/reference/backend.ts';
import { OptionError } from '../../src/errors.ts';
import { type ShapeLayer, shapePlan, type TimedScope } from '../../src/measure/shape-plan.ts';
import { cacheSizes, groupsOf, type ShapeGroup, summarize, timeShapes } from '../../src/measure/shapes.ts';
import { dequantize, quantize } from '../../src/quant/codec.ts';
import { type Storage, storageLayout } from '../../src/quant/storage.ts';

const types = Object.keys(storageLayout) as Storage[];
const MB = 2 ** 20;

test('weights from memory come from as many bytes as no cache holds, or a matrix is read in between', () => {
  const sizes = cacheSizes(32 * MB);
  assert.equal(sizes.cycle, 256 * MB);
  assert.equal(cacheSizes(100 * MB).cycle, 400 * MB);
  assert.equal(cacheSizes(1024 * MB).cycle, 1024 * MB);
  const shapes = [64, 768, 4096, 16384].map((dim) => [dim, dim] as const);
  for (const group of groupsOf({ types, shapes }, 'memory', sizes)) {
    const { plan, flushes } = shapePlan(group.layers, 'memory', group.flushBytes);
    const bytes = plan.weights.filter(({ linear }) => linear).reduce((sum, weight) => sum + weight.bytes, 0);
    assert.ok(bytes >= sizes.cycle && bytes < 1.1 * sizes.cycle + 64 * MB, `${bytes}`);
    assert.equal(flushes, group.flushBytes > 0);
  }
});

test('every type of a shape is in one group, and large weights are measured in part', () => {
  const sizes = cacheSizes(32 * MB);
  const groups = groupsOf(
    {
      types: ['f32', 'q4_k'],
      shapes: [
        [50257, 768],
        [16, 1048576],
        [96, 96],
      ],
    },
    'memory',
    sizes,
  );
  const layers = groups.flatMap((group) => group.layers);
  assert.deepEqual(
    layers.map(({ type, whole: [out, inputs] }) => `${type} ${out}x${inputs}`),
    // 96 values are no whole blocks of Q4_K.
    ['f32 50257x768', 'q4_k 50257x768', 'f32 16x1048576', 'q4_k 16x1048576', 'f32 96x96'],
  );
  for (const { shape, whole } of layers) {
    assert.equal(shape[1], whole[1]);
    // At least one group of 16 rows for each of 2 threads, otherwise 16 MiB as F32.
    assert.ok(shape[0] <= whole[0] && (shape[0] <= 32 || shape[0] * shape[1] * 4 <= 16 * MB));
    assert.ok(shape[0] === whole[0] || shape[0] % 32 === 0);
  }
  for (const { layers: own } of groups)
    for (const { whole } of own)
      assert.equal(own.filter((layer) => layer.whole === whole).length, whole[0] === 96 ? 1 : 2);
});

test('from cache, weights that no cache holds are left out', () => {
  const groups = groupsOf(
    {
      types: ['f32', 'q8_0'],
      shapes: [
        [2048, 2048],
        [64, 64],
        [4096, 4096],
      ],
    },
    'cache',
    cacheSizes(16 * MB),
  );
  assert.deepEqual(
    groups.flatMap(({ layers }) => layers.map(({ type, shape }) => `${type} ${shape[0]}`)),
    ['q8_0 2048', 'f32 64', 'q8_0 64'],
  );
});

test('every product of a plan has an input of its own making, and gives what its weight says', async () => {
  const layers: ShapeLayer[] = types.map((type) => ({ type, shape: [17, 256] }));
  const { plan, tensor, scopes } = shapePlan(layers, 'cache');
  const products = plan.steps.flatMap((step, index) => (step.op === 'matmul' ? [{ step, index }] : []));
  for (const { step, index } of products) {
    const before = plan.steps[index - 1]!;
    assert.ok(before.op === 'add' && before.out === step.x);
  }
  for (const [last, scope] of scopes) {
    const { scope: name } = plan.steps[last]!;
    const steps = plan.steps.filter((step) => step.scope === name);
    assert.equal(steps.filter(({ op }) => op === (scope.kind === 'layer' ? 'matmul' : 'select')).length, scope.count);
    assert.equal(steps.at(-1), plan.steps[last]);
  }
  // The product of the last layer, whose rows are all equal, by the definition of its type.
  const { step } = products.at(-1)!;
  const backend = await createReferenceBackend({
    plan: { ...plan, output: step.out },
    tensor,
    maxRows: 1,
    maxWanted: 1,
  });
  await backend.cache.ensure(1);
  const batch = { tokens: new Int32Array(1), positions: new Int32Array(1), sequences: new Int32Array(1) };
  const { output } = await backend.forward({ ...batch, pages: [new Int32Array(1)], wanted: new Int32Array(1) });
  const found = output(0);
  await backend.dispose();
  const values = Float32Array.from({ length: 256 }, (_, i) => 0.02 * Math.sin(12.9898 * (i + 1)));
  const stored = dequantize(types.at(-1)!, quantize(types.at(-1)!, values));
  const expected = values.reduce((sum, value, i) => sum + value * stored[i]!, 0);
  for (const value of found) assert.ok(Math.abs(value - expected) < 0.01 * expected, `${value} is not ${expected}`);
});

test('the time of a layer is its share of the scope without the input, scaled up to all rows', () => {
  const layer = { type: 'f32', shape: [100, 8], whole: [300, 8] } as const;
  const group: ShapeGroup = { from: 'memory', layers: [layer], flushBytes: 0 };
  const scopes = new Map<number, TimedScope>([
    [0, { kind: 'barriers', count: 10 }],
    [1, { kind: 'inputs', width: 8, count: 10 }],
    [2, { kind: 'layer', layer, count: 4 }],
  ]);
  // A barrier takes 1, an input with a barrier 3, a layer with both and its input 9: 7 without the input.
  const [times] = summarize(group, { scopes }, 2, [
    [10, 30, 36],
    [10, 30, 40],
  ]);
  assert.deepEqual(times!.ms, [21, 24]);
  assert.equal(times!.operations, 2 * 2 * 300 * 8);
  assert.equal(times!.bytes, 4 * 300 * 8);
  assert.deepEqual([times!.shape, times!.measuredOut, times!.rows], [[300, 8], 100, 2]);
});

test('this machine times small layers', async () => {
  const some = ['f32', 'q8_0', 'q4_k'] as const;
  let last = [0, 0];
  const onProgress = (done: number, total: number): void => void (last = [done, total]);
  const shapes = [[48, 256]] as const;
  const times = await timeShapes({
    types: some,
    shapes,
    rows: [1, 5],
    from: ['cache'],
    threads: 1,
    turns: 2,
    onProgress,
  });
  assert.deepEqual(
    times.map(({ type, rows }) => `${type} ${rows}`).sort(),
    some.flatMap((type) => [`${type} 1`, `${type} 5`]).sort(),
  );
  for (const { ms } of times) assert.ok(ms.length === 2 && ms.every((value) => value > 0 && value < 1000));
  assert.deepEqual(last, [6, 6]);
});

test('shapes and rows that cannot be are refused, and an abort ends the work', async () => {
  const base = { types: ['f32'], shapes: [[64, 64]], rows: [1], from: ['cache'], turns: 1 } as const;
  for (const wrong of [{ shapes: [[0, 64]] }, { rows: [0] }, { rows: [5000] }, { turns: 0 }] as const)
    await assert.rejects(timeShapes({ ...base, ...wrong }), OptionError);
  await assert.rejects(timeShapes({ ...base, signal: AbortSignal.abort() }), { name: 'AbortError' });
});
