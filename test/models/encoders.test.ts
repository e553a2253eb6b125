/** Golden encoders on every backend: values of transformers, and the same bits for any batch. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import test from 'node:test';
import { portable } from '../../src/backend/wasm/choosing/choice.ts';
import { chooseKernels } from '../../src/backend/wasm/choosing/probe.ts';
import { nodeHost } from '../../src/backend/wasm/threads/host-node.ts';
import { openModel } from '../../src/engine/open.ts';
import { nodeFolder } from '../../src/formats/adapters/node.ts';
import { buildModel } from '../../src/models/index.ts';
import { parsePolicy } from '../../src/models/policy.ts';
import type { TensorShape } from '../../src/models/weights.ts';
import { EncoderRunner, encoderFolder, readGoldenTexts } from './encoder-support.ts';
import { backends, largestDifference, type MakeBackend, wasm, wide } from './support.ts';

const cases = readdirSync(new URL('../golden/encoders', import.meta.url));

for (const name of cases) {
  for (const [label, make] of Object.entries(backends)) {
    test(`${name}, ${label}: hidden states, alone and in a batch`, async () => {
      const texts = await readGoldenTexts(name);
      const runner = await EncoderRunner.open(name, make);
      try {
        const together = await runner.run(texts);
        for (const [n, text] of texts.entries()) {
          const [alone] = await runner.run([text]);
          for (const [key, values] of alone!) {
            const error = largestDifference(values, text.tensors.get(key)!);
            assert.ok(error <= 2e-4, `text ${n}: ${key} is off by ${error}`);
            assert.equal(largestDifference(together[n]!.get(key)!, values), 0, `text ${n}: ${key} in a batch`);
          }
        }
      } finally {
        await runner.close();
      }
    });
  }

  test(`${name}: bits do not depend on threads, instructions or the order of texts, also quantized`, async () => {
    const texts = await readGoldenTexts(name);
    for (const policy of ['none', 'q8_0', 'q4_0']) {
      const run = async (make: MakeBackend, order: typeof texts): Promise<Map<string, Float32Array>[]> => {
        const runner = await EncoderRunner.open(name, make, policy);
        const results = await runner.run(order);
        await runner.close();
        return results;
      };
      const expected = await run(wasm(1, portable), texts);
      assert.deepEqual(await run(wasm(3, wide), texts), expected, policy);
      assert.deepEqual(
        await run(wasm(2, chooseKernels(nodeHost())), [...texts].reverse()),
        [...expected].reverse(),
        policy,
      );
    }
  });
}

/** Names and shapes of a golden encoder's tensors, changed. */
async function shapesOf(name: string, rename: (tensor: string) => string): Promise<Map<string, TensorShape>> {
  const files = await openModel(nodeFolder(encoderFolder(name)));
  await files.close();
  return new Map([...files.tensors].map(([tensor, { dtype, shape }]) => [rename(tensor), { dtype, shape }]));
}

const configOf = (name: string): object => JSON.parse(readFileSync(`${encoderFolder(name)}/config.json`, 'utf8'));
const options = { policy: parsePolicy('none') };
const sourcesOf = ({ plan }: ReturnType<typeof buildModel>): string[] =>
  plan.weights.map(({ source }) => source.tensor);

test('names of other heads and of older files are known', async () => {
  const old = (tensor: string): string =>
    `bert.${tensor.replace('LayerNorm.weight', 'LayerNorm.gamma').replace('LayerNorm.bias', 'LayerNorm.beta')}`;
  const bert = await shapesOf('bert', old);
  bert.set('cls.predictions.bias', { dtype: 'F32', shape: [600] });
  bert.set('bert.embeddings.position_ids', { dtype: 'I64', shape: [1, 128] });
  assert.ok(sourcesOf(buildModel(configOf('bert'), bert, options)).includes('bert.embeddings.LayerNorm.gamma'));
  const modern = await shapesOf('modernbert', (tensor) => `model.${tensor}`);
  modern.set('head.dense.weight', { dtype: 'F32', shape: [64, 64] });
  modern.set('decoder.bias', { dtype: 'F32', shape: [600] });
  assert.ok(sourcesOf(buildModel(configOf('modernbert'), modern, options)).includes('model.final_norm.weight'));
});

test("NomicBERT's config in the words of the hub says the same", async () => {
  const tensors = await shapesOf('nomic-bert', (tensor) => tensor);
  const hub = {
    model_type: 'nomic_bert',
    activation_function: 'swiglu',
    layer_norm_epsilon: 1e-12,
    n_embd: 64,
    n_head: 4,
    n_inner: 192,
    n_layer: 3,
    n_positions: 512,
    max_trained_positions: 128,
    qkv_proj_bias: false,
    rotary_emb_base: 1000,
    rotary_emb_fraction: 1,
    type_vocab_size: 2,
    vocab_size: 600,
  };
  const ours = buildModel(configOf('nomic-bert'), tensors, options);
  const { config, plan } = buildModel(hub, tensors, options);
  assert.deepEqual([config, plan], [ours.config, ours.plan]);
  assert.throws(() => buildModel({ ...hub, qkv_proj_bias: true }, tensors, options), /qkv_proj_bias must be false/);
  assert.throws(() => buildModel({ ...hub, activation_function: 'gelu' }, tensors, options), /one of swiglu, geglu/);
});

test("ModernBERT's layers and ropes may be listed by kind", async () => {
  const tensors = await shapesOf('modernbert', (tensor) => tensor);
  const { global_attn_every_n_layers, global_rope_theta, local_rope_theta, ...rest } = configOf('modernbert') as Record<
    string,
    unknown
  >;
  const [full, sliding] = ['full_attention', 'sliding_attention'];
  const listed = {
    ...rest,
    layer_types: [full, sliding, sliding, full],
    rope_parameters: { [full]: { rope_theta: global_rope_theta }, [sliding]: { rope_theta: local_rope_theta } },
  };
  assert.equal(global_attn_every_n_layers, 3);
  assert.deepEqual(
    buildModel(listed, tensors, options).plan,
    buildModel(configOf('modernbert'), tensors, options).plan,
  );
});

test('what is not BERT as we know it is refused by its key', async () => {
  const tensors = await shapesOf('bert', (tensor) => tensor);
  const refused = (changes: object, message: RegExp): void =>
    assert.throws(() => buildModel({ ...configOf('bert'), ...changes }, tensors, options), message);
  refused({ position_embedding_type: 'relative_key' }, /position_embedding_type must be absolute/);
  refused({ is_decoder: true }, /is_decoder must be false/);
  refused({ type_vocab_size: 3 }, /token_type_embeddings.weight: expected \[3, 64\], found \[2, 64\]/);
});
