/** Routing: the experts of a row, the rows of an expert, and adding results back to the rows. */
import assert from 'node:assert/strict';
import test from 'node:test';
import {
  groupKernel,
  groupRecord,
  routeKernel,
  routeRecord,
  scatterKernel,
  scatterRecord,
} from '../../src/kernels/experts.ts';
import { exp } from '../../src/numbers.ts';
import { Arena, assertClose, assertSameBits, randoms, rowStride, runSplit } from './support.ts';

const ROWS = 7;

interface Choice {
  readonly experts: number[];
  readonly shares: number[];
}

function choose(logits: Float32Array, top: number, normalize: boolean): Choice {
  const largest = Math.max(...logits);
  const weights = [...logits].map((x) => exp(x - largest));
  const experts = [...logits.keys()].sort((a, b) => logits[b]! - logits[a]! || a - b).slice(0, top);
  const total = (normalize ? experts.map((e) => weights[e]!) : weights).reduce((a, b) => a + b);
  return { experts, shares: experts.map((e) => weights[e]! / total) };
}

test('the experts of largest logit, the first of equal ones, with their shares', () => {
  for (const [experts, top] of [
    [4, 2],
    [8, 3],
    [16, 16],
    [33, 5],
    [128, 8],
  ] as const) {
    for (const [normalize, scaled] of [
      [true, false],
      [false, false],
      [true, true],
    ] as const) {
      const given = scaled ? randoms(experts, 7, 2) : undefined;
      const x = randoms(ROWS * experts, experts, 3);
      x[1] = x[0]!;
      const results = [1, 2, 3].map((threads) => {
        const arena = new Arena(1 << 20);
        const out = arena.take(ROWS * rowStride(2 * top) * 4);
        const words = { x: arena.putRows(x, experts, 1e9), out, rows: arena.putI32([ROWS]), experts, top };
        const record = arena.record(
          routeRecord.words({ ...words, normalize: normalize ? 1 : 0, factors: given ? arena.putF32(given) : 0 }),
        );
        runSplit(arena.compile(routeKernel).route!, record, threads);
        return arena.rows(out, ROWS, 2 * top);
      });
      for (const other of results) assertSameBits(other, results[0]!, 'whatever the threads');
      for (let row = 0; row < ROWS; row++) {
        const choice = choose(x.subarray(row * experts, (row + 1) * experts), top, normalize);
        const got = results[0]!.slice(row * 2 * top, (row + 1) * 2 * top);
        assert.deepEqual([...new Int32Array(got.buffer, 0, top)], choice.experts);
        const shares = choice.shares.map((share, i) => share * (given?.[choice.experts[i]!] ?? 1));
        assertClose(got.slice(top), shares, () => 2e-6, `${top} of ${experts}`);
      }
    }
  }
});

test('no expert is taken twice, whatever the logits are', () => {
  const [experts, top] = [20, 3];
  for (const [logits, expected] of [
    [() => Number.NaN, [0, 1, 2]],
    [() => Number.NEGATIVE_INFINITY, [0, 1, 2]],
    [(e: number) => (e === 1 ? 1 : Number.NEGATIVE_INFINITY), [1, 0, 2]],
    [(e: number) => (e === 18 ? -3 : Number.NaN), [18, 0, 1]],
  ] as const) {
    const arena = new Arena(1 << 20);
    const x = Float32Array.from({ length: ROWS * experts }, (_, i) => logits(i % experts));
    const out = arena.take(ROWS * rowStride(2 * top) * 4);
    const words = {
      x: arena.putRows(x, experts),
      out,
      rows: arena.putI32([ROWS]),
      experts,
      top,
      normalize: 1,
      factors: 0,
    };
    runSplit(arena.compile(routeKernel).route!, arena.record(routeRecord.words(words)), 2);
    const got = arena.rows(out, ROWS, 2 * top);
    for (let row = 0; row < ROWS; row++) {
      assert.deepEqual([...new Int32Array(got.slice(row * 2 * top).buffer, 0, top)], expected);
    }
  }
});

test('every expert gets its rows in order, and adds its share of the result to them', () => {
  const [experts, top, width, listBytes] = [5, 2, 20, 4 * ROWS];
  const chosen = [
    [0, 3],
    [3, 0],
    [1, 3],
    [4, 1],
    [3, 4],
    [0, 1],
    [1, 0],
  ];
  for (const threads of [1, 2, 3, 8]) {
    const arena = new Arena(1 << 21);
    const stride = rowStride(2 * top);
    const choice = arena.take(ROWS * stride * 4);
    for (const [row, ids] of chosen.entries()) {
      arena.i32(choice + row * stride * 4, top).set(ids);
      arena.f32(choice + (row * stride + top) * 4, top).set(ids.map((e) => row + e / 8));
    }
    const [counts, lists, shares] = [
      arena.take(experts * 4),
      arena.take(experts * listBytes),
      arena.take(experts * listBytes),
    ];
    const rows = arena.putI32([ROWS]);
    const group = groupRecord.words({ choice, rows, experts, top, counts, lists, shares, listBytes });
    runSplit(arena.compile(groupKernel).group_rows!, arena.record(group), threads);
    for (let e = 0; e < experts; e++) {
      const expected = chosen.flatMap((ids, row) => (ids.includes(e) ? [row] : []));
      assert.equal(arena.i32(counts, experts)[e], expected.length);
      assert.deepEqual([...arena.i32(lists + e * listBytes, expected.length)], expected);
      assert.deepEqual(
        [...arena.f32(shares + e * listBytes, expected.length)],
        expected.map((row) => row + e / 8),
      );
    }
    const [x, before] = [randoms(3 * width, 1), randoms(ROWS * width, 2)];
    const out = arena.putRows(before, width);
    const e = 4;
    const words = {
      x: arena.putRows(x, width),
      out,
      indices: lists + e * listBytes,
      shares: shares + e * listBytes,
      rows: counts + 4 * e,
      width,
    };
    runSplit(arena.compile(scatterKernel).scatter!, arena.record(scatterRecord.words(words)), threads);
    const expected = before.slice();
    for (const [i, row] of [3, 4].entries()) {
      for (let c = 0; c < width; c++) {
        expected[row * width + c]! += Math.fround(x[i * width + c]! * (row + e / 8));
      }
    }
    assertSameBits(arena.rows(out, ROWS, width), expected, `${threads} threads`);
  }
});
