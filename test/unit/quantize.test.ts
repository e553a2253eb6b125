/** Models converted to files of other types and read back. */
import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { after } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ThreadedConverter } from '../../src/convert/convert-node.ts';
import { convertPiece, type Piece } from '../../src/convert/convert-piece.ts';
import { nodeFolder, type TensorToWrite, writeSafeTensors } from '../../src/formats/adapters/node.ts';
import { openCheckpoint } from '../../src/formats/checkpoint.ts';
import { openGguf } from '../../src/formats/gguf.ts';
import { describeModel, load, openTokenizer, quantizeModel, type WritableType } from '../../src/node.ts';
import { weightTypes } from '../../src/quant/ggml.ts';
import { ggufVocabulary } from '../../src/tokenizer/gguf-vocabulary.ts';
import { largestDifference } from '../models/support.ts';
import { wholeForward } from '../whole-forward.ts';

const golden = fileURLToPath(new URL('../golden', import.meta.url));
const scratch = await mkdtemp(join(tmpdir(), 'lanewise-quantize-'));
after(() => rm(scratch, { recursive: true }));

async function bytesOf(file: string, name: string): Promise<{ dtype: string; bytes: Uint8Array }> {
  const folder = nodeFolder(file.slice(0, file.lastIndexOf('/')));
  const base = file.slice(file.lastIndexOf('/') + 1);
  const checkpoint = await (base.endsWith('.gguf') ? openGguf(folder, base) : openCheckpoint(folder, base));
  const tensor = checkpoint.tensors.get(name)!;
  const bytes = new Uint8Array(tensor.byteLength);
  await tensor.readInto(0, bytes);
  await checkpoint.close();
  return { dtype: tensor.dtype, bytes };
}

async function logitsOf(path: string): Promise<Float32Array> {
  await using model = await load(path, { inline: true, quantize: 'none', threads: 1 });
  const ids = Array.from({ length: 40 }, (_, i) => (7 + i * 37) % model.description.config.vocab);
  return (await wholeForward(model, ids)).get('logits')!.values;
}

/** Models that cover each difference between the two formats. */
const models = {
  'gpt2-tied-f32': 'no prefix, transposed matrices',
  'gpt2-wide': 'transposed matrices',
  'llama-bias': 'rotated rows of matrices and biases',
  'llama-sharded': 'shards',
  'llama-rope-linear': 'linear rope',
  'llama-rope-yarn': 'yarn',
  'llama3-rope-bf16': 'rope factors',
  'mistral-window': 'a window',
  gemma: 'norms of 1 + w',
  'gpt-neox': 'fused heads with biases',
  'falcon-40b': 'grouped fused heads, two norms',
  'falcon-11b': 'grouped fused heads, one norm',
  phi3: 'fused layers',
  'phi3-longrope': 'long and short rope factors',
  mixtral: 'experts',
  granite: 'multipliers',
  stablelm: 'partial rotation',
  'stablelm-parallel': 'no second norm',
  'stablelm-head-norms': 'norms per head',
  gemma4: 'inputs per layer, shared caches',
  'gemma4-keys-as-values': 'heads of two widths',
  'gemma4-vision': 'a text part with names of its own',
  'gemma4-moe': 'a text part with stacked experts',
  'gemma3-vision': 'a text part that leaves settings out',
  mistral3: 'a text part with a head of its own',
  ministral3: 'queries that grow',
};

/** To f32 GGUF and back to SafeTensors. */
async function keepsLogits(source: string): Promise<void> {
  const expected = await logitsOf(source);
  const folder = await mkdtemp(join(scratch, 'back-'));
  const file = join(folder, 'there.gguf');
  await quantizeModel(source, file, { to: 'f32' });
  const off = largestDifference(await logitsOf(file), expected);
  assert.ok(off <= 1e-4, `GGUF is off by ${off}`);
  await quantizeModel(file, join(folder, 'model.safetensors'), { to: 'f32' });
  const again = largestDifference(await logitsOf(folder), expected);
  assert.ok(again <= 1e-4, `SafeTensors is off by ${again}`);
}

