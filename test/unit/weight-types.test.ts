/** Weight types of ggml against golden blocks, and the error of searched scales. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { nodeFolder } from '../../src/formats/adapters/node.ts';
import type { CheckpointTensor } from '../../src/formats/checkpoint.ts';
import { openGguf } from '../../src/formats/gguf.ts';
import { ggmlTypeOf, ggmlTypes } from '../../src/formats/gguf-types.ts';
import { type WeightTypeName, weightType, weightTypes } from '../../src/quant/ggml.ts';
import { quantizationError } from './quantization-error.ts';

const file = (name: string): URL => new URL(`../golden/quant/${name}`, import.meta.url);
const golden = (name: string): Uint8Array => new Uint8Array(readFileSync(file(name)));
const floats = (bytes: Uint8Array): Float32Array => new Float32Array(bytes.slice().buffer);
const names = (Object.keys(weightTypes) as WeightTypeName[]).filter((name) => name !== 'f32');

for (const name of names) {
  const type = weightType(name)!;
  test(`${name}: 64 golden blocks have their values, bit for bit`, () => {
    const got = type.dequantize(golden(`${name}.bin`));
    assert.deepEqual(new Uint32Array(got.buffer), new Uint32Array(floats(golden(`${name}.f32`)).buffer));
  });
  if (existsSync(file(`quantize.${name}.bin`))) {
    test(`${name}: quantizes to the golden bytes`, () => {
      assert.deepEqual(type.quantize!(floats(golden('quantize.in.f32'))), golden(`quantize.${name}.bin`));
    });
  }
}

test('names, numbers and block sizes are those of GGUF', () => {
  for (const [name, { id, block, bytes }] of Object.entries(weightTypes)) {
    assert.deepEqual(ggmlTypes[ggmlTypeOf(id)!], { id, block, bytes }, name);
    assert.equal(ggmlTypeOf(id), name.toUpperCase());
    assert.equal(weightType(name.toUpperCase()), weightType(name));
  }
  assert.equal(weightType('I32'), undefined);
  assert.equal(weightType('constructor'), undefined);
});

/** Approximately normally distributed values, like weights. */
function normal(count: number, seed: number): Float32Array {
  let state = seed;
  const uniform = (): number => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
  return Float32Array.from({ length: count }, () => {
    let sum = -6;
    for (let i = 0; i < 12; i++) sum += uniform();
    return sum * 0.02;
  });
}

test('searched scales bring types nearer to the values than the plain types of as many bits', () => {
  const values = normal(256 * 64, 5);
  const noise = (name: WeightTypeName): number => {
    const { quantize, dequantize } = weightTypes[name];
    return quantizationError(values, dequantize(quantize!(values))).signalToNoise;
  };
  assert.ok(noise('q4_k') > noise('q4_0') + 1.5, `${noise('q4_k')} dB, q4_0 ${noise('q4_0')} dB`);
  assert.ok(noise('iq4_nl') > noise('q4_0') + 0.8, `${noise('iq4_nl')} dB, q4_0 ${noise('q4_0')} dB`);
  assert.ok(noise('q4_k') > noise('q4_1') + 0.3, `${noise('q4_k')} dB, q4_1 ${noise('q4_1')} dB`);
  assert.ok(noise('q5_k') > noise('q5_1') + 0.2, `${noise('q5_k')} dB, q5_1 ${noise('q5_1')} dB`);
  assert.ok(noise('q6_k') > noise('q5_k') + 5, `${noise('q6_k')} dB, q5_k ${noise('q5_k')} dB`);
});

for (const [name, file] of [
  ['q4_k', 'q4_k_m'],
  ['q5_k', 'q5_k_m'],
  ['q6_k', 'q6_k'],
  ['iq4_nl', 'iq4_nl'],
] as const) {
  test(`${name}: as near to a model's weights as the blocks that llama.cpp made of them`, async () => {
    const folder = nodeFolder(fileURLToPath(new URL('../golden/gguf', import.meta.url)));
    const [plain, theirs] = [
      await openGguf(folder, 'llama-256-f16.gguf'),
      await openGguf(folder, `llama-256-${file}.gguf`),
    ];
    const valuesOf = async (tensor: CheckpointTensor): Promise<Float32Array> => {
      const bytes = new Uint8Array(tensor.byteLength);
      await tensor.readInto(0, bytes);
      return weightType(tensor.dtype)!.dequantize(bytes);
    };
    const { quantize, dequantize } = weightTypes[name];
    const differences: number[] = [];
    for (const [key, tensor] of theirs.tensors) {
      if (tensor.dtype.toLowerCase() !== name) continue;
      const values = await valuesOf(plain.tensors.get(key)!);
      const ours = quantizationError(values, dequantize(quantize!(values)));
      differences.push(ours.signalToNoise - quantizationError(values, await valuesOf(tensor)).signalToNoise);
    }
    await Promise.all([plain.close(), theirs.close()]);
    assert.ok(differences.length > 10);
    assert.ok(Math.min(...differences) > -0.2, `${Math.min(...differences)} dB`);
  });
}

for (const name of ['q4_k', 'q5_k', 'q6_k', 'iq4_nl'] as const) {
  const { quantize, dequantize, block } = weightTypes[name];

  test(`${name}: golden values come back with less noise than half a step`, () => {
    // Only blocks with ordinary scales: random bytes may have scales that no quantizer would choose.
    const values = floats(golden('quantize.in.f32')).subarray(0, 256);
    const { signalToNoise } = quantizationError(values, dequantize(quantize!(values)));
    assert.ok(signalToNoise > { q4_k: 20, q5_k: 26, q6_k: 30, iq4_nl: 20 }[name], `${signalToNoise} dB`);
  });

  test(`${name}: values on its own grid are kept, zeros and blocks of one value as well`, () => {
    for (const constant of [0, 0.75, -0.75]) {
      const values = new Float32Array(block).fill(constant);
      const { maxAbsoluteError } = quantizationError(
        values.map((x) => x || 1e-30),
        dequantize(quantize!(values)),
      );
      assert.ok(maxAbsoluteError <= 0.002, `${constant}: ${maxAbsoluteError}`);
    }
    const held = dequantize(quantize!(normal(block, 3)));
    const { signalToNoise } = quantizationError(held, dequantize(quantize!(held)));
    assert.ok(signalToNoise > 35, `${signalToNoise} dB`);
  });

  test(`${name}: an error is at most about two steps of a block, whatever the values`, () => {
    const value = fc.float({ noNaN: true, min: -100, max: 100 }).map((x) => (Math.abs(x) < 1e-2 ? 0 : x));
    fc.assert(
      fc.property(fc.array(value, { minLength: 256, maxLength: 256 }), (list) => {
        const values = Float32Array.from(list);
        const largest = values.reduce((m, x) => Math.max(m, Math.abs(x)), 0);
        const { maxAbsoluteError } = quantizationError(values, dequantize(quantize!(values)));
        const step = {
          q4_k: (2 * largest) / 15,
          q5_k: (2 * largest) / 31,
          q6_k: largest / 32,
          iq4_nl: (2 * largest) / 15,
        }[name];
        assert.ok(maxAbsoluteError <= 2 * step + 1e-6, `${maxAbsoluteError} > ${2 * step}`);
      }),
      { numRuns: 50 },
    );
  });
}
