import assert from 'node:assert/strict';
import test from 'node:test';
import { iq4Format, iq4UnpackedPanel } from '../../src/kernels/iq4.ts';
import {
  type ActivationFormat,
  activationBlockBytes,
  activationStride,
  groupBytes,
  groupsOf,
  interleave,
  LANES,
  padded,
  type Q8Layout,
  stepBytes,
  stepsOf,
} from '../../src/kernels/layout.ts';
import { matmulKernel, matmulRecord } from '../../src/kernels/matmul.ts';
import { formatPanel, formatRow } from '../../src/kernels/matmul-block.ts';
import { floatPanel, floatRow, unpackLines } from '../../src/kernels/matmul-float.ts';
import { kMatmulKernel } from '../../src/kernels/matmul-k.ts';
import { q4Format, q4UnpackedPanel } from '../../src/kernels/q4.ts';
import { q8Format, q8WidenedPanel } from '../../src/kernels/q8.ts';
import { quantizeName, quantizeRowsKernel, quantizeRowsRecord } from '../../src/kernels/quantize-rows.ts';
import { CLAIMS_AT } from '../../src/kernels/record.ts';
import type { TileShape } from '../../src/kernels/tile.ts';
import { quantizeActivations } from '../../src/quant/activations.ts';
import { dequantize, quantize } from '../../src/quant/codec.ts';
import { fromF16, toF16 } from '../../src/quant/f16.ts';
import { readScale } from '../../src/quant/k-scales.ts';
import type { FloatStorage } from '../../src/quant/storage.ts';
import { type BlockStorage, isBlockStorage, type Storage, storageLayout } from '../../src/quant/storage.ts';
import type { Module } from '../../src/wasm/assembler.ts';
import { Arena, assertSameBits, noise, randoms, runSplit } from './support.ts';

const { fround } = Math;

interface Variant {
  readonly label: string;
  readonly storage: Storage;
  readonly shape: TileShape;
  readonly wide: boolean;
  readonly q8?: Q8Layout;
  readonly codes?: (byte: number) => number;
  readonly activation?: ActivationFormat;
  emit(module: Module): void;
}

const shapes: TileShape[] = [
  { tokens: 4, lanes: 16 },
  { tokens: 6, lanes: 8 },
  { tokens: 1, lanes: 16 },
];

/** Number of rows from which on these tests unpack weights. */
const UNPACKED_ROWS = 9;

function floatProduct(module: Module, storage: FloatStorage, shape: TileShape): void {
  matmulKernel(module, storage, stepBytes(storage), {
    row: floatRow(module, storage),
    panel: floatPanel(module, storage, shape),
    unpacked:
      storage === 'f32'
        ? undefined
        : {
            ...floatPanel(module, 'f32', shape),
            unpack: unpackLines(module, storage),
            steps: 1,
            leastRows: UNPACKED_ROWS,
          },
  });
}

function floatVariants(storage: FloatStorage): Variant[] {
  return shapes.flatMap((shape) =>
    [false, true].map((wide) => ({
      label: `${storage} ${shape.tokens}x${shape.lanes} ${wide ? 'wide' : 'narrow'}`,
      storage,
      shape,
      wide,
      emit: (module: Module) => floatProduct(module, storage, shape),
    })),
  );
}

/** A block storage with one choice of instructions. */
interface BlockChoice {
  readonly label: string;
  readonly storage: BlockStorage;
  readonly activation: ActivationFormat;
  readonly q8?: Q8Layout;
  /** Turns a byte into one whose weights fit the seven bits that relaxed dot products promise; default: all do. */
  readonly codes?: (byte: number) => number;
  product(module: Module, shape: TileShape): void;
}

const dots = ['strict', 'pairs', 'quads'] as const;

const [noBit, eighthBit] = [(byte: number) => byte & 0x7f, (byte: number) => byte | 0x80];
/** Levels of iq4_nl are negative in the lower half of the table. */
const [lowNibbles, highNibbles] = [(byte: number) => byte & 0x77, (byte: number) => byte | 0x88];
const [pairs, signed, unsigned] = [
  { neighbours: 2, flip: 0 },
  { neighbours: 4, flip: 0 },
  { neighbours: 4, flip: 0x80 },
] as const;

