/** Every decision of a load under a stable key, with where it came from, alike in this thread and in another. */
import assert from 'node:assert/strict';
import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test, { type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { nodeHost } from '../../src/backend/wasm/threads/host-node.ts';
import { loadModel } from '../../src/engine/load.ts';
import { nodeFolder } from '../../src/formats/adapters/node.ts';
import { type Explanation, type LoadOptions, load, loadEncoder } from '../../src/node.ts';

const golden = (name: string): string => fileURLToPath(new URL(`../golden/${name}`, import.meta.url));

type Known = Record<string, Pick<Explanation, 'value' | 'from' | 'why'>>;

function byKey(explanations: readonly Explanation[]): Known {
  const keys = explanations.map(({ key }) => key);
  assert.deepEqual([...new Set(keys)], keys, 'no key comes twice');
  return Object.fromEntries(explanations.map(({ key, ...rest }) => [key, rest]));
}

async function explained(name: string, options: LoadOptions = {}): Promise<Known> {
  await using model = await load(golden(name), { inline: true, threads: 1, ...options });
  return byKey(model.explain());
}

async function copyOf(t: TestContext, name: string): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), 'lanewise-explain-'));
  t.after(() => rm(folder, { recursive: true }));
  await cp(golden(name), folder, { recursive: true });
  return folder;
}

const decoderKeys = [
  ...['model.name', 'model.type', 'model.kind', 'model.parameters', 'model.notices', 'engine.thread'],
  ...['storage.policy', 'backend.name', 'threads.wanted', 'vectors.bits'],
  ...['kernels.products', 'kernels.check', 'kernels.tiles', 'kernels.notes', 'threads.count', 'memories.count'],
  ...['memory.weights', 'memory.activations', 'context.length', 'forward.rows', 'forward.wanted'],
  ...['cache.storage', 'cache.tokens', 'tokenizer.kind', 'tokens.bos', 'tokens.around', 'tokens.ends'],
  ...['template.source', 'draft.model', 'queue.most', 'forward.budget', 'options.maxTokens', 'options.temperature'],
  ...['options.topK', 'options.topP', 'options.minP', 'options.repetitionPenalty', 'options.seed', 'options.speculate'],
];

test('a decoder explains threads, vectors, storages, cache, tokens, template and options', async () => {
  await using model = await load(golden('models/llama-gqa-f16'), {
    inline: true,
    threads: 2,
    quantize: 'q8_0,attention=none',
    kvCache: 'f16',
    cacheTokens: 1000,
    contextLength: 100,
    revectorize: false,
  });
  const found = byKey(model.explain({ temperature: 0, stop: ['x', 'y'] }));
  assert.deepEqual(
    decoderKeys.filter((key) => !Object.hasOwn(found, key)),
    [],
  );
  const of = (key: string): readonly unknown[] => [found[key]?.value, found[key]?.from];
  assert.deepEqual(of('threads.wanted'), [2, 'option threads']);
  assert.deepEqual(of('threads.count'), [model.threads, 'threads.wanted']);
  assert.equal(found['vectors.bits']!.value, model.vectorBits);
  if (nodeHost().widens) assert.deepEqual(of('vectors.bits'), [128, 'option revectorize']);
  assert.deepEqual(of('storage.policy'), ['q8_0,attention=none', 'option quantize']);
  const matrices = model.description.plan.weights.filter(
    ({ shape, shares }) => shape.length === 2 && shares === undefined,
  );
  for (const storage of ['f16', 'q8_0']) {
    const own = matrices.filter((weight) => weight.storage === storage);
    assert.equal(found[`storage.${storage}`]!.value, own.length);
    assert.match(
      found[`storage.${storage}`]!.why!,
      new RegExp(`${own.reduce((sum, { bytes }) => sum + bytes, 0)} bytes`),
    );
  }
  assert.match(found['storage.f16']!.why!, /12 attention=none/);
  assert.deepEqual(of('cache.storage'), ['f16', 'option kvCache']);
  assert.deepEqual(of('cache.tokens'), [1024, 'option cacheTokens']);
  assert.deepEqual(of('context.length'), [100, 'option contextLength']);
  const { weights, activations } = model.memory();
  assert.deepEqual([found['memory.weights']!.value, found['memory.activations']!.value], [weights, activations]);
  assert.deepEqual(of('tokenizer.kind'), ['BPE', 'tokenizer.json']);
  assert.deepEqual(of('template.source'), [null, 'files']);
  assert.deepEqual(of('options.temperature'), [0, 'option temperature']);
  assert.deepEqual(of('options.stop'), ['["x","y"]', 'option stop']);
  assert.deepEqual(of('options.topK'), [0, 'library']);
  assert.deepEqual(of('options.maxTokens'), [256, 'default']);
  assert.deepEqual(of('options.seed'), [null, 'default']);
});

