/** Steps of single values and whole rows: rope, activations, add, copy, select. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { type ActivationKind, activateKernel, activateRecord } from '../../src/kernels/activate.ts';
import {
  addKernel,
  addRecord,
  capKernel,
  capRecord,
  columnsKernel,
  columnsRecord,
  copyKernel,
  copyRecord,
  scaleKernel,
  scaleRecord,
  selectKernel,
  selectRecord,
} from '../../src/kernels/elementwise.ts';
import { bitsOf } from '../../src/kernels/record.ts';
import { ropeKernel, ropeRecord } from '../../src/kernels/rope.ts';
import { erfc, exp, tanh } from '../../src/numbers.ts';
import { Arena, assertClose, assertSameBits, randoms, rowStride, runSplit } from './support.ts';

const WIDTHS = [1, 5, 16, 20, 33, 64, 100];
const ROWS = 5;

test('rope rotates pairs, copies what is not rotated, reads each row at its position', () => {
  for (const [heads, headDim, rotary] of [
    [1, 2, 2],
    [3, 20, 20],
    [2, 24, 12],
    [2, 64, 64],
    [3, 80, 32],
    [1, 128, 128],
    [2, 16, 0],
  ] as const) {
    for (const threads of [1, 2, 3]) {
      const [width, half, positions] = [heads * headDim, rotary / 2, [7, 0, 3, 3, 11]];
      const [x, table] = [randoms(ROWS * width, 1), randoms(12 * rowStride(rotary), 2)];
      const arena = new Arena(1 << 20);
      const out = arena.take(ROWS * rowStride(width) * 4);
      const record = arena.record(
        ropeRecord.words({
          x: arena.putRows(x, width),
          out,
          rows: arena.putI32([ROWS]),
          positions: arena.putI32(positions),
          table: arena.putF32(table),
          tableStride: rowStride(rotary) * 4,
          heads,
          headDim,
          rotary,
        }),
      );
      runSplit(arena.compile(ropeKernel).rope!, record, threads);
      // Two products and a sum, each rounded to f32: the same bits.
      const expected = x.map((value, i) => {
        const [t, d] = [Math.floor(i / width), i % headDim];
        if (d >= rotary) return value;
        const at = positions[t]! * rowStride(rotary) + (d % half);
        const [cos, sin] = [table[at]!, table[at + half]!];
        const other = x[d < half ? i + half : i - half]!;
        const [a, b] = [Math.fround(value * cos), Math.fround(other * sin)];
        return Math.fround(d < half ? a - b : a + b);
      });
      assertSameBits(arena.rows(out, ROWS, width), expected, `${heads} heads of ${headDim}, ${rotary} rotated`);
    }
  }
});

const definitions: Readonly<Record<ActivationKind, (x: number) => number>> = {
  gelu: (x) => (x * erfc(-x * Math.SQRT1_2)) / 2,
  gelu_tanh: (x) => 0.5 * x * (1 + tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  silu: (x) => x / (1 + exp(-x)),
  relu: (x) => Math.max(x, 0),
};

test('activations, plain and gated', () => {
  for (const [kind, definition] of Object.entries(definitions) as [ActivationKind, (x: number) => number][]) {
    for (const gated of [false, true]) {
      for (const width of WIDTHS) {
        const [x, up] = [randoms(ROWS * width, 1, 8), randoms(ROWS * width, 2)];
        const results = [1, 2, 3].map((threads) => {
          const arena = new Arena(1 << 20);
          const out = arena.take(ROWS * rowStride(width) * 4);
          const words = {
            x: arena.putRows(x, width),
            up: arena.putRows(up, width),
            out,
            rows: arena.putI32([ROWS]),
            width,
          };
          const kernels = arena.compile((module) => activateKernel(module, kind, gated), threads > 1);
          runSplit(
            kernels[`activate_${kind}${gated ? '_up' : ''}`]!,
            arena.record(activateRecord.words(words)),
            threads,
          );
          return arena.rows(out, ROWS, width);
        });
        const expected = Array.from(x, (value, i) => definition(value) * (gated ? up[i]! : 1));
        // math.test.ts has the functions' own errors: 1.2e-6 of the result near 0, of |x| e^(-x^2 / 2) in the tail.
        assertClose(
          results[0]!,
          expected,
          (i) => 1.3e-6 * Math.min(Math.abs(x[i]!), 1) + 2e-7 * Math.abs(expected[i]!),
          `${kind} ${width}`,
        );
        assertSameBits(results[1]!, results[0]!, `${kind} ${width}: two threads`);
        assertSameBits(results[2]!, results[0]!, `${kind} ${width}: three threads`);
      }
    }
  }
});

test('add, copy and select', () => {
  for (const width of WIDTHS) {
    for (const threads of [1, 2, 3, 7]) {
      const arena = new Arena(1 << 20);
      const [x, y, indices] = [randoms(ROWS * width, 1), randoms(ROWS * width, 2), [4, 0, 0]];
      const [xAt, sum, copied, selected] = [
        arena.putRows(x, width),
        arena.putRows(y, width),
        arena.putRows(y, width),
        arena.putRows(y, width),
      ];
      const kernels = arena.compile((module) => {
        addKernel(module);
        copyKernel(module);
        selectKernel(module);
      });
      const rows = arena.putI32([ROWS]);
      runSplit(
        kernels.add!,
        arena.record(addRecord.words({ base: sum, x: xAt, out: sum, rows, width, scale: bitsOf(0.3) })),
        threads,
      );
      runSplit(kernels.copy!, arena.record(copyRecord.words({ x: xAt, out: copied, rows, width })), threads);
      const three = { x: xAt, out: selected, indices: arena.putI32(indices), rows: arena.putI32([3]), width };
      runSplit(kernels.select!, arena.record(selectRecord.words(three)), threads);
      assertSameBits(
        arena.rows(sum, ROWS, width),
        x.map((value, i) => Math.fround(Math.fround(value * Math.fround(0.3)) + y[i]!)),
        'add',
      );
      assertSameBits(arena.rows(copied, ROWS, width), x, 'copy');
      const taken = Float32Array.from(
        { length: 3 * width },
        (_, i) => x[indices[Math.floor(i / width)]! * width + (i % width)]!,
      );
      assertSameBits(arena.rows(selected, 3, width), taken, 'select');
      assertSameBits(
        arena.rows(selected, ROWS, width).slice(3 * width),
        y.slice(3 * width),
        'rows that are not wanted',
      );
    }
  }
});

test('scale by a number or a value in memory, cap', () => {
  for (const width of WIDTHS) {
    for (const threads of [1, 2, 3, 7]) {
      const arena = new Arena(1 << 20);
      const x = randoms(ROWS * width, 1, 8);
      const [scaled, scaledBy, capped] = [arena.putRows(x, width), arena.putRows(x, width), arena.putRows(x, width)];
      const kernels = arena.compile((module) => {
        scaleKernel(module, 'record');
        scaleKernel(module, 'memory');
        capKernel(module);
      });
      const common = { rows: arena.putI32([ROWS]), width };
      const [factor, by] = [bitsOf(-0.3), arena.putF32([1.7])];
      runSplit(kernels.scale!, arena.record(scaleRecord.words({ ...common, out: scaled, factor })), threads);
      runSplit(kernels.scale_by!, arena.record(scaleRecord.words({ ...common, out: scaledBy, factor: by })), threads);
      runSplit(kernels.cap!, arena.record(capRecord.words({ ...common, out: capped, cap: bitsOf(2.5) })), threads);
      const times = (f: number): Float32Array => x.map((value) => value * Math.fround(f));
      assertSameBits(arena.rows(scaled, ROWS, width), times(-0.3), 'scale');
      assertSameBits(arena.rows(scaledBy, ROWS, width), times(1.7), 'scale_by');
      const expected = Array.from(x, (value) => 2.5 * tanh(value / 2.5));
      assertClose(arena.rows(capped, ROWS, width), expected, (i) => 4e-7 * Math.abs(expected[i]!), 'cap');
    }
  }
});

test('columns of wider rows', () => {
  for (const [wide, first, width] of [
    [5, 1, 3],
    [64, 16, 16],
    [100, 37, 33],
    [20, 0, 20],
  ] as const) {
    for (const threads of [1, 2, 3]) {
      const arena = new Arena(1 << 20);
      const x = randoms(ROWS * wide, 1);
      const out = arena.take(ROWS * rowStride(width) * 4);
      const from = arena.putRows(x, wide) + 4 * first;
      const words = { x: from, xWidth: wide, out, rows: arena.putI32([ROWS]), width };
      runSplit(arena.compile(columnsKernel).columns!, arena.record(columnsRecord.words(words)), threads);
      const expected = Float32Array.from(
        { length: ROWS * width },
        (_, i) => x[Math.floor(i / width) * wide + first + (i % width)]!,
      );
      assertSameBits(arena.rows(out, ROWS, width), expected, `${width} of ${wide}`);
    }
  }
});

test('a record names its words once', () => {
  assert.deepEqual([...copyRecord.words({ width: 4, rows: 3, out: 0xffffffc0, x: 1 })], [1, -64, 3, 4]);
});