function q8Choice(label: string, q8: Q8Layout, codes?: BlockChoice['codes']): BlockChoice {
  const format = q8Format(q8);
  const product = (m: Module, shape: TileShape) =>
    matmulKernel(m, 'q8_0', stepBytes('q8_0'), {
      row: formatRow(m, format),
      panel: { ...formatPanel(m, format, shape), fetchedRows: shape.tokens + 1 },
      unpacked: q8.neighbours === 2 ? q8WidenedPanel(m, shape, UNPACKED_ROWS) : undefined,
    });
  return { label: `q8_0 ${label}`, storage: 'q8_0', activation: format.activation, q8, codes, product };
}

function iq4Choice(label: string, q8: Q8Layout, relaxed: boolean, codes?: BlockChoice['codes']): BlockChoice {
  const dot = { relaxed, q8 };
  const format = iq4Format(dot);
  const product = (m: Module, shape: TileShape) =>
    matmulKernel(m, 'iq4_nl', stepBytes('iq4_nl'), {
      row: formatRow(m, format),
      unpacked: iq4UnpackedPanel(m, dot, shape, 2),
    });
  return { label: `iq4_nl ${label}`, storage: 'iq4_nl', activation: format.activation, codes, product };
}

const blockChoices: readonly BlockChoice[] = [
  q8Choice('pairs', pairs),
  // Results with the eighth bit depend on the machine; without it they are the same everywhere.
  q8Choice('quads, signed', signed, noBit),
  q8Choice('quads, unsigned', unsigned, eighthBit),
  iq4Choice('pairs', pairs, false),
  iq4Choice('pairs, relaxed', pairs, true),
  iq4Choice('quads, signed', signed, true, highNibbles),
  iq4Choice('quads, unsigned', unsigned, true, lowNibbles),
  ...dots.flatMap((dot): BlockChoice[] => {
    const format = q4Format(dot);
    const activation = { values: 'int8' } as const;
    return [
      {
        label: `q4_0 ${dot}`,
        storage: 'q4_0',
        activation,
        product: (m, shape) =>
          matmulKernel(m, 'q4_0', stepBytes('q4_0'), {
            row: formatRow(m, format),
            panel: formatPanel(m, format, shape),
            unpacked: q4UnpackedPanel(m, dot, shape, UNPACKED_ROWS),
          }),
      },
      ...(['q4_k', 'q5_k', 'q6_k'] as const).map((storage) => ({
        label: `${storage} ${dot}`,
        storage,
        activation,
        product: (m: Module, shape: TileShape) => kMatmulKernel(m, storage, shape, dot),
      })),
    ];
  }),
];

const blockVariants = (): Variant[] =>
  blockChoices.flatMap(({ label, storage, activation, q8, codes, product }) =>
    shapes.flatMap((shape) =>
      [false, true].map((wide) => ({
        label: `${label} ${shape.tokens}x${shape.lanes} ${wide ? 'wide' : 'narrow'}`,
        storage,
        shape,
        wide,
        q8,
        codes,
        activation,
        emit: (module: Module) => {
          product(module, shape);
          quantizeRowsKernel(module, activation, 'rows');
        },
      })),
    ),
  );

/** Weights in a file's blocks: random bytes, with normal and subnormal scales of both signs. */
function weightBytes({ storage, codes }: Variant, n: number, k: number): Uint8Array {
  if (!isBlockStorage(storage)) return quantize(storage, randoms(n * k, 7 * n + k, 0.1));
  const { block, bytes } = storageLayout[storage];
  const random = noise(7 * n + k);
  const file = new Uint8Array(((n * k) / block) * bytes).map(() => {
    const byte = Math.floor((random() + 1) * 128);
    return codes ? codes(byte) : byte;
  });
  const view = new DataView(file.buffer);
  const scalesAt = { q8_0: [0], q4_0: [0], iq4_nl: [0], q4_k: [0, 2], q5_k: [0, 2], q6_k: [208] }[storage];
  for (let at = 0; at < file.length; at += bytes)
    for (const offset of scalesAt) view.setUint16(at + offset, toF16(random() * (at % 5 ? 0.02 : 3e-5)), true);
  return file;
}

/**
 * The integers and scales of a row's block of 32 (q6_k: halves of 16): code q stands for scale * (q - offset) -
 * minimum.
 */
interface ScaledBlock {
  readonly scale: number;
  readonly minimum: number;
  /** Integer scales of both halves. */
  readonly halves: readonly [number, number];
}

