/** Packing against the scalar quantizers and the scalar layout: equal bytes for every source, order, storage and layout. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { interleave, matrixBytes, padded, type Q8Layout } from '../../src/kernels/layout.ts';
import {
  type PackedStorage,
  type PackVariant,
  packKernel,
  packName,
  packVectorKernel,
  packVectorWords,
  packWords,
} from '../../src/kernels/pack.ts';
import { packStoredKernel, packStoredName } from '../../src/kernels/pack-stored.ts';
import { dequantize, quantize } from '../../src/quant/codec.ts';
import type { FloatStorage } from '../../src/quant/storage.ts';
import { type BlockStorage, type Storage, storageBytes, storageLayout } from '../../src/quant/storage.ts';
import { Arena, type Kernel, noise } from './support.ts';

const sources: readonly FloatStorage[] = ['f32', 'f16', 'bf16'];
const orders = ['rows', 'columns'] as const;
const storages: readonly PackedStorage[] = ['f32', 'f16', 'bf16', 'q8_0', 'q4_0'];
const pairs: Q8Layout = { neighbours: 2, flip: 0 };
const layouts: readonly Q8Layout[] = [
  pairs,
  { neighbours: 2, flip: 0x80 },
  { neighbours: 4, flip: 0 },
  { neighbours: 4, flip: 0x80 },
];
const variants: readonly PackVariant[] = sources.flatMap((source) =>
  orders.flatMap((order) =>
    storages.flatMap((storage) =>
      (storage === 'q8_0' ? layouts : [pairs]).map((q8) => ({ source, order, storage, q8 })),
    ),
  ),
);

/** Finite values whose blocks of 32 are of many kinds: plain, ties, one magnitude with both signs, zeros, tiny, huge. */
function difficult(count: number, seed: number): Float32Array {
  const random = noise(seed);
  const kinds: readonly (() => number)[] = [
    () => random(),
    () => random() ** 9,
    () => Math.round(random() * 254) / 2,
    () => Math.round(random() * 16) / 2,
    () => Math.sign(random()) * 0.75,
    () => (random() < 0.9 ? 0 : random()),
    () => (random() < 0 ? 0 : -0),
    () => random() * 2 ** -127,
    () => random() * 2 ** -135,
    () => random() * 2 ** -146,
    () => random() * 3e38,
    () => random() * 2 ** -17,
    () => (random() < -0.8 ? -100 : random()),
  ];
  let kind = 0;
  return Float32Array.from({ length: count }, (_, i) => {
    if (i % 32 === 0) kind = Math.floor(((random() + 1) / 2) * kinds.length);
    return kinds[kind]!();
  });
}

/** The values as the file has them, and the bytes: finite, for the largest are too large for f16. */
function inFile(source: FloatStorage, values: Float32Array): { bytes: Uint8Array; values: Float32Array } {
  const limited = source === 'f16' ? values.map((x) => Math.max(-65504, Math.min(65504, x))) : values;
  const bytes = quantize(source, limited);
  return { bytes, values: dequantize(source, bytes) };
}

/** Result of the definitions for `rows` x `k` values. */
function expected({ source, storage, q8 }: PackVariant, values: Float32Array, rows: number, k: number): Uint8Array {
  const filled = new Float32Array(padded(rows) * k);
  filled.set(values);
  return interleave(storage, quantize(source === storage ? source : storage, filled), padded(rows), k, q8);
}

interface Shape {
  readonly rows: number;
  readonly k: number;
  /** Rows of the tensor before and after this matrix. */
  readonly before?: number;
  readonly after?: number;
  /** Lines per piece. */
  readonly lines?: number;
}

