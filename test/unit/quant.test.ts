/** Scalar quantizers of the storage types against golden bytes, and their properties. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import fc from 'fast-check';
import { dequantizeActivations, quantizeActivations } from '../../src/quant/activations.ts';
import { fromBF16, toBF16 } from '../../src/quant/bf16.ts';
import { dequantize, quantize } from '../../src/quant/codec.ts';
import { fromF16, toF16 } from '../../src/quant/f16.ts';
import { type Storage, storageBytes, storageLayout } from '../../src/quant/storage.ts';
import { quantizationError } from './quantization-error.ts';

const golden = (name: string): Uint8Array =>
  new Uint8Array(readFileSync(new URL(`../golden/quant/${name}`, import.meta.url)));
const floats = (bytes: Uint8Array): Float32Array => new Float32Array(bytes.slice().buffer);
const bitsOf = (values: Float32Array): Uint32Array => new Uint32Array(values.slice().buffer);

const formats: readonly Storage[] = ['f16', 'bf16', 'q8_0', 'q4_0'];
const blockFormats = ['q8_0', 'q4_0'] as const;

for (const storage of formats) {
  test(`${storage}: quantizes to the golden bytes`, () => {
    assert.deepEqual(quantize(storage, floats(golden('quantize.in.f32'))), golden(`quantize.${storage}.bin`));
  });

  test(`${storage}: dequantizes to the golden values, bit for bit`, () => {
    const values = dequantize(storage, golden(`${storage}.bin`));
    assert.deepEqual(bitsOf(values), bitsOf(floats(golden(`${storage}.f32`))));
  });
}

test('block sizes are those of GGUF', () => {
  assert.deepEqual(storageLayout.q8_0, { block: 32, bytes: 34 });
  assert.deepEqual(storageLayout.q4_0, { block: 32, bytes: 18 });
  for (const storage of formats)
    assert.equal(quantize(storage, new Float32Array(64)).length, storageBytes(storage, 64), storage);
});

test('f16: every one of the 65,536 patterns survives the way to a number and back', () => {
  for (let half = 0; half < 65536; half++) {
    const value = fromF16(half);
    const expected = Number.isNaN(value) ? (half & 0x8000) | 0x7e00 : half;
    // The sign of a NaN is lost in a number.
    assert.equal(
      toF16(value) & (Number.isNaN(value) ? 0x7fff : 0xffff),
      expected & (Number.isNaN(value) ? 0x7fff : 0xffff),
    );
  }
});

test('f16: rounds to the nearest, ties to even, at every boundary between neighbours', () => {
  for (let half = 0; half < 0x7c00; half++) {
    const next = half === 0x7bff ? 65536 : fromF16(half + 1);
    const middle = (fromF16(half) + next) / 2;
    const even = half + (half & 1);
    assert.equal(toF16(middle), even, `half way above ${half}`);
    assert.equal(toF16(below(middle)), half);
    assert.equal(toF16(above(middle)), half + 1);
    assert.equal(toF16(-middle), 0x8000 | even);
  }
});

test('bf16: every pattern but NaN survives, ties go to even', () => {
  for (let upper = 0; upper < 65536; upper++) {
    const value = fromBF16(upper);
    if (Number.isNaN(value)) assert.ok(Number.isNaN(fromBF16(toBF16(value))));
    else assert.equal(toBF16(value), upper);
  }
  assert.equal(toBF16(1 + 2 ** -8), 0x3f80);
  assert.equal(toBF16(1 + 3 * 2 ** -8), 0x3f82);
  assert.equal(toBF16(above(1 + 2 ** -8)), 0x3f81);
  assert.equal(toBF16(3.4e38), 0x7f80);
});

const ordinary = fc.float({ noNaN: true, min: -1000, max: 1000 });
const block = fc
  .array(ordinary, { minLength: 32, maxLength: 32 })
  .map((values) => Float32Array.from(values, (x) => (Math.abs(x) < 1e-3 ? 0 : x)));

for (const storage of blockFormats) {
  test(`${storage}: an error is at most half a step, a whole one at the far end of q4_0`, () => {
    fc.assert(
      fc.property(block, (values) => {
        const largest = values.reduce((m, x) => Math.max(m, Math.abs(x)), 0);
        const step = largest / (storage === 'q8_0' ? 127 : 8);
        // f16 rounds the scale by at most 2^-11 of it, or by 2^-25 where it is subnormal.
        const scaleError = largest * 2 ** -11 + 128 * 2 ** -25;
        const { maxAbsoluteError } = quantizationError(values, dequantize(storage, quantize(storage, values)));
        const bound = (storage === 'q8_0' ? 0.5 : 1) * step * (1 + 1e-5) + scaleError;
        assert.ok(maxAbsoluteError <= bound, `${maxAbsoluteError} > ${bound}`);
      }),
    );
  });

  test(`${storage}: blocks are independent of their neighbours`, () => {
    fc.assert(
      fc.property(block, block, (a, b) => {
        const both = quantize(storage, Float32Array.of(...a, ...b));
        assert.deepEqual(both, Uint8Array.of(...quantize(storage, a), ...quantize(storage, b)));
      }),
    );
  });
}

test('q4_0: the first of two largest magnitudes decides the sign of the scale; zeros give -0', () => {
  const values = new Float32Array(32);
  assert.deepEqual([...quantize('q4_0', values)], [0x00, 0x80, ...Array<number>(16).fill(0x88)]);
  values[3] = -2;
  values[9] = 2;
  assert.equal(quantize('q4_0', values)[1]! >> 7, 0);
  values[1] = 2;
  assert.equal(quantize('q4_0', values)[1]! >> 7, 1);
});

test('q8_0: halves are rounded away from zero', () => {
  const values = new Float32Array(32);
  values.set([127, 0.5, -0.5, 1.5, 2.5, -2.5, below(0.5)]);
  assert.deepEqual([...new Int8Array(quantize('q8_0', values).buffer, 2, 7)], [127, 1, -1, 2, 3, -3, 0]);
});

test('blocks too small for the inverse of their scale are stored as zeros', () => {
  const values = new Float32Array(32).fill(2 ** -140);
  values[5] = 0;
  assert.deepEqual(quantize('q8_0', values), new Uint8Array(34));
  assert.deepEqual(dequantize('q4_0', quantize('q4_0', values)).map(Math.abs), new Float32Array(32));
  const { q } = quantizeActivations(values);
  assert.deepEqual(q, new Int8Array(32));
});

test('activations: halves are rounded to even, the largest magnitude is 127, the error is at most half a step', () => {
  const row = new Float32Array(64);
  row.set([127, 0.5, 1.5, -2.5, 3.5]);
  const { q, scales } = quantizeActivations(row);
  assert.deepEqual([...q.subarray(0, 5)], [127, 0, 2, -2, 4]);
  assert.deepEqual([...scales], [1, 0]);
  fc.assert(
    fc.property(block, (values) => {
      const largest = values.reduce((m, x) => Math.max(m, Math.abs(x)), 0);
      const quantized = quantizeActivations(values);
      assert.equal(
        quantized.q.reduce((m, x) => Math.max(m, Math.abs(x)), 0),
        largest === 0 ? 0 : 127,
      );
      const { maxAbsoluteError } = quantizationError(values, dequantizeActivations(quantized));
      assert.ok(maxAbsoluteError <= (largest / 254) * (1 + 1e-5));
    }),
  );
});

test('errors of known arrays', () => {
  const error = quantizationError(Float32Array.of(3, 4), Float32Array.of(3, 3.5));
  assert.equal(error.meanSquaredError, 0.125);
  assert.equal(error.maxAbsoluteError, 0.5);
  assert.equal(error.signalToNoise, 20);
  assert.equal(quantizationError(Float32Array.of(1), Float32Array.of(1)).signalToNoise, Number.POSITIVE_INFINITY);
  assert.throws(() => quantizationError(new Float32Array(2), new Float32Array(3)), RangeError);
});

/** The neighbouring f32 towards zero of a positive number. */
function below(value: number): number {
  return neighbour(value, -1);
}

/** The neighbouring f32 away from zero of a positive number. */
function above(value: number): number {
  return neighbour(value, 1);
}

function neighbour(value: number, step: number): number {
  const bits = bitsOf(Float32Array.of(value));
  bits[0]! += step;
  return new Float32Array(bits.buffer)[0]!;
}