function scalesOf(storage: BlockStorage, w: Uint8Array, row: number, b: number, k: number): ScaledBlock {
  const { block, bytes } = storageLayout[storage];
  const view = new DataView(w.buffer, w.byteOffset);
  const at = (row * (k / block) + Math.floor((b * 32) / block)) * bytes;
  const half = (offset: number): number => fromF16(view.getUint16(at + offset, true));
  if (storage === 'q6_k') {
    const s = (i: number): number => view.getInt8(at + 192 + 2 * (b % 8) + i);
    return { scale: half(208), minimum: 0, halves: [s(0), s(1)] };
  }
  if (storageLayout[storage].block === 32) return { scale: half(0), minimum: 0, halves: [1, 1] };
  const { s, m } = readScale(view, at + 4, b % 8);
  return { scale: half(0) * s, minimum: half(2) * m, halves: [1, 1] };
}

/** The definition, f32 after every step. Bias, then what out held. */
function expected(
  storage: Storage,
  x: Float32Array,
  w: Uint8Array,
  n: number,
  k: number,
  bias: Float32Array,
  old: Float32Array,
): Float32Array {
  const tokens = x.length / k;
  const values = dequantize(storage, w);
  const out = new Float32Array(tokens * n);
  for (let t = 0; t < tokens; t++) {
    const row = x.subarray(t * k, (t + 1) * k);
    for (let r = 0; r < n; r++) {
      let sum = 0;
      if (isBlockStorage(storage)) {
        const { scales, q } = quantizeActivations(row);
        for (let b = 0; b < k / 32; b++) {
          const { scale, minimum, halves } = scalesOf(storage, w, r, b, k);
          let [dot, total] = [0, 0];
          for (let i = 0; i < 32; i++) {
            const s = halves[i < 16 ? 0 : 1];
            // What the values were made of, exactly: their integers are small.
            const code = scale * s === 0 ? 0 : Math.round((values[r * k + b * 32 + i]! + minimum) / (scale * s));
            dot += s * code * q[b * 32 + i]!;
            total += q[b * 32 + i]!;
          }
          sum =
            storageLayout[storage].block === 32
              ? fround(sum + fround(dot * fround(scale * scales[b]!)))
              : fround(sum + fround(fround(fround(dot * scale) - fround(total * minimum)) * scales[b]!));
        }
      } else {
        for (let i = 0; i < k; i++) sum = fround(sum + fround(row[i]! * values[r * k + i]!));
      }
      out[t * n + r] = fround(fround(sum + bias[r]!) + old[t * n + r]!);
    }
  }
  return out;
}

function check(variant: Variant, tokens: number, n: number, k: number): void {
  const { storage, activation } = variant;
  const arena = new Arena();
  const exports = arena.compile(variant.emit, variant.wide);
  const x = randoms(tokens * k, n + k);
  const w = weightBytes(variant, n, k);
  const [bias, old] = [randoms(n, 3), randoms(tokens * n, 4)];
  const rows = arena.putI32([tokens]);
  const packed = arena.putBytes(interleave(storage, w, n, k, variant.q8 ?? { neighbours: 2, flip: 0 }));
  const biasAt = arena.putF32([...bias, ...new Float32Array(padded(n) - n)]);
  let [input, inputStride] = [arena.putRows(x, k), padded(k) * 4];
  if (activation) {
    const stride = activationStride(activation, k);
    const out = arena.take(stride * tokens);
    const record = arena.record(quantizeRowsRecord.words({ x: input, out, outStride: stride, rows, width: k }));
    runSplit(exports[quantizeName(activation, 'rows')]!, record, 2);
    [input, inputStride] = [out, stride];
  }
  const want = expected(storage, x, w, n, k, bias, old);
  for (const threads of [1, 2, 3]) {
    const out = arena.putRows(old, n);
    const bytes = groupBytes(storage, k);
    const record = arena.record(
      matmulRecord.words({
        x: input,
        xStride: inputStride,
        w: packed,
        groupBytes: bytes,
        bias: biasAt,
        out,
        outStride: padded(n) * 4,
        steps: stepsOf(storage, k),
        groups: groupsOf(n),
        rows,
        add: 1,
      }),
    );
    runSplit(exports[`matmul_${storage}`]!, record, threads);
    assertSameBits(arena.rows(out, tokens, n), want, `${variant.label} ${tokens}x${n}x${k} on ${threads}`);
    // Reset for the next run of the same record.
    assert.equal(arena.i32(record + CLAIMS_AT, 1)[0], 0);
  }
}

