/** KV caches in f16 and q8_0: close to f32, the same bits for any threads, chunks and reuse, and smaller. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { LanewiseError } from '../../src/errors.ts';
import {
  type GenerateOptions,
  type GenerateResult,
  load,
  loadEncoder,
  type Model,
  type Prompt,
} from '../../src/node.ts';
import type { KvStorage } from '../../src/quant/kv-cache.ts';
import { backends, Runner, readGolden } from './support.ts';

const golden = (folder: string): string => fileURLToPath(new URL(`../golden/${folder}`, import.meta.url));

const norm = (x: Float32Array): number => Math.sqrt(x.reduce((sum, value) => sum + value * value, 0));
const relativeError = (got: Float32Array, expected: Float32Array): number =>
  norm(got.map((value, i) => value - expected[i]!)) / norm(expected);

/** Largest error of logits relative to their norm: about twice the measured error. */
const cases: readonly [model: string, storage: KvStorage, tolerance: number][] = [
  ['gpt2-wide', 'f16', 1e-3],
  ['gpt2-wide', 'q8_0', 0.02],
  ['llama3-rope-bf16', 'f16', 2e-3],
  ['llama3-rope-bf16', 'q8_0', 0.04],
  ['gemma3', 'f16', 2e-3],
  ['gemma4-keys-as-values', 'f16', 2e-3],
  ['mistral-window', 'f16', 1e-3],
  ['phi3-odd-rotary', 'f16', 1e-3],
];

for (const [name, storage, tolerance] of cases) {
  test(`${name}, ${storage}: every backend is close to transformers; chunks do not show`, async () => {
    const { inputs } = await readGolden(name);
    let bits: Float32Array | undefined;
    for (const [label, make] of Object.entries(backends)) {
      const runner = await Runner.open(name, make, 'none', 64, storage);
      try {
        const { ids, tensors } = inputs[0];
        const logits = (await runner.run(ids, 64)).get('logits')!;
        const error = relativeError(logits, tensors.get('logits')!);
        assert.ok(error <= tolerance, `${label} is off by ${error}`);
        assert.ok(error > 0);
        if (label === 'reference') continue;
        bits ??= logits;
        assert.deepEqual(logits, bits, label);
        for (const chunk of [1, 7, 13])
          assert.deepEqual((await runner.run(ids, chunk)).get('logits'), bits, `${label}, chunks of ${chunk}`);
      } finally {
        await runner.close();
      }
    }
  });
}

async function generate(model: Model, prompt: Prompt, options: GenerateOptions): Promise<GenerateResult> {
  for await (const event of model.generate(prompt, options)) if (event.type === 'done') return event;
  throw new Error('no end');
}

for (const kvCache of ['f16', 'q8_0'] as const) {
  test(`${kvCache}: drafts, batches and conversations give what a prompt alone gives`, async () => {
    await using model = await load(undefined, { inline: true, kvCache });
    const options = { temperature: 0, maxTokens: 40 };
    const story = (await generate(model, 'Once upon a time', options)).text;
    const prompt = `${story} Once upon a time${story.slice(0, 60)}`;
    const plain = await generate(model, prompt, options);
    assert.deepEqual((await generate(model, prompt, { ...options, speculate: 8 })).tokenIds, plain.tokenIds);
    using conversation = model.conversation();
    for (const text of ['Once upon a time', prompt]) {
      const results: GenerateResult[] = [];
      for await (const event of conversation.generate(text, options)) if (event.type === 'done') results.push(event);
      assert.deepEqual(results[0]!.tokenIds, (await generate(model, text, options)).tokenIds);
    }
    const prompts = ['The dog', prompt, 'Lily'];
    for (const [i, { tokenIds }] of (await model.generateBatch(prompts, options)).entries())
      assert.deepEqual(tokenIds, (await generate(model, prompts[i]!, options)).tokenIds);
  });
}

test('memory and the bytes of a decode step follow the storage', async () => {
  const sizes = new Map<KvStorage, { cache: number; read: number }>();
  for (const kvCache of ['f32', 'f16', 'q8_0'] as const) {
    await using model = await load(undefined, { inline: true, kvCache });
    await generate(model, 'Once upon a time', { maxTokens: 100 });
    sizes.set(kvCache, { cache: model.memory().cache, read: model.decodeBytes(100) - model.decodeBytes(0) });
  }
  const { cache, read } = sizes.get('f32')!;
  assert.deepEqual(sizes.get('f16'), { cache: cache / 2, read: read / 2 });
  assert.deepEqual(sizes.get('q8_0'), { cache: (cache * 9) / 32, read: (read * 9) / 32 });
});

test('storages that there are not, that heads do not fit, or that encoders have no use for are refused', async () => {
  const refused = (promise: Promise<unknown>, message: RegExp): Promise<void> =>
    assert.rejects(promise, (error) => error instanceof LanewiseError && message.test(error.message));
  await refused(load(undefined, { inline: true, kvCache: 'q4_0' as 'f32' }), /kvCache must be f32, f16 or q8_0/);
  await refused(
    load(golden('models/mistral-window'), { inline: true, kvCache: 'q8_0' }),
    /kvCache must be .* multiples of 32.* 16/,
  );
  await refused(loadEncoder(golden('encoders/bert'), { inline: true, kvCache: 'f16' }), /kvCache must be left out/);
});
