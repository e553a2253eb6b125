/** Kernels beside the roofs of the machine: planted times of a small plan give the rates that follow by hand. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { kernelReport, placeOf, rooflineOf } from '../../src/measure/kernel-report.ts';
import { arithmeticRoof, chunksOf, type KernelTime, measureKernels } from '../../src/measure/kernel-times.ts';
import { stepWork } from '../../src/measure/step-work.ts';
import type { Plan, PlannedWeight, Step } from '../../src/plan/step.ts';
import { isBlockStorage, type Storage, storageLayout } from '../../src/quant/storage.ts';

const weight = (name: string, shape: readonly number[], storage: Storage): PlannedWeight => ({
  ...{ name, shape, storage, role: 'ffn', linear: true, reason: '', bytes: 0 },
  source: { tensor: name, transposed: false, first: 0, plus: 0 },
});
/** Width 64, two heads of 32 values, a cache of one head. */
const plan: Plan = {
  buffers: [
    { name: 'x', width: 64, rows: 'all' },
    { name: 'ffn', width: 128, rows: 'all' },
    { name: 'wanted', width: 64, rows: 'wanted' },
    { name: 'logits', width: 320, rows: 'wanted' },
  ],
  weights: [weight('up', [128, 64], 'q8_0'), weight('down', [64, 128], 'f32'), weight('output', [320, 64], 'q8_0')],
  caches: [{ kvHeads: 1, headDim: 32, storage: 'f32', window: 8 }],
  ropes: [],
  steps: [
    { scope: 'layer', op: 'norm', kind: 'rms', x: 0, eps: 0, groups: 1, out: 0 },
    { scope: 'layer', op: 'attention', q: 0, cache: 0, heads: 2, scale: 1, out: 0 },
    { scope: 'layer', op: 'matmul', x: 0, weight: 0, add: false, out: 1 },
    { scope: 'layer', op: 'activate', kind: 'gelu', x: 1, out: 1 },
    { scope: 'layer', op: 'matmul', x: 1, weight: 1, add: true, out: 0 },
    { scope: 'projection', op: 'select', x: 0, out: 2 },
    { scope: 'projection', op: 'matmul', x: 2, weight: 2, add: false, out: 3 },
  ],
  output: 3,
};
const roofs = { read: 40e9, f32: 100e9, q8: 200e9 };

const near = (actual: number | undefined, expected: number): void =>
  assert.ok(Math.abs(actual! - expected) <= 1e-9 * Math.abs(expected), `${actual} is not ${expected}`);

/** A model that takes `ms` for every step. */
function planted(ms: (step: Step, rows: number) => number): Parameters<typeof measureKernels>[0] {
  const model = {
    description: { plan, config: { vocab: 100 } },
    maxRows: 4,
    sequence: () => ({ [Symbol.dispose]() {} }),
    async step(
      [{ tokens }]: [{ tokens: readonly number[] }],
      { onReport }: { onReport: (report: { steps: { step: number; ms: number }[] }) => void },
    ) {
      onReport({ steps: plan.steps.map((step, index) => ({ step: index, ms: ms(step, tokens.length) })) });
    },
  };
  return model as unknown as Parameters<typeof measureKernels>[0];
}

test('planted times give the bytes, operations and rates of every kind of step', async () => {
  const times = await measureKernels(
    planted((step, rows) => (step.op === 'matmul' ? 2 : step.op === 'attention' ? 3 : 1) * rows),
    { prompt: 10, decode: 4, repeat: 2 },
  );
  const find = (work: string, kernel: string): KernelTime =>
    times.find((time) => time.work === work && time.kernel === kernel)!;
  // A row of 64 values has 68 bytes as Q8_0. Two products of one row: their weights, the row in, the row out.
  const decode = find('decode', 'matmul q8_0');
  assert.equal(decode.ms, 4);
  assert.equal(decode.bytes, (128 + 320) * 68 + 4 * (64 + 128 + 64 + 320));
  assert.equal(decode.operations, 2 * 64 * (128 + 320));
  near(decode.rate, decode.bytes / 0.004);
  // The row that is added to is read too.
  assert.equal(find('decode', 'matmul f32').bytes, 4 * (64 * 128 + 128 + 2 * 64));
  // Behind 12 positions, a window of 8 of one head, keys and values.
  const attention = find('decode', 'attention');
  assert.equal(attention.bytes, 8 * 2 * 32 * 4 + 4 * 2 * 64);
  assert.equal(attention.operations, 4 * 2 * 32 * 8);
  // A prompt of ten tokens has forwards of 4, 4 and 2 rows; only the last one computes logits, of one row.
  const prefill = find('prefill', 'matmul q8_0');
  assert.equal(prefill.ms, 2 * 2 * 10);
  assert.equal(prefill.operations, 2 * 64 * (10 * 128 + 320));
  assert.equal(prefill.bytes, 3 * 128 * 68 + 10 * 4 * (64 + 128) + 320 * 68 + 4 * (64 + 320));
  near(prefill.rate, prefill.operations! / 0.04);
  assert.equal(prefill.roof, 'q8');
  const seen = [1, 2, 3, 4, 5, 6, 7, 8, 8, 8].reduce((sum, count) => sum + count, 0);
  assert.equal(find('prefill', 'attention').operations, 4 * 2 * 32 * seen);
  assert.equal(find('prefill', 'activate').operations, undefined);
  assert.equal(find('decode', 'norm').operations, 4 * 64);
  assert.equal(find('decode', 'norm').rate, undefined);
  for (const work of ['prefill', 'decode'])
    near(
      times.filter((time) => time.work === work).reduce((sum, { share }) => sum + share, 0),
      1,
    );
});

