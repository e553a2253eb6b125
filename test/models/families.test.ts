/** Configs of the families: both styles, defaults, refusals, and counting of fused tensors. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { portable } from '../../src/backend/wasm/choosing/choice.ts';
import { chooseKernels } from '../../src/backend/wasm/choosing/probe.ts';
import { nodeHost } from '../../src/backend/wasm/threads/host-node.ts';
import { ModelError } from '../../src/errors.ts';
import { nodeFolder } from '../../src/formats/adapters/node.ts';
import { openCheckpoint } from '../../src/formats/checkpoint.ts';
import { buildModel } from '../../src/models/index.ts';
import { parsePolicy } from '../../src/models/policy.ts';
import type { Plan } from '../../src/plan/step.ts';
import { Runner, readGolden, wasm } from './support.ts';

type Json = Readonly<Record<string, unknown>>;

const folderOf = (name: string): string => fileURLToPath(new URL(`../golden/models/${name}`, import.meta.url));
const configOf = async (name: string): Promise<Json> =>
  JSON.parse(await readFile(`${folderOf(name)}/config.json`, 'utf8'));

/** The plan of a golden case with another config; keys set to undefined are absent. */
async function planWith(name: string, changes: Json, policy = 'none'): Promise<Plan> {
  const checkpoint = await openCheckpoint(nodeFolder(folderOf(name)));
  try {
    const json = JSON.parse(JSON.stringify({ ...(await configOf(name)), ...changes }));
    return buildModel(json, checkpoint.tensors, { policy: parsePolicy(policy) }).plan;
  } finally {
    await checkpoint.close();
  }
}

const longFactors = { long_factor: [1, 1.5, 2.2, 3.1, 4.5, 6], short_factor: [1, 1.02, 1.05, 1.1, 1.2, 1.3] };

/** Case, and the same settings in the other style. */
const styles: readonly [string, Json][] = [
  ['llama-rope-linear', { rope_parameters: { rope_type: 'linear', factor: 4, rope_theta: 10_000 } }],
  ['llama-rope-linear', { rope_scaling: { rope_type: 'linear', factor: 4 } }],
  ['llama-rope-yarn', { rope_parameters: { rope_type: 'yarn', factor: 4, original_max_position_embeddings: 16 } }],
  ['qwen3', { rope_parameters: undefined, rope_theta: 1e6 }],
  ['qwen2', { rope_theta: undefined, rope_parameters: { rope_theta: 1e6, rope_type: 'default' } }],
  [
    'phi3-longrope',
    {
      rope_scaling: undefined,
      partial_rotary_factor: undefined,
      rope_parameters: { rope_type: 'longrope', rope_theta: 10_000, partial_rotary_factor: 0.75, ...longFactors },
    },
  ],
  ['phi3-longrope', { rope_scaling: { type: 'su', ...longFactors } }],
  ['phi', { partial_rotary_factor: undefined, rope_theta: undefined }],
  [
    'stablelm',
    { rope_parameters: { rope_theta: 10_000, partial_rotary_factor: 0.25 }, partial_rotary_factor: undefined },
  ],
  [
    'gpt-neox',
    {
      rotary_pct: undefined,
      rotary_emb_base: undefined,
      rope_parameters: { rope_theta: 10_000, partial_rotary_factor: 0.25, rope_type: 'default' },
    },
  ],
  [
    'gemma3',
    {
      rope_theta: undefined,
      rope_local_base_freq: undefined,
      rope_parameters: {
        full_attention: { rope_type: 'default', rope_theta: 1e6 },
        sliding_attention: { rope_type: 'default', rope_theta: 100 },
      },
    },
  ],
];

test('both styles of rope settings mean the same', async () => {
  for (const [name, other] of styles) {
    const changes = 'rope_parameters' in other ? { rope_scaling: undefined, ...other } : other;
    assert.deepEqual((await planWith(name, changes)).ropes, (await planWith(name, {})).ropes, JSON.stringify(other));
  }
});

/** Case, absent keys, and their defaults. */
const defaults: readonly [string, Json][] = [
  ['mistral-window', { sliding_window: 4096 }],
  ['qwen2', { use_sliding_window: false, rope_theta: 10_000 }],
  ['qwen2-window', { max_window_layers: 28 }],
  ['qwen3', { rope_parameters: { rope_theta: 10_000, rope_type: 'default' }, attention_bias: false }],
  ['smollm3', { rope_theta: 2e6, no_rope_layers: [1, 0, 1, 0], tie_word_embeddings: true }],
  ['olmo2', { rms_norm_eps: 1e-5, tie_word_embeddings: false }],
  ['granite', { attention_multiplier: 1, embedding_multiplier: 1, residual_multiplier: 1, logits_scaling: 1 }],
  ['gemma', { hidden_act: 'gelu_pytorch_tanh', tie_word_embeddings: true }],
  ['gemma2', { attn_logit_softcapping: 50, final_logit_softcapping: 30, query_pre_attn_scalar: 256 }],
  ['gemma3', { rope_theta: 1e6, rope_local_base_freq: 10_000, sliding_window_pattern: 6 }],
  ['phi', { layer_norm_eps: 1e-5, hidden_act: 'gelu_new' }],
  ['gpt-neox', { hidden_act: 'gelu', use_parallel_residual: true, attention_bias: true }],
  ['starcoder2', { use_bias: true, sliding_window: null, tie_word_embeddings: true }],
  ['falcon-7b', { parallel_attn: true, multi_query: true, alibi: false, bias: false, tie_word_embeddings: true }],
  ['falcon-40b', { num_ln_in_parallel_attn: 2, activation: 'gelu' }],
];

