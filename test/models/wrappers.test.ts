/** Models with a nested text part, and files with other tensor names: the same plans as the plain model. */
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { nodeFolder, type TensorToWrite, writeSafeTensors } from '../../src/formats/adapters/node.ts';
import { openCheckpoint, readJson } from '../../src/formats/checkpoint.ts';
import { buildModel, tensorsToCompare } from '../../src/models/index.ts';
import { planDifference } from '../../src/models/plan-difference.ts';
import { parsePolicy } from '../../src/models/policy.ts';
import type { TensorShape } from '../../src/models/weights.ts';
import { describeModel, load } from '../../src/node.ts';
import { dequantize } from '../../src/quant/codec.ts';
import { wholeForward } from '../whole-forward.ts';

const golden = fileURLToPath(new URL('../golden', import.meta.url));
const options = { policy: parsePolicy('none') };
type Settings = Record<string, unknown>;
type Tensors = ReadonlyMap<string, TensorShape>;

async function readCase(name: string): Promise<{ config: Settings; tensors: Tensors }> {
  const folder = nodeFolder(`${golden}/models/${name}`);
  const checkpoint = await openCheckpoint(folder);
  await checkpoint.close();
  return { config: (await readJson(folder, 'config.json')) as Settings, tensors: checkpoint.tensors };
}

/** @param prefix instead of `model.`, @param head in front of `lm_head` */
function renamed(tensors: Tensors, prefix: string, head: string, root = 'model.'): Map<string, TensorShape> {
  return new Map(
    [...tensors].map(([name, tensor]) => [
      name.startsWith(root) ? `${prefix}${name.slice(root.length)}` : `${head}${name}`,
      tensor,
    ]),
  );
}

const tower = new Map<string, TensorShape>([
  ['vision_tower.encoder.layers.0.mlp.fc1.weight', { dtype: 'F32', shape: [4, 4] }],
  ['multi_modal_projector.linear_1.weight', { dtype: 'F32', shape: [4, 4] }],
]);

const forwardOf = async (path: string, warnings: string[] = []): Promise<readonly number[]> => {
  await using model = await load(path, {
    inline: true,
    threads: 1,
    quantize: 'none',
    onWarning: (text) => warnings.push(text),
  });
  return [...(await wholeForward(model, [1, 5, 9, 30])).get('logits')!.values];
};

const prefixes = [
  ['language_model.model.', 'language_model.'],
  ['model.language_model.', ''],
  ['model.text_model.', ''],
  ['language_model.', 'language_model.'],
  ['thinker.model.', 'thinker.'],
  ['llm.model.', 'llm.'],
  ['base.inner.decoder.', 'base.'],
  ['', ''],
] as const;

for (const [name, outer, key, inner] of [
  ['llama-gqa-f16', 'llava', 'text_config', undefined],
  ['llama-gqa-f16', 'idefics3', 'text_config', 'llama'],
  ['llama-gqa-f16', 'janus', 'language_config', 'llama'],
  ['llama-gqa-f16', 'a_wrapper_of_tomorrow', 'lm_settings', 'llama'],
  ['mistral-window', 'mistral3', 'text_config', undefined],
  ['qwen2', 'internvl_chat', 'llm_config', 'qwen2'],
  ['qwen2', 'qwen2_5_vl', 'text_config', 'qwen2_5_vl_text'],
  ['qwen3', 'qwen3_vl', 'text_config', 'qwen3_vl_text'],
  ['gemma3', 'gemma3', 'text_config', undefined],
  ['gemma', 'paligemma', 'text_config', undefined],
] as const) {
  test(`${outer} with ${key} of ${inner ?? 'no type'}: the plan of ${name}, whatever stands in front of the names`, async () => {
    const { config, tensors } = await readCase(name);
    const plain = buildModel(config, tensors, options);
    const { model_type: _, architectures: __, eos_token_id, ...text } = config;
    const wrapped = {
      model_type: outer,
      eos_token_id,
      vision_config: { hidden_size: 4, model_type: 'siglip_vision_model' },
      [key]: inner ? { ...text, model_type: inner } : text,
    };
    for (const [prefix, head] of prefixes) {
      const files = renamed(tensors, prefix, head);
      const model = buildModel(wrapped, new Map([...files, ...tower]), options);
      assert.equal(planDifference(plain.plan, model.plan, plain.config.contextLength), undefined, prefix);
      assert.ok(
        model.plan.weights.every(({ source }) => files.has(source.tensor)),
        prefix,
      );
      assert.deepEqual(model.eosTokenIds, plain.eosTokenIds);
      assert.equal(model.notices.length, 1);
      assert.match(model.notices[0]!, /2 tensors are left aside: vision_tower \(1\), multi_modal_projector \(1\)$/);
    }
  });
}