for (const [name, what] of Object.entries(models)) {
  test(`${name} (${what}): as f32 GGUF and back to SafeTensors it gives the same logits`, async () =>
    keepsLogits(`${golden}/models/${name}`));
}

test('qwen3-moe without its dense layer, which GGUF has no words for, does too', async () => {
  const source = `${golden}/models/qwen3-moe`;
  await assert.rejects(quantizeModel(source, join(scratch, 'dense.gguf'), { to: 'f32' }), { code: 'NotWritable' });
  const folder = await mkdtemp(join(scratch, 'sparse-'));
  const checkpoint = await openCheckpoint(nodeFolder(source));
  const kept = [...checkpoint.tensors.values()].filter(({ name }) => !name.includes('.layers.1.'));
  const tensors = kept.map((tensor): TensorToWrite => {
    async function* data(): AsyncGenerator<Uint8Array> {
      const bytes = new Uint8Array(tensor.byteLength);
      await tensor.readInto(0, bytes);
      yield bytes;
    }
    const name = tensor.name.replace('.layers.2.', '.layers.1.');
    return { name, dtype: tensor.dtype as 'F32', shape: tensor.shape, data: data() };
  });
  await writeSafeTensors(join(folder, 'model.safetensors'), tensors);
  await checkpoint.close();
  const config = JSON.parse(await readFile(`${source}/config.json`, 'utf8'));
  const sparse = { ...config, mlp_only_layers: [], num_hidden_layers: config.num_hidden_layers - 1 };
  await writeFile(join(folder, 'config.json'), JSON.stringify(sparse));
  await keepsLogits(folder);
});

for (const name of ['bert', 'nomic-bert']) {
  test(`${name}: as f32 GGUF and back it has the same plan, values and words`, async () => {
    const source = `${golden}/encoders/${name}`;
    const folder = await mkdtemp(join(scratch, 'encoder-'));
    const file = join(folder, 'there.gguf');
    await quantizeModel(source, file, { to: 'f32' });
    await quantizeModel(file, join(folder, 'model.safetensors'), { to: 'f32' });
    const [before, after] = await Promise.all([describeModel(source, 'none'), describeModel(folder, 'none')]);
    assert.equal(after.modelType, before.modelType);
    for (const {
      source: { tensor },
    } of after.plan.weights) {
      const [old, now] = [
        await bytesOf(`${source}/model.safetensors`, tensor),
        await bytesOf(join(folder, 'model.safetensors'), tensor),
      ];
      const values = weightTypes[old.dtype.toLowerCase() as 'f16'].dequantize(old.bytes);
      assert.deepEqual(new Float32Array(now.bytes.buffer), values, tensor);
    }
    const { texts } = JSON.parse(await readFile(`${source}/expected.json`, 'utf8'));
    assert.equal((await metadataOf(file)).get(`${name}.pooling_type`)?.value, 1);
    const words = await openTokenizer(file);
    for (const { text, ids } of texts) if (typeof text === 'string') assert.deepEqual(words.encode(text), ids);
  });
}

test('models that GGUF has no words for are refused with the difference', async () => {
  for (const name of ['falcon-rw', 'gpt2-scale-inverse-f16', 'qwen2-window']) {
    const file = join(scratch, `${name}.gguf`);
    await assert.rejects(quantizeModel(`${golden}/models/${name}`, file, { to: 'f32' }), { code: 'NotWritable' }, name);
  }
});

for (const kind of ['q8_0', 'q4_0'] as const) {
  test(`${kind}: the bytes that llama.cpp makes of the same model`, async () => {
    const file = join(scratch, `bytes-${kind}.gguf`);
    await quantizeModel(`${golden}/gguf/llama-256-f16.gguf`, file, { to: kind });
    for (const name of ['token_embd.weight', 'blk.0.attn_q.weight', 'blk.1.ffn_down.weight', 'output_norm.weight']) {
      assert.deepEqual(await bytesOf(file, name), await bytesOf(`${golden}/gguf/llama-256-${kind}.gguf`, name), name);
    }
  });
}