for (const variant of [...floatVariants('f32'), ...floatVariants('f16'), ...floatVariants('bf16')]) {
  test(`product with ${variant.label} has the definition's bits`, () => {
    for (const [tokens, n, k] of [
      [1, 16, 1],
      [1, 50, 21],
      [1, 20, 64 + 32 + 7],
      [7, 33, 20],
      [13, 100, 67],
    ] as const)
      check(variant, tokens, n, k);
  });
}
for (const variant of blockVariants()) {
  test(`product with ${variant.label} has the definition's bits`, () => {
    const { block } = storageLayout[variant.storage];
    for (const [tokens, n, blocks] of [
      [1, 16, 1],
      [1, 50, 3],
      [1, 20, block === 32 ? 19 : 2],
      [7, 33, 2],
      [13, 100, block === 32 ? 8 : 1],
    ] as const)
      check(variant, tokens, n, blocks * block);
  });
}

test('weights in several pieces, and more rows than one pass over a piece takes, give the same bits', () => {
  const variants = [...floatVariants('f32'), ...floatVariants('bf16'), ...blockVariants()];
  for (const variant of variants.filter(({ shape, wide }) => wide && shape.tokens === 4)) {
    check(variant, 5, 17, 1792);
    check(variant, 131, 17, 1792);
  }
});

test('f16 weights are widened exactly, subnormal ones and large activations included', () => {
  const arena = new Arena();
  const exports = arena.compile((module) => floatProduct(module, 'f16', shapes[0]!));
  const halves = Uint16Array.from(
    { length: LANES },
    (_, i) => [0x0001, 0x8001, 0x03ff, 0x0400, 0x7bff, 0xfbff, 0x3c00, 0x0000][i % 8]!,
  );
  const out = arena.take(64);
  exports.matmul_f16!(
    arena.record(
      matmulRecord.words({
        x: arena.putF32([1e5]),
        xStride: 64,
        w: arena.putBytes(new Uint8Array(halves.buffer)),
        groupBytes: 32,
        bias: 0,
        out,
        outStride: 64,
        steps: 1,
        groups: 1,
        rows: arena.putI32([1]),
        add: 0,
      }),
    ),
    0,
    1,
  );
  assert.deepEqual(
    [...arena.f32(out, LANES)],
    [...halves].map((h) => fround(1e5 * fromF16(h))),
  );
});

test('rows are quantized as defined: zeros, subnormal, huge and broken blocks too', () => {
  const rows = [
    ...randoms(64, 1),
    ...new Float32Array(32),
    ...randoms(32, 2, 1e-40),
    ...randoms(32, 3, 1e-37),
    ...randoms(32, 5, 3e5),
    ...Float32Array.from({ length: 32 }, (_, i) => i - 0.5),
    ...Float32Array.from({ length: 32 }, (_, i) => (i % 2 ? 127 : 0.5 + i)),
    ...Float32Array.from({ length: 32 }, (_, i) => (i === 5 ? NaN : i)),
    ...Float32Array.from({ length: 32 }, (_, i) => (i === 7 ? -Infinity : i)),
  ];
  const formats = [{ values: 'int16' }, { values: 'int8' }] as const;
  const divisions = formats.flatMap((format) => (['rows', 'columns'] as const).map((by) => ({ format, by })));
  for (const { format, by } of divisions) {
    const arena = new Arena();
    const exports = arena.compile((module) => quantizeRowsKernel(module, format, by));
    const [width, count] = [64, rows.length / 64];
    const stride = activationStride(format, width);
    const out = arena.take(stride * count);
    const record = arena.record(
      quantizeRowsRecord.words({
        x: arena.putRows(rows, width),
        out,
        outStride: stride,
        rows: arena.putI32([count]),
        width,
      }),
    );
    runSplit(exports[quantizeName(format, by)]!, record, 2);
    const view = new DataView(arena.memory.buffer);
    for (let b = 0; b < rows.length / 32; b++) {
      const at = out + Math.floor(b / 2) * stride + (b % 2) * activationBlockBytes(format);
      const { scales, q } = quantizeActivations(Float32Array.from(rows.slice(b * 32, b * 32 + 32)));
      assert.equal(view.getFloat32(at, true), fround(scales[0]! * 2 ** 112), `scale of block ${b}`);
      const sum = (half: number): number => q.subarray(16 * half, 16 * half + 16).reduce((x, y) => x + y, 0);
      assert.deepEqual([view.getInt16(at + 4, true), view.getInt16(at + 6, true)], [sum(0), sum(1)]);
      const got = Array.from(q, (_, i) =>
        format.values === 'int8' ? view.getInt8(at + 8 + i) : view.getInt16(at + 8 + 2 * i, true),
      );
      assert.deepEqual(got, [...q], `block ${b}`);
    }
  }
});