test('a text part inside of a part', async () => {
  const { config, tensors } = await readCase('qwen2');
  const thinker = { model_type: 'qwen2_5_omni_thinker', text_config: { ...config, model_type: 'qwen2_5_omni_text' } };
  const talker = { model_type: 'qwen2_5_omni_talker', hidden_size: 4 };
  const files = renamed(tensors, 'thinker.model.', 'thinker.');
  files.set('talker.model.embed_tokens.weight', { dtype: 'F32', shape: [8, 4] });
  const whole = { model_type: 'qwen2_5_omni', talker_config: talker, thinker_config: thinker };
  const { plan } = buildModel(whole, files, options);
  assert.equal(planDifference(buildModel(config, tensors, options).plan, plan, 1e6), undefined);
});

test('settings of the text part beside the towers, as older files have them', async () => {
  const { config, tensors } = await readCase('qwen2');
  const flat = {
    ...config,
    model_type: 'qwen2_vl',
    rope_scaling: { type: 'mrope', mrope_section: [2, 3, 3] },
    vision_config: { embed_dim: 4 },
  };
  const files = new Map([...tensors, ['visual.merger.mlp.0.weight', { dtype: 'F32', shape: [4, 4] }] as const]);
  const { plan, notices } = buildModel(flat, files, options);
  assert.equal(planDifference(buildModel(config, tensors, options).plan, plan, 1e6), undefined);
  assert.match(notices[0]!, /1 tensor is left aside: visual \(1\)$/);
});

for (const [name, root] of [
  ['gpt2-wide', 'transformer.'],
  ['falcon-7b', 'transformer.'],
  ['gpt-neox', 'gpt_neox.'],
  ['starcoder2', 'model.'],
  ['phi', 'model.'],
  ['stablelm', 'model.'],
  ['olmo2', 'model.'],
  ['granite', 'model.'],
  ['phi3', 'model.'],
  ['gemma4', 'model.'],
  ['qwen3-moe', 'model.'],
] as const) {
  test(`${name} without ${root}, and with more in front`, async () => {
    const { config, tensors } = await readCase(name);
    const plain = buildModel(config, tensors, options);
    for (const prefix of ['', `_orig_mod.${root}`]) {
      const { plan } = buildModel(config, renamed(tensors, prefix, prefix.replace(root, ''), root), options);
      assert.equal(planDifference(plain.plan, plan, plain.config.contextLength), undefined, prefix);
    }
  });
}

test('what the text part leaves out has the defaults of transformers', () => {
  const gemma3 = { model_type: 'gemma3', text_config: { model_type: 'gemma3_text', num_hidden_layers: 34 } };
  const missing = (config: Settings): string => {
    try {
      buildModel(config, new Map(), options);
    } catch (error) {
      return (error as Error).message;
    }
    return '';
  };
  assert.match(missing(gemma3), /model.embed_tokens.weight: expected \[262208, 2304\], missing/);
  assert.match(missing({ model_type: 'llava', text_config: {} }), /expected \[32000, 4096\], missing/);
  assert.match(missing({ model_type: 'gemma3_text' }), /hidden_size must be/);
});

test('a tensor more in the layers of the text part is an error, in its parts or not', async () => {
  const { config, tensors } = await readCase('qwen2');
  const files = renamed(tensors, 'model.language_model.', '');
  files.set('model.language_model.layers.0.self_attn.q_norm.weight', { dtype: 'F32', shape: [16] });
  const wrapped = { model_type: 'qwen2_vl', text_config: config };
  assert.throws(() => buildModel(wrapped, files, options), /layers\.0\.self_attn\.q_norm\.weight: not expected/);
  const plain = new Map([...tensors, ['visual.x.weight', { dtype: 'F32', shape: [1] }] as const]);
  assert.throws(() => buildModel(config, plain, options), /visual\.x\.weight: not expected/);
});

test('layers that predict more tokens are left aside', async () => {
  const { config, tensors } = await readCase('qwen2');
  const extra = (name: string): Tensors => new Map([...tensors, [name, { dtype: 'F32', shape: [1] }]]);
  const { length } = [...tensors.keys()].filter((name) => name.endsWith('input_layernorm.weight'));
  const next = { ...config, num_nextn_predict_layers: 1 };
  for (const [settings, name] of [
    [config, 'mtp.fc.weight'],
    [config, 'model.mtp.layers.0.norm.weight'],
    [next, `model.layers.${length}.eh_proj.weight`],
  ] as const)
    assert.match(buildModel(settings, extra(name), options).notices[0]!, /1 tensor is left aside/);
  assert.throws(() => buildModel(config, extra(`model.layers.${length}.eh_proj.weight`), options), /not expected/);
});

test('the type that is not known is that of the text part', () => {
  for (const [config, message] of [
    [
      { model_type: 'aya_vision', text_config: { model_type: 'cohere2' } },
      /^config.json: text_config: model_type "cohere2" inside of "aya_vision" is not known; known are gpt2, /,
    ],
    [
      { model_type: 'x_omni', thinker_config: { model_type: 'x_thinker', text_config: { model_type: 'x_text' } } },
      /^config.json: thinker_config: text_config: model_type "x_text" inside of "x_omni" is not known/,
    ],
    [{ model_type: 'unheard_of', vision_config: {} }, /^config.json: model_type "unheard_of" is not known/],
    [{ vision_config: {} }, /^config.json: model_type is missing/],
  ] as const)
    assert.throws(() => buildModel(config, new Map(), options), { code: 'UnknownModelType', message });
});