test('every type: blocks of that type, errors that fall with the bits, metadata kept', async () => {
  const source = `${golden}/gguf/llama-256-f16.gguf`;
  let before = 0;
  for (const to of ['q4_0', 'iq4_nl', 'q4_k', 'q5_k', 'q6_k', 'q8_0', 'bf16', 'f32'] satisfies WritableType[]) {
    const file = join(scratch, `type-${to}.gguf`);
    const { tensors } = await quantizeModel(source, file, { to, metrics: true });
    const matrix = tensors.find(({ name }) => name === 'blk.0.ffn_up.weight')!;
    const { dtype, bytes } = await bytesOf(file, 'blk.0.ffn_up.weight');
    assert.equal(dtype, to.toUpperCase());
    assert.equal(bytes.length, matrix.byteLength);
    const { signalToNoise, meanSquaredError, maxAbsoluteError } = matrix.error()!;
    assert.ok(signalToNoise > before, `${to}: ${signalToNoise} dB`);
    assert.ok(maxAbsoluteError ** 2 >= meanSquaredError);
    before = signalToNoise === Number.POSITIVE_INFINITY ? before : signalToNoise;
    const [old, now] = await Promise.all([source, file].map(metadataOf));
    for (const [key, value] of old!) if (key !== 'general.file_type') assert.deepEqual(now!.get(key), value, key);
  }
});

async function metadataOf(file: string) {
  const cut = file.lastIndexOf('/');
  const checkpoint = await openGguf(nodeFolder(file.slice(0, cut)), file.slice(cut + 1));
  await checkpoint.close();
  return checkpoint.metadata;
}

test('a policy decides layer by layer, the rest becomes what is asked', async () => {
  const file = join(scratch, 'policy.gguf');
  const { tensors } = await quantizeModel(`${golden}/models/gpt2-wide`, file, {
    to: 'f16',
    policy: 'q8_0:min-dim=1024,attention=q4_0',
  });
  const types = new Map(tensors.map(({ name, dtype }) => [name, dtype]));
  assert.equal(types.get('blk.0.attn_output.weight'), 'Q4_0');
  assert.equal(types.get('blk.0.ffn_up.weight'), 'Q8_0');
  assert.equal(types.get('token_embd.weight'), 'F16');
  assert.equal(types.get('position_embd.weight'), 'F32');
  assert.equal(types.get('blk.0.attn_output.bias'), 'F32');
});

test('output= also decides how an embedding that doubles as the output head is written', async () => {
  const chosen = async (source: string, name: string, policy = 'q4_0,output=f16'): Promise<string | undefined> => {
    const { tensors } = await quantizeModel(source, join(scratch, 'head.gguf'), { to: 'q8_0', policy, force: true });
    return tensors.find((tensor) => tensor.name === name)?.dtype;
  };
  const tied = fileURLToPath(new URL('../../models/lanewise-stories', import.meta.url));
  assert.equal(await chosen(tied, 'token_embd.weight'), 'F16');
  assert.equal(await chosen(tied, 'token_embd.weight', 'q4_0'), 'Q8_0');
  assert.equal(await chosen(tied, 'token_embd.weight', 'q4_0,embedding=f32'), 'F32');
  const again = join(scratch, 'tied.gguf');
  await quantizeModel(tied, again, { to: 'f16' });
  assert.equal(await chosen(again, 'token_embd.weight'), 'F16');
  const untied = join(golden, 'gguf/llama-256-f16.gguf');
  assert.deepEqual([await chosen(untied, 'token_embd.weight'), await chosen(untied, 'output.weight')], ['Q8_0', 'F16']);
  assert.equal(await chosen(join(golden, 'encoders/bert'), 'token_embd.weight'), 'Q8_0');
});