test('products with blocks are integer products, all others are products of floats', () => {
  for (const storage of Object.keys(storageLayout) as Storage[])
    assert.equal(arithmeticRoof(`matmul ${storage}`), isBlockStorage(storage) ? 'q8' : 'f32', storage);
  assert.equal(arithmeticRoof('attention'), 'f32');
});

test('the lower roof of a kernel limits it', () => {
  const time = { work: 'prefill', ms: 1, share: 1, rate: 0, roof: 'q8' } as const;
  // 20 MB in a millisecond are 20 GB/s, half of the memory roof; 20 GOP/s are a tenth of the int8 roof.
  const memory = placeOf({ ...time, kernel: 'matmul q8_0', bytes: 20e6, operations: 20e6 }, roofs);
  assert.deepEqual([memory.limit, memory.ofRoof, memory.intensity], ['memory', 0.5, 1]);
  near(memory.operationsPerSecond, 20e9);
  const arithmetic = placeOf({ ...time, kernel: 'matmul f32', bytes: 1e6, operations: 80e6 }, roofs);
  assert.deepEqual([arithmetic.limit, arithmetic.ofRoof, arithmetic.intensity], ['arithmetic', 0.8, 80]);
  assert.equal(placeOf({ ...time, kernel: 'activate', bytes: 4e6, operations: undefined }, roofs).ofRoof, 0.1);
});

test('the roofline has a slope that is the memory rate, ceilings from where it reaches them, and a point per kernel', () => {
  const kernels: KernelTime[] = [
    {
      work: 'decode',
      kernel: 'matmul q8_0',
      ms: 1,
      share: 0.9,
      bytes: 20e6,
      operations: 40e6,
      rate: 20e9,
      roof: 'read',
    },
    {
      work: 'decode',
      kernel: 'activate',
      ms: 1,
      share: 0.1,
      bytes: 1e6,
      operations: undefined,
      rate: undefined,
      roof: 'read',
    },
  ];
  const { series, lines, x, y } = rooflineOf('q8_0', kernels, roofs);
  assert.deepEqual([x.scale, y.scale], ['log', 'log']);
  assert.deepEqual(series, [{ name: 'decode: matmul q8_0', points: [{ x: 2, y: 40 }] }]);
  const points = new Map(lines!.map((line) => [line.name, 'points' in line ? line.points : []]));
  for (const { x: intensity, y: rate } of points.get('memory read')!) near(rate, 40 * intensity);
  assert.deepEqual(points.get('tile loop F32')![0], { x: 2.5, y: 100 });
  assert.deepEqual(points.get('tile loop int8')![0], { x: 5, y: 200 });
  assert.deepEqual(points.get('memory read')!.at(-1), { x: 5, y: 200 });
  const report = kernelReport({ command: 'lanewise bench', machine: [], models: [{ policy: 'q8_0', kernels }], roofs });
  const { columns, rows } = report.sections[1]!.table!;
  for (const row of rows) assert.equal(row.length, columns.length);
});

test('chunks of a prompt, and steps without rows', () => {
  assert.deepEqual(chunksOf(5, 4), [
    { rows: 4, wanted: 0, before: 0 },
    { rows: 1, wanted: 1, before: 4 },
  ]);
  const projection = plan.steps.at(-1)!;
  assert.deepEqual(stepWork(plan, projection, { rows: 4, wanted: 0, before: 0 }), { bytes: 0, operations: 0 });
});

test('experts are read as often as rows choose them, at most all of them', () => {
  const experts: Plan = {
    ...plan,
    buffers: [
      { name: 'x', width: 64, rows: 'all' },
      { name: 'out', width: 64, rows: 'all' },
    ],
    weights: [0, 1, 2, 3].flatMap((n) => [
      weight(`gate ${n}`, [32, 64], 'f32'),
      weight(`up ${n}`, [32, 64], 'f32'),
      weight(`down ${n}`, [64, 32], 'f32'),
    ]),
  };
  const step = { op: 'experts', x: 0, top: 2, gate: [0, 3, 6, 9], up: [1, 4, 7, 10], down: [2, 5, 8, 11], out: 1 };
  const work = (rows: number) => stepWork(experts, step as unknown as Step, { rows, wanted: 0, before: 0 });
  const one = 3 * 32 * 64;
  assert.equal(work(1).bytes, 4 * 2 * one + 4 * 3 * 64);
  assert.equal(work(8).bytes, 4 * 4 * one + 8 * 4 * 3 * 64);
  assert.equal(work(8).operations, 8 * 2 * 2 * one);
});
