/** Model folders in the shape of published models, as written for the benches. */
import assert from 'node:assert/strict';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { makeModel } from '../../bench/make-model.ts';
import { makeTokenizer } from '../../bench/make-tokenizer.ts';
import { gemma3Shape, gpt2Shape, llamaShape, modelShape, shapeNames, shapeTensors } from '../../bench/shapes.ts';
import { nodeFolder } from '../../src/formats/adapters/node.ts';
import { openCheckpoint, readJson } from '../../src/formats/checkpoint.ts';
import { dequantizeBF16 } from '../../src/quant/bf16.ts';
import { loadTokenizer } from '../../src/tokenizer/load.ts';

async function temporaryFolder(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'lanewise-'));
  t.after(() => rm(folder, { recursive: true }));
  return folder;
}

const tinyLlama = { dim: 64, ffn: 96, layers: 2, heads: 4, kvHeads: 2, vocab: 500, context: 128 };
const tiny = {
  gpt2: gpt2Shape({ dim: 64, layers: 2, heads: 4, vocab: 400, context: 32, dtype: 'F32' }),
  llama: llamaShape({ ...tinyLlama, normEpsilon: 1e-5, dtype: 'F16' }),
  gemma3: gemma3Shape({ ...tinyLlama, headDim: 24, window: 8, pattern: 6, queryScalar: 24, dtype: 'BF16' }),
};

for (const [name, shape] of Object.entries(tiny)) {
  test(`a tiny ${name} can be opened and has its tensors`, async (t) => {
    const folder = nodeFolder(await temporaryFolder(t));
    await makeModel(shape, folder.name);
    const checkpoint = await openCheckpoint(folder);
    t.after(() => checkpoint.close());
    assert.deepEqual(
      [...checkpoint.tensors].map(([key, { dtype, shape }]) => [key, dtype, shape]),
      [...shape.tensors].map(([key, { dtype, shape }]) => [key, dtype, shape]),
    );
    assert.deepEqual(await readJson(folder, 'config.json'), shape.config);
  });
}

test('weights have the promised distribution, rows differ, one seed gives one model', async (t) => {
  const embedding = async (seed: number): Promise<Float32Array> => {
    const folder = nodeFolder(await temporaryFolder(t));
    await makeModel(tiny.gemma3, folder.name, { seed });
    const checkpoint = await openCheckpoint(folder);
    t.after(() => checkpoint.close());
    const tensor = checkpoint.tensors.get('model.embed_tokens.weight')!;
    const bytes = new Uint8Array(tensor.byteLength);
    await tensor.readInto(0, bytes);
    return dequantizeBF16(bytes);
  };
  const values = await embedding(1);
  const mean = values.reduce((sum, x) => sum + x, 0) / values.length;
  const deviation = Math.sqrt(values.reduce((sum, x) => sum + (x - mean) ** 2, 0) / values.length);
  assert.ok(Math.abs(mean) < 0.001, `mean ${mean}`);
  assert.ok(Math.abs(deviation - 0.02) < 0.001, `deviation ${deviation}`);
  const rows = Array.from({ length: tinyLlama.vocab }, (_, i) => values.slice(64 * i, 64 * i + 64).join());
  assert.equal(new Set(rows).size, rows.length);
  assert.deepEqual(await embedding(1), values);
  assert.notDeepEqual(await embedding(2), values);
});

test('headers without data open and take no space', async (t) => {
  const folder = nodeFolder(await temporaryFolder(t));
  await makeModel(modelShape('tinyllama-1.1b'), folder.name, { headersOnly: true });
  const checkpoint = await openCheckpoint(folder);
  t.after(() => checkpoint.close());
  const file = await stat(join(folder.name, 'model.safetensors'));
  assert.equal(checkpoint.tensors.size, 201);
  assert.ok(file.size > 2.2e9 && file.blocks * 512 < 1e6, `${file.size} bytes in ${file.blocks} blocks`);
});

test('parameters of the published models', () => {
  const parameters = shapeNames.map((name) => {
    const tensors = [...shapeTensors(name).values()].filter((tensor) => tensor.fill !== 'causal-mask');
    return [name, tensors.reduce((sum, tensor) => sum + tensor.shape.reduce((a, b) => a * b), 0)];
  });
  assert.deepEqual(parameters, [
    ['gpt2', 124_439_808],
    ['gemma3-1b', 999_885_952],
    ['llama-160m', 162_417_408],
    ['tinyllama-1.1b', 1_100_048_384],
    ['llama-7b', 6_738_415_616],
  ]);
});

test('tokenizers have exactly the vocabulary asked for and give any text back', () => {
  const text = 'the train to Oslo, 7 o’clock: “naïve” 日本 🦊\n\tend';
  for (const [kind, size] of [
    ['gpt2', 50257],
    ['llama', 32000],
    ['llama', 500],
    ['gemma', 40000],
  ] as const) {
    const { tokenizer } = makeTokenizer(kind, size);
    const { vocab } = tokenizer.model as { vocab: Record<string, number> };
    assert.deepEqual(new Set(Object.values(vocab)), new Set(Array.from({ length: size }, (_, id) => id)));
    const loaded = loadTokenizer({ tokenizerJson: JSON.stringify(tokenizer), name: kind });
    const ids = loaded.encode(text);
    assert.ok(ids.length < new TextEncoder().encode(text).length, 'merges apply');
    assert.equal(loaded.decode(ids, { skipSpecial: true }), text, `${kind} ${size}`);
  }
});