test('an engine in a thread of its own gives the same explanations', async () => {
  const options = { threads: 1, quantize: 'q8_0' };
  const near = await explained('models/qwen2', options);
  const far = await explained('models/qwen2', { ...options, inline: false });
  assert.deepEqual([near['engine.thread']!.value, far['engine.thread']!.value], ['calling', 'own']);
  for (const known of [near, far]) {
    // What one load remembers, the next need not check; free memory changes.
    for (const key of ['engine.thread', 'kernels.check', 'kernels.tiles', 'cache.tokens']) delete known[key];
  }
  assert.deepEqual(far, near);
});

test('tokens and sampling name the file and field that decided', async (t) => {
  const folder = await copyOf(t, 'models/llama-gqa-f16');
  await writeFile(
    path.join(folder, 'generation_config.json'),
    '{"eos_token_id": [2, 5], "top_k": 7, "temperature": 0.3}',
  );
  await writeFile(
    path.join(folder, 'tokenizer_config.json'),
    '{"bos_token": "<s>", "eos_token": "</s>", "chat_template": "{{ messages[0].content }}"}',
  );
  await using model = await load(folder, { inline: true, threads: 1 });
  const found = byKey(model.explain());
  const of = (key: string): readonly unknown[] => [found[key]?.value, found[key]?.from];
  assert.deepEqual(of('tokens.ends'), ['2, 5', 'config.json, eos_token_id; generation_config.json, eos_token_id']);
  assert.deepEqual(of('options.topK'), [7, 'generation_config.json, top_k']);
  assert.deepEqual(of('options.temperature'), [0.3, 'generation_config.json, temperature']);
  assert.equal(found['tokens.bos']!.from, 'tokenizer_config.json, bos_token');
  assert.deepEqual(of('template.source'), ['tokenizer_config.json, chat_template', 'files']);
  await writeFile(path.join(folder, 'chat_template.jinja'), '{{ messages[0].content }}!');
  await using other = await load(folder, { inline: true, threads: 1 });
  assert.equal(byKey(other.explain())['template.source']!.value, 'chat_template.jinja');
});

test('a GGUF file is named as what decided', async () => {
  const found = await explained('gguf/llama-f32.gguf');
  assert.deepEqual(found['storage.policy'], {
    value: 'none',
    from: 'default',
    why: 'of GGUF files: the types that their authors chose',
  });
  assert.equal(found['tokens.bos']!.from, 'GGUF metadata, tokenizer.ggml.bos_token_id');
  assert.equal(found['tokens.ends']!.from, 'GGUF metadata');
  assert.equal(found['model.type']!.from, 'GGUF metadata');
});

test('the default cache says what limits it, and threads why there is one', async () => {
  const folder = nodeFolder(golden('models/llama3-rope-bf16'));
  const node = nodeHost();
  const on = async (host: Partial<typeof node>, options: LoadOptions = {}): Promise<Known> => {
    await using model = await loadModel({ folder, host: { ...node, ...host } }, options);
    return byKey(model.explain());
  };
  const rich = await on({ memoryBytes: 1e12, unusedBytes: 1e12 }, { threads: 1 });
  assert.match(rich['cache.tokens']!.why!, /a context for each text of a forward$/);
  const poor = await on({ memoryBytes: 1000 }, { threads: 1 });
  assert.match(poor['cache.tokens']!.why!, /one context, the least there may be$/);
  const some = await on({ memoryBytes: 2e7, unusedBytes: 1e12 }, { threads: 1 });
  assert.match(some['cache.tokens']!.why!, /a quarter of the machine's memory$/);
  const busy = await on({ memoryBytes: 1e12, unusedBytes: 1e7 }, { threads: 1 });
  assert.match(busy['cache.tokens']!.why!, /half of the unused memory that weights leave$/);
  const single = await on({ cores: 4, threads: { possible: false, reason: 'a test has none' } });
  assert.deepEqual(single['threads.wanted'], { value: 1, from: 'machine', why: 'a test has none' });
  const reference = await on({}, { backend: 'reference' });
  assert.equal(reference['draft.model']!.value, null);
  assert.deepEqual([reference['backend.name']!.value, reference['threads.count']!.value], ['reference', 1]);
});

test('a draft model is named', async () => {
  const { 'draft.model': draft } = await explained('models/llama-gqa-f16', { draft: { quantize: 'q4_0' } });
  assert.deepEqual([draft!.value, draft!.from], [golden('models/llama-gqa-f16'), 'option draft']);
});

test('an encoder explains itself without what only decoders have', async () => {
  await using encoder = await loadEncoder(golden('encoders/bert'), { inline: true, threads: 1 });
  const found = byKey(encoder.explain());
  assert.equal(found['model.kind']!.value, 'encoder');
  assert.equal(found['tokens.around']!.value, '[CLS] [SEP]');
  assert.deepEqual([encoder.quantize, found['storage.policy']!.from], ['none', 'default']);
  assert.match(found['storage.policy']!.why!, /^of encoders/);
  await using other = await loadEncoder(golden('encoders/bert'), { inline: true, threads: 1, quantize: 'q8_0' });
  assert.equal(byKey(other.explain())['storage.policy']!.value, 'q8_0');
  for (const key of ['cache.tokens', 'tokens.ends', 'template.source', 'options.temperature'])
    assert.ok(!Object.hasOwn(found, key), key);
});