/** Packs piece by piece on `threads` simulated threads, the last one first, so that no thread hides an error of another. */
function pack(kernel: Kernel, arena: Arena, variant: PackVariant, shape: Shape, threads: number): Uint8Array {
  const { rows, k, before = 0, after = 0 } = shape;
  const { source, order, storage } = variant;
  const total = before + rows + after;
  const logical = difficult(total * k, rows * 1000 + k);
  const tensor = order === 'rows' ? logical : logical.map((_, i) => logical[(i % total) * k + Math.floor(i / total)]!);
  const { bytes } = inFile(source, tensor);
  const size = bytes.length / tensor.length;

  const room = matrixBytes(storage, rows, k);
  const address = arena.take(64 + room + 64) + 64;
  const memory = new Uint8Array(arena.memory.buffer);
  memory.fill(0xee, address - 64, address + room + 64);
  const lineBytes = (order === 'rows' ? k : total) * size;
  const lineCount = order === 'rows' ? rows : k;
  const lines = shape.lines ?? lineCount;
  const firstLine = order === 'rows' ? before : 0;
  for (let line = 0; line < lineCount; line += lines) {
    const count = Math.min(lines, lineCount - line);
    // At the very end of the memory: reading on would trap.
    const slab = bytes.subarray((firstLine + line) * lineBytes, (firstLine + line + count) * lineBytes);
    const staging = memory.length - slab.length;
    memory.set(slab, staging);
    const box =
      order === 'rows'
        ? { firstRow: line, rows: count, firstColumn: 0, columns: k }
        : { firstRow: 0, rows, firstColumn: line, columns: count };
    const record = arena.record(
      packWords(
        storage,
        { address, k },
        { source: staging + (order === 'rows' ? 0 : before * size), lineBytes, ...box },
      ),
    );
    for (let thread = threads - 1; thread >= 0; thread--) kernel(record, thread, threads);
  }
  for (let i = 0; i < 64; i++) {
    assert.equal(memory[address - 1 - i], 0xee, 'wrote before the matrix');
    assert.equal(memory[address + room + i], 0xee, 'wrote behind the matrix');
  }
  const matrix = inFile(source, logical).values.subarray(before * k, (before + rows) * k);
  const got = memory.slice(address, address + room);
  assertSameBytes(got, expected(variant, matrix, rows, k), `${packName(variant)} ${JSON.stringify(shape)} ${threads}`);
  return got;
}

function assertSameBytes(got: Uint8Array, wanted: Uint8Array, message: string): void {
  assert.equal(got.length, wanted.length, message);
  for (let i = 0; i < got.length; i++)
    if (got[i] !== wanted[i]) assert.fail(`${message}: byte ${i} is ${got[i]}, expected ${wanted[i]}`);
}

const isBlocks = (storage: Storage): boolean => storageLayout[storage].block > 1;

for (const variant of variants) {
  test(`${packName(variant)}: the bytes of the definition for odd shapes, slabs and thread splits`, () => {
    const arena = new Arena(1 << 23);
    const kernel = arena.compile((module) => packKernel(module, variant))[packName(variant)]!;
    const shapes: readonly Shape[] = isBlocks(variant.storage)
      ? [
          { rows: 16, k: 32 },
          { rows: 1, k: 64 },
          { rows: 37, k: 160, before: 3, after: 5 },
          { rows: 48, k: 544 },
          { rows: 50, k: 288, lines: 32 },
          { rows: 33, k: 96, lines: 32, before: 1 },
        ]
      : [
          { rows: 1, k: 1 },
          { rows: 16, k: 8 },
          { rows: 16, k: 300 },
          { rows: 37, k: 13, before: 3, after: 5 },
          { rows: 50, k: 259, lines: 32 },
          { rows: 33, k: 4, before: 1 },
          { rows: 48, k: 264 },
        ];
    for (const [i, shape] of shapes.entries()) pack(kernel, arena, variant, shape, 1 + (i % 3));
    const split = isBlocks(variant.storage) ? { rows: 70, k: 64, after: 2 } : { rows: 70, k: 19, after: 2 };
    for (const threads of [1, 2, 3, 7]) pack(kernel, arena, variant, split, threads);
  });
}

