import assert from 'node:assert/strict';
import test from 'node:test';
import { shapeConfig, shapeTensors } from '../../bench/shapes.ts';
import { ModelError } from '../../src/errors.ts';
import { buildModel } from '../../src/models/index.ts';
import { parsePolicy } from '../../src/models/policy.ts';

const options = { policy: parsePolicy('none') };
const config = (changes: object): object => ({ ...(shapeConfig('tinyllama-1.1b') as object), ...changes });
const tensors = shapeTensors('tinyllama-1.1b');

const refused = (json: unknown, message: RegExp, of: Parameters<typeof buildModel>[1] = tensors): void =>
  assert.throws(
    () => buildModel(json, of, options),
    (error) => error instanceof ModelError && message.test(error.message),
    String(message),
  );

test('an unknown model_type answers with the known ones', () => {
  refused(config({ model_type: 'parrot' }), /"parrot" is not known; known are gpt2, llama, mistral, /);
  refused(config({ model_type: '__proto__' }), /known are/);
  refused({}, /model_type is missing/);
  refused([], /expected an object/);
});

test('bad values name their key', () => {
  refused(config({ num_attention_heads: 0 }), /num_attention_heads must be an integer from 1/);
  refused(config({ num_key_value_heads: 3 }), /num_key_value_heads must be a divisor/);
  refused(
    config({ num_attention_heads: 7, num_key_value_heads: 7 }),
    /num_attention_heads must be a divisor of hidden_size/,
  );
  refused(config({ hidden_size: 1.5 }), /hidden_size/);
  refused(config({ num_hidden_layers: 2 ** 31 }), /num_hidden_layers/);
  refused(config({ rms_norm_eps: Number.NaN }), /rms_norm_eps must be a number above 0/);
  refused(config({ rms_norm_eps: '1e-5' }), /rms_norm_eps/);
  refused(config({ hidden_act: 'mish' }), /hidden_act must be one of silu/);
  refused(
    config({ rope_scaling: { rope_type: 'dynamic', factor: 2 } }),
    /rope_type must be default, linear, llama3, yarn, longrope or proportional, found "dynamic"/,
  );
  refused(config({ eos_token_id: [2, -1] }), /eos_token_id/);
  refused(config({ quantization_config: { bits: 4 } }), /quantization_config must be absent.*found \{"bits":4\}/);
});

test('every missing, extra and misshapen tensor is named in one error', () => {
  const broken = new Map<string, { dtype: string; shape: readonly number[] }>(tensors);
  broken.delete('model.norm.weight');
  broken.set('model.layers.3.mlp.up_proj.weight', { dtype: 'BF16', shape: [5632, 2047] });
  broken.set('model.layers.4.mlp.up_proj.weight', { dtype: 'I8', shape: [5632, 2048] });
  broken.set('surprise', { dtype: 'F32', shape: [1] });
  assert.throws(
    () => buildModel(config({}), broken, options),
    (error) => {
      assert.ok(error instanceof ModelError);
      assert.deepEqual([...error.problems].sort(), [
        'model.layers.3.mlp.up_proj.weight: expected [5632, 2048], found [5632, 2047]',
        'model.layers.4.mlp.up_proj.weight: expected [5632, 2048], found dtype I8, which cannot hold weights',
        'model.norm.weight: expected [2048], missing',
        'surprise: not expected, found [1]',
      ]);
      return true;
    },
  );
});

test('a config that claims layers or experts without end is refused at once', { timeout: 5000 }, () => {
  const most = 2 ** 24;
  const missing = /at least 100 tensors do not fit config.json/;
  refused(config({ num_hidden_layers: most }), missing);
  refused(config({ model_type: 'gemma3_text', num_hidden_layers: most, head_dim: 64 }), missing);
  refused(config({ model_type: 'mixtral', num_local_experts: most, num_experts_per_tok: 2 }), missing);
});
