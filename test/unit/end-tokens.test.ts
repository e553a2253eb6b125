/** End tokens: by the ids in a model's files, and by the text of control tokens. */
import assert from 'node:assert/strict';
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { endEntries, endTokens, knownEnds } from '../../src/engine/end-tokens.ts';
import type { GgufValue } from '../../src/formats/gguf-types.ts';
import { embeddedModel, load, quantizeModel } from '../../src/node.ts';
import { tokenizerFromGguf } from '../../src/tokenizer/gguf.ts';
import { loadTokenizer } from '../../src/tokenizer/load.ts';

const letters = [...'</s>|endofturIm_[EOT]k'].filter((c, i, all) => all.indexOf(c) === i);

function fromJson(added: readonly { content: string; special: boolean }[], words: readonly string[] = []) {
  const vocab = Object.fromEntries([...letters, ...words].map((token, id) => [token, id]));
  const first = Object.keys(vocab).length;
  const added_tokens = added.map((token, i) => ({ ...token, id: first + i }));
  // Each word grows letter by letter.
  const merges: string[] = [];
  for (const word of words) {
    for (let n = 1; n < word.length; n++) {
      const left = word.slice(0, n);
      if (!(left + word[n] in vocab)) vocab[left + word[n]] = 1000 + Object.keys(vocab).length;
      merges.push(`${left} ${word[n]}`);
    }
  }
  const tokenizerJson = JSON.stringify({ model: { type: 'BPE', vocab, merges }, added_tokens });
  return loadTokenizer({ tokenizerJson, name: 'test' });
}

const textsOf = (tokenizer: ReturnType<typeof fromJson>): (string | undefined)[] =>
  knownEnds(tokenizer).map((id) => tokenizer.token(id));

test('control tokens with the text of an end are ends, words of ordinary text are not', () => {
  assert.deepEqual(
    textsOf(
      fromJson([
        { content: '<|im_end|>', special: true },
        { content: '<s>', special: true },
      ]),
    ),
    ['<|im_end|>'],
  );
  // Gemma has HTML as added tokens, some vocabularies have it as words.
  assert.deepEqual(textsOf(fromJson([{ content: '</s>', special: false }])), []);
  assert.deepEqual(textsOf(fromJson([], ['</s>', '<|end|>'])), []);
  assert.deepEqual(textsOf(fromJson([{ content: '</s>', special: true }])), ['</s>']);
  // Phi-3 files have it as an added token that is not a control token.
  assert.deepEqual(textsOf(fromJson([{ content: '<|end|>', special: false }])), ['<|end|>']);
  for (const content of ['<end_of_turn>', '<turn|>', '<|eot_id|>', '<|eom_id|>', '<|endoftext|>', '[EOT]', '<eos>'])
    assert.deepEqual(textsOf(fromJson([{ content, special: true }])), [content]);
});

test('where a turn has channels, the end of a message does not end it', () => {
  const harmony = ['<|end|>', '<|return|>', '<|call|>'].map((content) => ({ content, special: true }));
  assert.deepEqual(textsOf(fromJson(harmony)), ['<|return|>', '<|call|>']);
  assert.deepEqual(textsOf(fromJson(harmony.slice(0, 2))), ['<|end|>', '<|return|>']);
  const tokenizer = fromJson(harmony);
  const end = tokenizer.id('<|end|>')!;
  assert.ok(endTokens({ config: { eos_token_id: end }, tokenizer, vocab: 5000 }).includes(end), 'named by a file');
});

