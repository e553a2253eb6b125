/** Weights that become K types while they are read, and blocks that are taken as the file has them. */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import type { TensorData } from '../../src/backend/backend.ts';
import { slabSource, valueBytes } from '../../src/backend/wasm/loading/slab-sources.ts';
import { type PlannedWeight, sourceRow, type WeightSource } from '../../src/plan/step.ts';
import { dequantize, quantize } from '../../src/quant/codec.ts';
import { type Storage, storageBytes } from '../../src/quant/storage.ts';

const COLUMNS = 256;

function tensorOf(shape: readonly [number, number], dtype: TensorData['dtype']): TensorData & { values: Float32Array } {
  const values = Float32Array.from({ length: shape[0] * shape[1] }, (_, i) => Math.sin(i * i));
  const bytes = quantize(dtype, values);
  return {
    dtype,
    shape,
    byteLength: bytes.length,
    values: dequantize(dtype, bytes),
    readInto: async (start, target) => target.set(bytes.subarray(start, start + target.length)),
  };
}

const weight = (rows: number, storage: Storage, source: Partial<WeightSource>): PlannedWeight => ({
  name: 'w',
  role: 'ffn',
  shape: [rows, COLUMNS],
  source: { tensor: 't', transposed: false, first: 0, plus: 0, ...source },
  storage,
  linear: true,
  reason: '',
  bytes: 0,
});

for (const transposed of [false, true]) {
  test(`any bytes of the quantized rows of a weight that is part of a tensor, ${transposed ? '[in, out]' : '[out, in]'}`, async () => {
    const tensor = tensorOf(transposed ? [COLUMNS, 12] : [12, COLUMNS], 'f16');
    const planned = weight(4, 'q4_k', { transposed, first: 1, runs: { rows: 2, stride: 5 } });
    const source = slabSource(planned, 3, tensor);
    assert.equal(source.type, 'q4_k');
    assert.equal(source.quantizes, true);
    assert.deepEqual([...source.shape], [4, COLUMNS]);
    assert.deepEqual(source.weight.source, { tensor: source.name, transposed: false, first: 0, plus: 0 });
    const rows = [0, 1, 2, 3].flatMap((row) => {
      const at = sourceRow(planned.source, row);
      return Array.from({ length: COLUMNS }, (_, c) => tensor.values[transposed ? c * 12 + at : at * COLUMNS + c]!);
    });
    const expected = quantize('q4_k', Float32Array.from(rows));
    assert.equal(expected.length, 4 * COLUMNS * valueBytes('q4_k'));
    const ranges = fc.tuple(fc.nat(expected.length), fc.nat(expected.length));
    await fc.assert(
      fc.asyncProperty(ranges, async ([a, b]) => {
        const [start, end] = [Math.min(a, b), Math.max(a, b)];
        const got = new Uint8Array(end - start);
        await source.readInto(start, got);
        assert.deepEqual(got, expected.subarray(start, end));
      }),
      { numRuns: 30 },
    );
  });
}

test('blocks of the file are taken as they are, for weights of that storage only', async () => {
  const blocks = new Uint8Array(12 * storageBytes('q6_k', COLUMNS)).map((_, i) => i * 7);
  const plain = tensorOf([12, COLUMNS], 'f32');
  const tensor: TensorData = {
    ...plain,
    blocks: {
      storage: 'q6_k',
      readInto: async (start, target) => target.set(blocks.subarray(start, start + target.length)),
    },
  };
  const kept = slabSource(weight(5, 'q6_k', { first: 2 }), 0, tensor);
  assert.deepEqual([kept.type, kept.quantizes, kept.weight.source.first], ['q6_k', false, 2]);
  const got = new Uint8Array(100);
  await kept.readInto(300, got);
  assert.deepEqual(got, blocks.subarray(300, 400));
  assert.notEqual(kept.name, 't', 'another weight may read the same tensor as values');

  for (const storage of ['q8_0', 'f32'] as const) {
    const widened = slabSource(weight(5, storage, {}), 0, tensor);
    assert.deepEqual([widened.name, widened.type, widened.quantizes], ['t', 'f32', false]);
  }
  assert.equal(slabSource(weight(5, 'q4_k', {}), 0, tensor).quantizes, true);
});