test('q8_0 rounds halves away from zero, and their neighbours to the nearest', () => {
  const halves = Array.from({ length: 127 }, (_, n) => n + 0.5);
  const around = new Uint32Array(Float32Array.from(halves).buffer);
  const values = [-1, 0, 1].flatMap((step) => [...new Float32Array(around.map((bits) => bits + step).buffer)]);
  const all = values.flatMap((x) => [x, -x]);
  // A block whose largest magnitude is 127 has the scale 1.
  const k = Math.ceil(all.length / 31) * 32;
  const row = Float32Array.from({ length: k }, (_, i) => (i % 32 ? (all[i - Math.floor(i / 32) - 1] ?? 0) : 127));
  for (const order of orders) {
    const variant: PackVariant = { source: 'f32', order, storage: 'q8_0', q8: pairs };
    const arena = new Arena(1 << 20);
    const kernel = arena.compile((module) => packKernel(module, variant))[packName(variant)]!;
    const address = arena.take(matrixBytes('q8_0', 1, k));
    const lineBytes = order === 'rows' ? 4 * k : 4;
    const piece = { source: arena.putF32(row), lineBytes, firstRow: 0, rows: 1, firstColumn: 0, columns: k };
    kernel(arena.record(packWords('q8_0', { address, k }, piece)), 0, 1);
    const got = new Uint8Array(arena.memory.buffer, address, matrixBytes('q8_0', 1, k));
    assertSameBytes(got, expected(variant, row, 1, k), order);
  }
});

test('every f16 and bf16 number is widened exactly, infinities included', () => {
  for (const source of ['f16', 'bf16'] as const) {
    const arena = new Arena(1 << 21);
    const kernel = arena.compile((module) => packVectorKernel(module, source))[`pack_vector_${source}`]!;
    const bits = Uint16Array.from({ length: 65536 }, (_, i) => i);
    const address = arena.take(65536 * 4);
    const from = arena.putBytes(new Uint8Array(bits.buffer));
    kernel(arena.record(packVectorWords({ source: from, count: 65536, destination: address, plus: 0 })), 0, 1);
    const wanted = dequantize(source, new Uint8Array(bits.buffer));
    for (const [i, x] of arena.f32(address, 65536).entries())
      assert.ok(Object.is(x, wanted[i]) || (Number.isNaN(x) && Number.isNaN(wanted[i])), `${source} ${i}: ${x}`);
  }
});

test('f32 is rounded to f16 and bf16 like the definitions, also NaN and around the ties', () => {
  const bits: number[] = [0x7fc00000, 0x7f800001, 0x7f800000, 0xff800000, 0xffc00000];
  for (let upper = 0; upper < 0x7f80; upper += 5)
    for (const low of [0, 1, 0x0fff, 0x1000, 0x1001, 0x7fff, 0x8000, 0x8001, 0xffff])
      bits.push(((upper << 16) | low) >>> 0, ((upper << 16) | low | 0x80000000) >>> 0);
  const values = new Float32Array(Uint32Array.from({ length: padded(bits.length) }, (_, i) => bits[i] ?? 0).buffer);
  const k = values.length / 16;
  for (const storage of ['f16', 'bf16'] as const) {
    const variant: PackVariant = { source: 'f32', order: 'rows', storage, q8: pairs };
    const arena = new Arena(1 << 22);
    const kernel = arena.compile((module) => packKernel(module, variant))[packName(variant)]!;
    const address = arena.take(matrixBytes(storage, 16, k));
    const piece = { source: arena.putF32(values), lineBytes: 4 * k, firstRow: 0, rows: 16, firstColumn: 0, columns: k };
    kernel(arena.record(packWords(storage, { address, k }, piece)), 0, 1);
    const got = new Uint8Array(arena.memory.buffer, address, matrixBytes(storage, 16, k));
    const wanted = interleave(storage, quantize(storage, values), 16, k, pairs);
    assertSameBytes(got, wanted, storage);
  }
});