test('ids come from all files and keys, and those beyond the vocabulary are left out', () => {
  const number = (value: number): GgufValue => ({ type: 'uint32', value });
  const metadata = new Map<string, GgufValue>([
    ['tokenizer.ggml.eos_token_id', number(1)],
    ['tokenizer.ggml.eot_token_id', number(2)],
    ['tokenizer.ggml.eom_token_id', number(3)],
    ['tokenizer.ggml.eos_token_ids', { type: 'array', of: 'int32', value: Int32Array.of(1, 4, 900) }],
    ['tokenizer.ggml.bos_token_id', number(9)],
  ]);
  const config = { eos_token_id: [5], text_config: { eos_token_id: 6 } };
  const generation = { eos_token_id: [7, 2, -1, 1.5, 'x'] };
  const ends = endTokens({ config, generation, metadata, tokenizer: undefined, vocab: 100 });
  assert.deepEqual(ends.sort(), [1, 2, 3, 4, 5, 6, 7]);
  const tokens = ['<unk>', '<eos>', '<|end|>'];
  const values = { model: 'gpt2', tokens, merges: [], token_type: Int32Array.of(2, 3, 4) };
  const words = tokenizerFromGguf(
    new Map(Object.entries(values).map(([key, value]) => [`tokenizer.ggml.${key}`, value])),
    'file',
  );
  assert.deepEqual(knownEnds(words!).sort(), [1, 2]);
});

test('each end gets the GGUF key that llama.cpp reads for it', () => {
  const texts = ['<s>', '<|end_of_text|>', '<|eom_id|>', '<|eot_id|>', 'x'];
  const entries = (ends: number[], eos?: number) =>
    Object.fromEntries(
      [...endEntries(ends, eos, (id) => texts[id])].map(([key, { value }]) => [
        key,
        typeof value === 'object' ? [...value] : value,
      ]),
    );
  assert.deepEqual(entries([1, 2, 3]), {
    eos_token_id: 1,
    eom_token_id: 2,
    eot_token_id: 3,
    eos_token_ids: [1, 2, 3],
  });
  assert.deepEqual(entries([1, 4], 1), { eos_token_id: 1, eot_token_id: 4, eos_token_ids: [1, 4] });
  assert.deepEqual(entries([3], 3), { eos_token_id: 3 });
  assert.deepEqual(entries([]), {});
});

async function scratch(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'lanewise-ends-'));
  t.after(() => rm(folder, { recursive: true }));
  return folder;
}

const messages = [{ role: 'user', content: 'Hello, how are you?' }];

test('a converted model ends its turns where the original does', async (t) => {
  const folder = await scratch(t);
  const original = join(folder, 'model');
  await cp(embeddedModel, original, { recursive: true });
  const file = join(folder, 'm.gguf');
  await quantizeModel(original, file, { to: 'f16' });
  const answers = await Promise.all(
    [original, file].map(async (path) => {
      await using model = await load(path, { inline: true, quantize: 'none', threads: 1 });
      const [answer] = await model.generateBatch([{ messages }], { temperature: 0, maxTokens: 60 });
      return { ends: [...model.eosTokenIds].sort(), answer };
    }),
  );
  const [first, second] = answers;
  assert.ok(first!.ends.length >= 2);
  assert.deepEqual(second!.ends, first!.ends);
  assert.equal(second!.answer!.finishReason, 'stop');
  assert.deepEqual(second!.answer!.tokenIds, first!.answer!.tokenIds);
  // Without the keys the text of its control token still says it.
  const back = join(folder, 'back');
  await cp(original, back, { recursive: true });
  for (const name of ['config.json', 'generation_config.json', 'model.safetensors', 'tokenizer.json'])
    await rm(join(back, name), { force: true });
  await quantizeModel(file, join(back, 'model.safetensors'), { to: 'f16' });
  assert.deepEqual(
    JSON.parse(await readFile(join(back, 'generation_config.json'), 'utf8')).eos_token_id.sort(),
    first!.ends,
  );
  await using model = await load(back, { inline: true, quantize: 'none', threads: 1 });
  for (const id of first!.ends) assert.ok(model.eosTokenIds.has(id));
});

test('an end that only generation_config.json names is in the converted file', async (t) => {
  const folder = await scratch(t);
  const original = join(folder, 'model');
  await cp(embeddedModel, original, { recursive: true });
  await writeFile(join(original, 'generation_config.json'), JSON.stringify({ eos_token_id: [0, 77] }));
  const file = join(folder, 'm.gguf');
  await quantizeModel(original, file, { to: 'q8_0' });
  await using model = await load(file, { inline: true, threads: 1 });
  assert.ok(model.eosTokenIds.has(77));
});