test('rows that are not whole blocks get a type of smaller blocks', async () => {
  const file = join(scratch, 'rows.gguf');
  const { tensors } = await quantizeModel(`${golden}/models/llama-bias`, file, { to: 'q4_k' });
  const kinds = new Set(tensors.filter(({ shape }) => shape.length === 2).map(({ dtype }) => dtype));
  assert.ok(![...kinds].includes('Q4_K') && kinds.has('Q8_0'), [...kinds].join());
  for (const { dtype, shape } of tensors)
    assert.equal(shape.at(-1)! % weightTypes[dtype.toLowerCase() as 'q8_0'].block, 0);
});

test('beside a SafeTensors file stands what makes a model of it, and what stood there stays', async () => {
  const folder = await mkdtemp(join(scratch, 'beside-'));
  await writeFile(join(folder, 'generation_config.json'), '{}');
  await quantizeModel(`${golden}/models/llama-sharded`, join(folder, 'model.safetensors'), { to: 'f16' });
  const names = [
    'config.json',
    'generation_config.json',
    'model.safetensors',
    'tokenizer.json',
    'tokenizer_config.json',
  ];
  assert.deepEqual((await readdir(folder)).sort(), names);
  assert.equal(await readFile(join(folder, 'generation_config.json'), 'utf8'), '{}');
  await using model = await load(folder, { inline: true, threads: 1 });
  assert.ok(model.tokenizer);
});

test('what cannot be written is said before anything is written', async () => {
  const source = `${golden}/models/gpt2-wide`;
  const taken = join(scratch, 'taken.gguf');
  await writeFile(taken, 'mine');
  await assert.rejects(quantizeModel(source, taken, { to: 'f32' }), { code: 'InvalidOption' });
  assert.equal(await readFile(taken, 'utf8'), 'mine');
  await assert.rejects(quantizeModel(source, join(scratch, 'x.bin'), { to: 'f32' }), { code: 'InvalidOption' });
  await assert.rejects(quantizeModel(source, join(scratch, 'x.safetensors'), { to: 'q8_0' }), {
    code: 'InvalidOption',
  });
  await assert.rejects(quantizeModel(source, join(scratch, 'x.gguf'), { to: 'f32', policy: 'q9' }), {
    code: 'InvalidOption',
  });
  await quantizeModel(source, taken, { to: 'f32', force: true });
  assert.ok((await readFile(taken)).length > 1e6);
});

test('scales that are no numbers are found, with their place', async () => {
  const file = join(scratch, 'damaged.gguf');
  const bytes = await readFile(`${golden}/gguf/llama-256-q8_0.gguf`);
  const checkpoint = await openGguf(nodeFolder(`${golden}/gguf`), 'llama-256-q8_0.gguf');
  const { offset } = checkpoint.tensors.get('blk.1.ffn_up.weight')!;
  await checkpoint.close();
  // The scale of the third block of row 5: f16 infinity.
  bytes.writeUInt16LE(0x7c00, offset + (5 * 8 + 2) * 34);
  await writeFile(file, bytes);
  await assert.rejects(quantizeModel(file, join(scratch, 'never.gguf'), { to: 'q4_0' }), {
    code: 'NotFinite',
    message: /^blk\.1\.ffn_up\.weight: .* row 5, column 64: /,
  });
});

test('threads convert as one thread does, and their errors arrive', async () => {
  const threads = new ThreadedConverter();
  try {
    const pieces = Array.from({ length: 12 }, (_, i): Piece => {
      const values = Float32Array.from({ length: 512 }, (_, k) => Math.sin(i * 512 + k));
      return { from: 'f32', to: 'q4_k', bytes: new Uint8Array(values.buffer), plus: 0.5, metrics: true };
    });
    const copies = pieces.map((piece) => ({ ...piece, bytes: piece.bytes.slice() }));
    const converted = await Promise.all(copies.map((piece) => threads.convert(piece)));
    for (const [i, piece] of pieces.entries()) assert.deepEqual(converted[i], convertPiece(piece), `piece ${i}`);
    for (let i = 0; i < 2 * threads.width; i++) {
      const bad = { ...pieces[0]!, bytes: new Uint8Array(4), from: 'nothing' as 'f32' };
      await assert.rejects(threads.convert(bad), { code: 'ThreadFailed' });
    }
    assert.equal((await threads.convert({ ...pieces[0]!, bytes: new Uint8Array(1024) })).count, 256);
  } finally {
    await threads.close();
  }
});