test('vectors are widened, added to, and padded with zeros', () => {
  for (const source of sources) {
    const arena = new Arena(1 << 20);
    const kernel = arena.compile((module) => packVectorKernel(module, source))[`pack_vector_${source}`]!;
    for (const count of [1, 15, 16, 17, 100]) {
      for (const plus of [0, 1]) {
        const { bytes, values } = inFile(source, difficult(count, count));
        const address = arena.take(padded(count) * 4 + 64);
        arena.f32(address, padded(count) + 16).fill(7);
        const from = arena.memory.buffer.byteLength - bytes.length;
        new Uint8Array(arena.memory.buffer, from).set(bytes);
        const record = arena.record(packVectorWords({ source: from, count, destination: address, plus }));
        for (const thread of [2, 1, 0]) kernel(record, thread, 3);
        const wanted = Float32Array.from({ length: padded(count) + 16 }, (_, i) =>
          i < count ? (plus ? values[i]! + plus : values[i]!) : i < padded(count) ? 0 : 7,
        );
        assert.deepEqual([...arena.f32(address, padded(count) + 16)], [...wanted], `${source} ${count} ${plus}`);
      }
    }
  }
});

for (const storage of ['q8_0', 'q4_0', 'iq4_nl', 'q4_k', 'q5_k', 'q6_k'] as const satisfies BlockStorage[]) {
  for (const q8 of storage === 'q8_0' ? layouts : [pairs]) {
    const name = packStoredName({ storage, q8 });
    test(`${name}: a file's blocks in the layout, for odd shapes, slabs and thread splits`, () => {
      const arena = new Arena(1 << 22);
      const kernel = arena.compile((module) => packStoredKernel(module, { storage, q8 }))[name]!;
      const { block } = storageLayout[storage];
      for (const [rows, blocks, lines, threads] of [
        [16, 1, 16, 1],
        [1, 3, 16, 1],
        [37, 2, 37, 2],
        [70, 1, 32, 3],
        [70, 2, 70, 7],
      ] as const) {
        const k = blocks * block;
        const random = noise(rows);
        const file = Uint8Array.from({ length: rows * storageBytes(storage, k) }, () => (random() + 1) * 128);
        const room = matrixBytes(storage, rows, k);
        const address = arena.take(room + 64);
        const memory = new Uint8Array(arena.memory.buffer);
        memory.fill(0xee, address, address + room + 64);
        const lineBytes = storageBytes(storage, k);
        for (let firstRow = 0; firstRow < rows; firstRow += lines) {
          const count = Math.min(lines, rows - firstRow);
          const slab = file.subarray(firstRow * lineBytes, (firstRow + count) * lineBytes);
          // At the very end of the memory: reading on would trap.
          const source = memory.length - slab.length;
          memory.set(slab, source);
          const piece = { source, lineBytes, firstRow, rows: count, firstColumn: 0, columns: k };
          const record = arena.record(packWords(storage, { address, k }, piece));
          for (let thread = threads - 1; thread >= 0; thread--) kernel(record, thread, threads);
        }
        const got = memory.slice(address, address + room);
        assertSameBytes(got, interleave(storage, file, rows, k, q8), `${name} ${rows} ${blocks}`);
        assert.ok(memory.subarray(address + room, address + room + 64).every((byte) => byte === 0xee));
      }
    });
  }
}

test('a piece that does not begin with a group or cuts a block is refused', () => {
  const piece = { source: 0, lineBytes: 128, firstRow: 0, rows: 16, firstColumn: 0, columns: 64 };
  const matrix = { address: 0, k: 64 };
  assert.throws(() => packWords('f32', matrix, { ...piece, firstRow: 8 }), RangeError);
  assert.throws(() => packWords('q8_0', matrix, { ...piece, columns: 40 }), RangeError);
  assert.throws(() => packWords('q4_0', matrix, { ...piece, firstColumn: 16 }), RangeError);
  assert.equal(packWords('f32', matrix, { ...piece, firstColumn: 16 }).length, 6);
});