test('both end tokens, of the whole and of the text part; quantized weights are refused where either says so', async () => {
  const { config, tensors } = await readCase('qwen2');
  const wrapped = { model_type: 'qwen2_vl', eos_token_id: [1, 6], text_config: { ...config, eos_token_id: 3 } };
  assert.deepEqual(buildModel(wrapped, tensors, options).eosTokenIds, [1, 6, 3]);
  const quantized = { ...wrapped, quantization_config: { quant_method: 'fp8' } };
  assert.throws(() => buildModel(quantized, tensors, options), /text_config: quantization_config must be absent/);
});

test('an output head that differs from the embedding wins over tie_word_embeddings, with a notice', async () => {
  const warnings: string[] = [];
  const tied = await forwardOf(`${golden}/folders/llama-tied-by-config-other-head-in-file`, warnings);
  assert.deepEqual(tied, await forwardOf(`${golden}/folders/llama-untied`));
  assert.match(
    warnings.join('\n'),
    /lm_head\.weight differs from model\.embed_tokens\.weight: the file's head is used/,
  );
  const { config } = await describeModel(`${golden}/folders/llama-tied-by-config-other-head-in-file`);
  assert.equal(config.tied, false);
});

test('a head is compared only where config.json ties it', async () => {
  const { config, tensors } = await readCase('llama-gqa-f16');
  const ends = { embedding: 'model.embed_tokens.weight', head: 'lm_head.weight' };
  assert.deepEqual(tensorsToCompare({ ...config, tie_word_embeddings: true }, tensors), ends);
  assert.equal(tensorsToCompare({ ...config, tie_word_embeddings: false }, tensors), undefined);
});

for (const [folder, plain] of [
  ['gemma3-wrapper-new-names', 'gemma3-text'],
  ['qwen3-no-model-prefix', 'qwen3'],
] as const) {
  test(`${folder} computes what ${plain} computes`, async () => {
    assert.deepEqual(await forwardOf(`${golden}/folders/${folder}`), await forwardOf(`${golden}/folders/${plain}`));
  });
}

for (const transposed of [true, false]) {
  test(`experts in one tensor, ${transposed ? '[in, out]' : '[out, in]'}, in the text part of Qwen 3 VL`, async () => {
    const source = `${golden}/models/qwen3-moe`;
    const { config } = await readCase('qwen3-moe');
    const checkpoint = await openCheckpoint(nodeFolder(source));
    const stacks = new Map<string, { shape: number[]; values: Float32Array[] }>();
    const tensors: TensorToWrite[] = [];
    for (const tensor of checkpoint.tensors.values()) {
      const bytes = new Uint8Array(tensor.byteLength);
      await tensor.readInto(0, bytes);
      const { name, shape } = tensor;
      const [, layer, part] = /^(.*\.experts)\.\d+\.(\w+)\.weight$/.exec(name) ?? [];
      const values = dequantize(tensor.dtype.toLowerCase() as 'bf16', bytes);
      if (layer === undefined) {
        const renamed = name.replace('model.', 'model.language_model.');
        tensors.push({ name: renamed, dtype: tensor.dtype as 'BF16', shape, data: bytes });
        continue;
      }
      const key = `${layer}.${part}`;
      if (!stacks.has(key)) stacks.set(key, { shape: [...shape], values: [] });
      stacks.get(key)!.values.push(values);
    }
    await checkpoint.close();
    for (const [key, gate] of stacks) {
      if (!key.endsWith('gate_proj') && !key.endsWith('down_proj')) continue;
      const up = key.endsWith('gate_proj') ? stacks.get(key.replace('gate_proj', 'up_proj'))! : undefined;
      const [rows, columns] = [gate.shape[0]! * (up ? 2 : 1), gate.shape[1]!];
      const all = new Float32Array(gate.values.length * rows * columns);
      for (const [n, first] of gate.values.entries()) {
        const matrix = [...first, ...(up ? up.values[n]! : [])];
        for (let r = 0; r < rows; r++)
          for (let c = 0; c < columns; c++)
            all[n * rows * columns + (transposed ? c * rows + r : r * columns + c)] = matrix[r * columns + c]!;
      }
      const name = key.replace('gate_proj', 'gate_up_proj').replace('model.', 'model.language_model.');
      const shape = [gate.values.length, ...(transposed ? [columns, rows] : [rows, columns])];
      tensors.push({ name, dtype: 'F32', shape, data: new Uint8Array(all.buffer) });
    }
    const folder = await mkdtemp(path.join(tmpdir(), 'lanewise-stacked-'));
    try {
      await writeSafeTensors(path.join(folder, 'model.safetensors'), tensors);
      const text = { ...config, model_type: 'qwen3_vl_moe_text' };
      await writeFile(
        path.join(folder, 'config.json'),
        JSON.stringify({ model_type: 'qwen3_vl_moe', text_config: text }),
      );
      assert.deepEqual(await forwardOf(folder), await forwardOf(source));
    } finally {
      await rm(folder, { recursive: true });
    }
  });
}
