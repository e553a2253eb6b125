/** Rows of interleaved matrices, in every storage and byte order. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { embedKernel, embedRecord } from '../../src/kernels/embed.ts';
import { interleave, type Q8Layout } from '../../src/kernels/layout.ts';
import { bitsOf } from '../../src/kernels/record.ts';
import { dequantize, quantize } from '../../src/quant/codec.ts';
import type { Storage } from '../../src/quant/storage.ts';
import { Arena, assertSameBits, randoms, rowStride, runSplit } from './support.ts';

const ROWS = 37;

function check(storage: Storage, width: number, q8: Q8Layout, adds: boolean, scale: number, threads: number): void {
  // From subnormal f16 to values near 1: the scales of blocks as well.
  const values = randoms(ROWS * width, width).map((x, i) => x * 2 ** -((i >> 5) % 24));
  const file = quantize(storage, values);
  const table = dequantize(storage, file);
  const indices = [0, 15, 16, 36, 7, 36, 31];
  const before = randoms(indices.length * width, 3);
  const arena = new Arena(1 << 21);
  const out = arena.putRows(before, width);
  const record = arena.record(
    embedRecord.words({
      table: arena.putBytes(interleave(storage, file, ROWS, width, q8)),
      indices: arena.putI32(indices),
      out,
      rows: arena.putI32([indices.length]),
      width,
      scale: bitsOf(scale),
    }),
  );
  const kernels = arena.compile((module) => embedKernel(module, { storage, q8, adds }));
  const [name] = Object.keys(kernels);
  assert.equal(name, `embed_${storage}${adds ? '_add' : ''}`);
  runSplit(kernels[name]!, record, threads);
  const expected = before.map((x, i) => {
    const value = Math.fround(table[indices[Math.floor(i / width)]! * width + (i % width)]! * Math.fround(scale));
    return adds ? Math.fround(x + value) : value;
  });
  assertSameBits(arena.rows(out, indices.length, width), expected, `${storage} ${width} ${adds} ${JSON.stringify(q8)}`);
  assert.ok(
    arena
      .f32(out, rowStride(width))
      .subarray(width)
      .every((x) => x === 3),
    'padding is left alone',
  );
}

const plain: Q8Layout = { neighbours: 4, flip: 0 };

test('float tables of any width', () => {
  for (const storage of ['f32', 'f16', 'bf16'] as const) {
    for (const width of [1, 20, 33, 64]) check(storage, width, plain, width === 33, width === 1 ? 1 : 24.0208, 1);
  }
});

test('block tables in every order of bytes', () => {
  for (const adds of [false, true]) {
    for (const neighbours of [2, 4] as const) {
      for (const flip of [0, 0x80] as const) check('q8_0', 96, { neighbours, flip }, adds, 1.5, 1);
    }
    for (const storage of ['q4_0', 'iq4_nl'] as const) check(storage, 96, plain, adds, Math.sqrt(288), 1);
    for (const storage of ['q4_k', 'q5_k', 'q6_k'] as const) check(storage, 512, plain, adds, Math.sqrt(288), 1);
  }
});

test('any split into threads', () => {
  for (const threads of [2, 3, 9]) {
    check('q8_0', 32, { neighbours: 2, flip: 0 }, true, 1, threads);
    check('f16', 40, plain, false, 1, threads);
    check('q6_k', 256, plain, false, 1, threads);
  }
});
