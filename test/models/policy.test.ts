/** Storage policies on the published shapes: headers without data. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { isShapeName, shapeConfig, shapeTensors } from '../../bench/shapes.ts';
import { OptionError } from '../../src/errors.ts';
import { buildModel, encoderTypes, modelTypes, standardPolicy } from '../../src/models/index.ts';
import { decide, defaultPolicy, parsePolicy } from '../../src/models/policy.ts';

function linearLayers(shape: string, policy: string) {
  assert.ok(isShapeName(shape));
  const { plan } = buildModel(shapeConfig(shape), shapeTensors(shape), { policy: parsePolicy(policy) });
  const layers = plan.weights.filter(({ linear }) => linear);
  return { plan, layers, quantized: layers.filter(({ storage }) => storage.startsWith('q')) };
}

test('GPT-2 counts 73 linear layers: 25 quantized at min-dim 1024, 73 without, as in the report', () => {
  const { layers, quantized } = linearLayers('gpt2', 'q8_0:min-dim=1024');
  assert.deepEqual([quantized.length, layers.length], [25, 73]);
  assert.ok(layers.every(({ role, reason }) => (role === 'attention') === (reason === 'max dim 768 < 1024')));
  assert.equal(linearLayers('gpt2', 'q8_0').quantized.length, 73);
  assert.equal(linearLayers('gpt2', 'none').quantized.length, 0);
});

test('Gemma 3 1B has 183 linear layers and all are quantized at min-dim 1024', () => {
  const { layers, quantized } = linearLayers('gemma3-1b', 'q8_0:min-dim=1024');
  assert.deepEqual([quantized.length, layers.length], [183, 183]);
});

test('encoders are stored as their files have them unless told otherwise, decoders by the threshold', () => {
  for (const model_type of modelTypes) {
    const expected = encoderTypes.includes(model_type) ? 'none' : defaultPolicy;
    assert.equal(standardPolicy({ model_type }), expected, model_type);
  }
  assert.ok(encoderTypes.length > 0 && encoderTypes.length < modelTypes.length);
});

test('a tied head is stored once unless the embedding is to be stored otherwise', () => {
  const shared = linearLayers('gpt2', 'q8_0').plan.weights.filter(({ source }) => source.tensor === 'wte.weight');
  assert.deepEqual(
    shared.map(({ storage, bytes }) => [storage, bytes]),
    [
      ['q8_0', 50257 * 24 * 34],
      ['q8_0', 0],
    ],
  );
  const apart = linearLayers('gpt2', 'q8_0,embedding=f16').plan.weights.filter(
    ({ source }) => source.tensor === 'wte.weight',
  );
  assert.deepEqual(
    apart.map(({ name, storage }) => [name, storage]),
    [
      ['embedding', 'f16'],
      ['output', 'q8_0'],
    ],
  );
});

test('overrides go by role', () => {
  const { layers } = linearLayers('tinyllama-1.1b', 'q8_0,attention=none,ffn=q4_0,output=f16');
  const stored = new Set(layers.map(({ role, storage }) => `${role} ${storage}`));
  assert.deepEqual([...stored].sort(), ['attention bf16', 'ffn q4_0', 'output f16']);
});

test('all linear layers may be floats, large ones alone too', () => {
  const stored = (policy: string) => new Set(linearLayers('gpt2', policy).layers.map(({ storage }) => storage));
  for (const type of ['f16', 'bf16', 'f32'] as const) assert.deepEqual([...stored(type)], [type]);
  assert.deepEqual([...stored('FP16')], ['f16']);
  const { layers } = linearLayers('gpt2', 'f16:min-dim=1024,output=q8_0');
  const kinds = new Set(layers.map(({ role, storage }) => `${role} ${storage}`));
  assert.deepEqual([...kinds].sort(), ['attention f32', 'ffn f16', 'output q8_0']);
});

test('bad policies are refused', () => {
  for (const text of [
    '',
    'q8',
    'q8_0:min-dim=',
    'q8_0:min-dim=-1',
    'none:min-dim=5',
    'q8_0,ffn',
    'q8_0,norm=q8_0',
    'q8_0,ffn=q5',
    'q8_0,ffn=f16,ffn=f32',
  ]) {
    assert.throws(() => parsePolicy(text), OptionError, text);
  }
});

test('a table that no memory holds is quantized, unless nothing is to be', () => {
  const table = [262144, 8960] as const;
  const storageOf = (policy: string, shape: readonly [number, number]): string =>
    decide(parsePolicy(policy), { name: 'embedding', role: 'embedding', shape, stored: 'bf16' }).storage;
  assert.equal(storageOf('q8_0:min-dim=1024', table), 'q8_0');
  assert.equal(storageOf('q8_0,embedding=q4_0', table), 'q4_0');
  assert.equal(storageOf('none', table), 'bf16');
  assert.equal(storageOf('f16', table), 'bf16');
  assert.equal(storageOf('q8_0', [262144, 6400]), 'bf16');
});