test('an abort leaves no file', async () => {
  const folder = await mkdtemp(join(scratch, 'abort-'));
  const stop = new AbortController();
  const onProgress = (done: number): void => {
    if (done > 1e5) stop.abort(new Error('enough'));
  };
  const options = { to: 'f32', signal: stop.signal, onProgress } as const;
  await assert.rejects(quantizeModel(`${golden}/models/gpt2-wide`, join(folder, 'x.gguf'), options), /enough/);
  assert.deepEqual(await readdir(folder), []);
});

test('vocabularies: those of the golden GGUF files come out of tokenizer.json', async () => {
  for (const [tokenizer, file] of [
    ['gpt2', 'gpt2-f32'],
    ['llama2', 'llama-f32'],
    ['gemma', 'gemma3-f32'],
  ] as const) {
    const metadata = await metadataOf(`${golden}/gguf/${file}.gguf`);
    const value = (key: string): unknown => metadata.get(`tokenizer.ggml.${key}`)?.value;
    const tokens = value('tokens') as string[];
    const read = (name: string): Promise<string> => readFile(`${golden}/tokenizers/${tokenizer}/${name}`, 'utf8');
    const vocabulary = ggufVocabulary(await read('tokenizer.json'), await read('tokenizer_config.json'), tokens.length);
    assert.deepEqual(vocabulary.tokens, tokens);
    assert.deepEqual(vocabulary.types, value('token_type'));
    assert.deepEqual(vocabulary.scores, value('scores'));
    assert.deepEqual(vocabulary.merges, value('merges'));
    assert.equal(vocabulary.model, value('model'));
    assert.equal(vocabulary.pre, value('pre'));
    assert.equal(vocabulary.addBos, value('add_bos_token'));
    assert.equal(vocabulary.addSpacePrefix, value('add_space_prefix'));
    for (const role of ['bos', 'eos', 'unknown', 'padding']) {
      assert.equal(vocabulary.ids[role], value(`${role}_token_id`), `${tokenizer} ${role}`);
    }
  }
  const preOf = async (name: string, change = (pretokenizer: unknown): unknown => pretokenizer): Promise<string> => {
    const tokenizer = JSON.parse(await readFile(`${golden}/models/${name}/tokenizer.json`, 'utf8'));
    tokenizer.pre_tokenizer = change(tokenizer.pre_tokenizer);
    return ggufVocabulary(JSON.stringify(tokenizer), undefined, 2000).pre;
  };
  assert.equal(await preOf('llama3-rope-bf16'), 'llama3');
  assert.equal(await preOf('qwen2'), 'qwen2');
  assert.equal(await preOf('falcon-7b'), 'falcon');
  const digits = { type: 'Digits', individual_digits: true };
  const afterDigits = (first: unknown): unknown => ({ type: 'Sequence', pretokenizers: [digits, first] });
  assert.equal(await preOf('gpt2-wide', afterDigits), 'starcoder');
  assert.equal(await preOf('gpt2-wide', () => ({ type: 'Split', pattern: { Regex: 'x' } })), 'default');
  const unigram = JSON.stringify({ model: { type: 'Unigram', vocab: [] } });
  assert.throws(() => ggufVocabulary(unigram, undefined, 10), { code: 'NotWritable' });
  const beyond = JSON.stringify({ model: { type: 'BPE', vocab: { a: 10 }, merges: [] } });
  assert.throws(() => ggufVocabulary(beyond, undefined, 10), { code: 'NotWritable' });
});