test('absent keys stand for the defaults of transformers', async () => {
  for (const [name, values] of defaults) {
    const absent = Object.fromEntries(Object.keys(values).map((key) => [key, undefined]));
    assert.deepEqual(await planWith(name, absent), await planWith(name, values), `${name} ${JSON.stringify(values)}`);
  }
});

/** Case, an invalid setting, and its error. */
const refusals: readonly [string, Json, RegExp][] = [
  ['qwen2', { hidden_act: 'mish' }, /hidden_act must be one of silu, .*, found "mish"/],
  ['qwen3', { rope_parameters: { rope_type: 'dynamic', factor: 2 } }, /rope_parameters: rope_type must be .*"dynamic"/],
  ['qwen2-window', { layer_types: ['full_attention'] }, /layer_types must be 3 times/],
  ['qwen2-window', { layer_types: ['full_attention', 'chunked', 'full_attention'] }, /layer_types.*"chunked"/],
  ['smollm3', { no_rope_layers: [1, 0, 2, 1] }, /no_rope_layers must be a list of 4 times 0 or 1, found \[1,0,2,1\]/],
  [
    'phi3-longrope',
    { rope_scaling: { ...longFactors, type: 'longrope', long_factor: [1] } },
    /long_factor must be .* 6/,
  ],
  ['phi', { partial_rotary_factor: 1.5 }, /partial_rotary_factor must be at most 1, found 1.5/],
  ['gemma', { use_bidirectional_attention: true }, /use_bidirectional_attention must be false/],
  ['gemma2', { final_logit_softcapping: -1 }, /final_logit_softcapping must be a number above 0, found -1/],
  ['gemma4', { enable_moe_block: true }, /num_experts must be an integer/],
  ['gemma4', { num_kv_shared_layers: 4 }, /num_kv_shared_layers must be few enough that a layer of each kind remains/],
  ['falcon-40b', { parallel_attn: false }, /parallel_attn must be true where new_decoder_architecture is/],
  ['falcon-40b', { num_kv_heads: 4 }, /num_kv_heads must be a divisor of num_attention_heads 6, found 4/],
  ['granite', { quantization_config: { quant_method: 'gptq' } }, /quantization_config must be absent.*gptq/],
];

test('settings that are not supported are refused by name, with what was found', async () => {
  for (const [name, changes, message] of refusals) {
    await assert.rejects(planWith(name, changes), (error) => {
      assert.ok(error instanceof ModelError);
      assert.match(error.message, message);
      return true;
    });
  }
});

test('fused tensors count, and are judged, as the layers they hold', async () => {
  for (const [name, count] of [
    ['phi3', 2 * 7 + 1],
    ['gpt-neox', 3 * 6 + 1],
    ['falcon-7b', 2 * 6 + 1],
    ['falcon-40b', 2 * 6 + 1],
  ] as const) {
    const { weights } = await planWith(name, {}, 'q8_0');
    assert.equal(weights.filter(({ linear }) => linear).length, count, name);
  }
  // q has 96 rows, k and v have 16: fused they would be 128.
  const { weights } = await planWith('falcon-7b', {}, 'q8_0:min-dim=97');
  const q = weights.find(({ name }) => name === 'layers.0.attention.q')!;
  assert.deepEqual([q.shape, q.reason], [[96, 96], 'max dim 96 < 97']);
});

for (const name of ['falcon-40b', 'gpt-neox', 'phi3', 'gemma4']) {
  test(`${name}, quantized: bits do not depend on threads or instructions`, async () => {
    const [{ ids }] = (await readGolden(name)).inputs;
    for (const policy of ['q8_0', 'q4_0']) {
      const [one, three] = await Promise.all(
        [wasm(1, portable), wasm(3, chooseKernels(nodeHost()))].map(async (make) => {
          const runner = await Runner.open(name, make, policy);
          const logits = (await runner.run(ids, 17)).get('logits')!;
          await runner.close();
          return logits;
        }),
      );
      assert.deepEqual(one, three, policy);
    }
  });
}
