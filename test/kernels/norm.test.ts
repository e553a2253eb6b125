/** Normalisation against its definition in double precision. */
import test from 'node:test';
import { type NormVariant, normKernel, normName, normRecord } from '../../src/kernels/norm.ts';
import { bitsOf } from '../../src/kernels/record.ts';
import { Arena, assertClose, assertSameBits, randoms, rowStride, runSplit } from './support.ts';

interface Case extends NormVariant {
  readonly rows: number;
  readonly width: number;
  readonly groups: number;
  readonly eps: number;
  /** Each group has its own weight. */
  readonly own?: boolean;
}

/** Row-major result, and for each value the magnitude that rounding errors scale with. */
function definition(c: Case, x: Float32Array, weight: Float32Array, bias: Float32Array) {
  const { kind, rows, width, groups, eps } = c;
  const wOf = (at: number): number => (c.weighted ? weight[c.own ? at % width : at % (width / groups)]! : 1);
  const b = c.biased ? bias : bias.map(() => 0);
  const n = width / groups;
  const [out, size] = [new Float64Array(x.length), new Float64Array(x.length)];
  for (let start = 0; start < rows * width; start += n) {
    const group = Array.from(x.subarray(start, start + n));
    const mean = kind === 'layer' ? group.reduce((sum, value) => sum + value, 0) / n : 0;
    const inverse = 1 / Math.sqrt(group.reduce((sum, value) => sum + (value - mean) ** 2, 0) / n + Math.fround(eps));
    const largest = Math.max(...group.map(Math.abs));
    group.forEach((value, i) => {
      out[start + i] = (value - mean) * inverse * wOf(start + i) + b[i]!;
      size[start + i] = largest * inverse * Math.abs(wOf(start + i)) + Math.abs(b[i]!);
    });
  }
  return { out, size };
}

function run(c: Case, x: Float32Array, w: Float32Array, b: Float32Array, threads = 1, wide = true): Float32Array {
  const arena = new Arena();
  const kernels = arena.compile((module) => normKernel(module, c), wide);
  const n = c.width / c.groups;
  const out = arena.take(c.rows * rowStride(c.width) * 4);
  const vector = (values: Float32Array): number =>
    arena.putF32(Float32Array.from({ length: rowStride(values.length) }, (_, i) => values[i] ?? 0));
  const record = arena.record(
    normRecord.words({
      x: arena.putRows(x, c.width),
      out,
      weight: vector(w),
      bias: vector(b),
      rows: arena.putI32([c.rows]),
      width: c.width,
      groups: c.groups,
      weightStep: c.own ? 4 * n : 0,
      eps: bitsOf(c.eps),
    }),
  );
  runSplit(kernels[normName(c)]!, record, threads);
  return arena.rows(out, c.rows, c.width);
}

const variants: readonly NormVariant[] = (['rms', 'layer'] as const).flatMap((kind) =>
  [true, false].flatMap((weighted) => [true, false].map((biased) => ({ kind, weighted, biased }))),
);
const [rms, layer, layerUnbiased] = [variants[1]!, variants[4]!, variants[5]!];

test('rms and layer norm at odd widths and with groups', () => {
  for (const variant of variants) {
    for (const [width, groups] of [
      [1, 1],
      [5, 1],
      [16, 1],
      [20, 1],
      [24, 2],
      [33, 3],
      [60, 3],
      [80, 4],
      [288, 1],
      [768, 12],
      [771, 1],
    ] as const) {
      const c: Case = { ...variant, rows: 3, width, groups, eps: 1e-5 };
      const n = width / groups;
      const [x, w, b] = [randoms(3 * width, width, 4), randoms(n, 7), randoms(n, 8)];
      const { out, size } = definition(c, x, w, b);
      // 16 running sums of n / 16 terms and their total round (n / 16 + 16) times, relative to the largest value; the
      // layer's variance takes the mean's error over. A few roundings more for root, quotient and products.
      const roundings = n / 16 + 24;
      assertClose(run(c, x, w, b), out, (i) => roundings * 2 ** -24 * size[i]!, `${normName(c)} ${width} in ${groups}`);
    }
  }
});

test('groups with weights of their own', () => {
  for (const [width, groups] of [
    [60, 3],
    [128, 8],
    [33, 3],
  ] as const) {
    const c: Case = { ...layerUnbiased, rows: 4, width, groups, eps: 1e-5, own: true };
    const [x, w, b] = [randoms(4 * width, 5, 4), randoms(width, 6), randoms(width, 7)];
    const { out, size } = definition(c, x, w, b);
    assertClose(run(c, x, w, b, 2), out, (i) => (width / groups / 16 + 24) * 2 ** -24 * size[i]!, `${width} ${groups}`);
  }
});

test('any split into threads and both widths of code give the same bits', () => {
  for (const variant of variants) {
    const c: Case = { ...variant, rows: 5, width: 84, groups: 3, eps: 1e-6 };
    const [x, w, b] = [randoms(5 * 84, 1), randoms(28, 2), randoms(28, 3)];
    const whole = run(c, x, w, b);
    for (const threads of [2, 3, 8])
      assertSameBits(run(c, x, w, b, threads), whole, `${normName(c)}, ${threads} threads`);
    assertSameBits(run(c, x, w, b, 1, false), whole, `${normName(c)}, 128 bits`);
  }
});

test('a row of zeros gives zeros (rms) or the bias (layer)', () => {
  const w = randoms(20, 1);
  const b = randoms(20, 2);
  const c = { rows: 1, width: 20, groups: 1, eps: 1e-5 };
  assertSameBits(run({ ...c, ...rms }, new Float32Array(20), w.map(Math.abs), b), new Float32Array(20), 'rms');
  assertSameBits(run({ ...c, ...layer }, new Float32Array(20), w, b), b, 'layer');
});

test('no rows: nothing is written', () => {
  const c: Case = { ...rms, rows: 0, width: 16, groups: 1, eps: 1e-5 };
  assertSameBits(run(c, new Float32Array(0), randoms(16, 1), randoms(16, 2), 2), new Float32Array(0), 'no rows');
});
