/** SentencePiece .model files, written by the tests from golden vocabularies. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { openTokenizer } from '../../src/engine/tokenizer.ts';
import { TokenizerError } from '../../src/errors.ts';
import { nodeFolder } from '../../src/formats/adapters/node.ts';
import { memoryFolder } from '../../src/formats/bytes.ts';
import { openGguf } from '../../src/formats/gguf.ts';
import { loadSentencePiece } from '../../src/tokenizer/sentencepiece.ts';
import { bytesField, numberField, sentencePieceModel } from './tokenizer-protobuf.ts';

const golden = fileURLToPath(new URL('../golden/', import.meta.url));
const json = (path: string): unknown => JSON.parse(readFileSync(`${golden}${path}`, 'utf8'));

async function llamaModel(): Promise<Uint8Array> {
  const { metadata, close } = await openGguf(nodeFolder(`${golden}gguf`), 'llama-f32.gguf');
  await close();
  const value = (key: string): ArrayLike<unknown> => metadata.get(`tokenizer.ggml.${key}`)!.value as ArrayLike<unknown>;
  const pieces = Array.from(value('tokens'), (text, i) => ({
    text: text as string,
    score: value('scores')[i] as number,
    type: value('token_type')[i] as number,
  }));
  const trainer = [...numberField(3, 2), ...numberField(35, 1), ...numberField(40, 0), ...numberField(43, -1)];
  return sentencePieceModel({ pieces, trainer, normalizer: [...numberField(3, 1), ...numberField(4, 0)] });
}

test('merges by score: ids of llama.cpp for the same vocabulary', async () => {
  const tokenizer = loadSentencePiece(await llamaModel(), 'llama.model');
  const { tokenize } = json('gguf/llama.expected.json') as {
    tokenize: { text: string; ids: number[]; ids_special: number[] }[];
  };
  for (const { text, ids, ids_special } of tokenize) {
    assert.deepEqual(tokenizer.encode(text), ids, text);
    assert.deepEqual(tokenizer.encode(text, { parseSpecial: true }), ids_special, text);
    if (!text.includes('▁')) assert.equal(tokenizer.decode(ids, { skipSpecial: true }), text);
  }
});

test('a folder with a SentencePiece model alone has a tokenizer, a folder with nothing has none', async () => {
  const ids = [1, 286, 478, 300];
  for (const name of ['tokenizer.model', 'spiece.model']) {
    const folder = memoryFolder('somewhere', new Map([[name, await llamaModel()]]));
    assert.deepEqual((await openTokenizer(folder)).encode('it is'), ids);
    assert.deepEqual((await openTokenizer(folder, name)).encode('it is'), ids);
  }
  await assert.rejects(openTokenizer(memoryFolder('somewhere', new Map())), /somewhere.*expected a tokenizer.json/);
});

test('unigrams with a character map: ids of tokenizer.json', () => {
  const { model, normalizer } = json('tokenizers/xlm/tokenizer.json') as {
    model: { vocab: [string, number][] };
    normalizer: { normalizers: { precompiled_charsmap?: string }[] };
  };
  const type = (text: string): number => (text === '<unk>' ? 2 : /^<\w+>$|^<\/s>$/.test(text) ? 3 : 1);
  const pieces = model.vocab.map(([text, score]) => ({ text, score, type: type(text) }));
  const map = Buffer.from(normalizer.normalizers[0]!.precompiled_charsmap!, 'base64');
  const trainer = [...numberField(3, 1), ...numberField(40, 3), ...numberField(41, 0), ...numberField(42, 2)];
  const tokenizer = loadSentencePiece(
    sentencePieceModel({ pieces, trainer, normalizer: bytesField(2, map) }),
    'xlm.model',
  );
  const { cases } = json('tokenizers/xlm/vectors.json') as { cases: { text: string; plain_ids: number[] }[] };
  const others = cases.filter(({ text, plain_ids }) => {
    const ids = tokenizer.encode(text, { addSpecial: false, parseSpecial: true });
    return JSON.stringify(ids) !== JSON.stringify(plain_ids);
  });
  // SentencePiece replaces the longest prefix, tokenizer.json whole graphemes.
  assert.ok(others.length <= 6, others.map(({ text }) => JSON.stringify(text)).join(' '));
});

test('broken files give a TokenizerError with the name of the file, and nothing else', async () => {
  const whole = await llamaModel();
  const load = (bytes: Uint8Array): void => {
    try {
      loadSentencePiece(bytes, 'x.model');
    } catch (error) {
      assert.ok(error instanceof TokenizerError && error.message.startsWith('x.model'), String(error));
    }
  };
  const cut = fc.integer({ min: 0, max: whole.length - 1 }).map((length) => whole.slice(0, length));
  const place = fc.integer({ min: 0, max: whole.length - 1 });
  const changed = fc
    .array(fc.tuple(place, fc.integer({ min: 0, max: 255 })), { minLength: 1, maxLength: 4 })
    .map((edits) => {
      const bytes = whole.slice();
      for (const [at, byte] of edits) bytes[at] = byte;
      return bytes;
    });
  fc.assert(fc.property(fc.oneof(cut, changed, fc.uint8Array({ maxLength: 64 })), load), { numRuns: 300 });
  for (const bytes of [
    new Uint8Array(),
    Uint8Array.of(0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f),
    new Uint8Array(11).fill(0xff),
  ]) {
    assert.throws(() => loadSentencePiece(bytes, 'x.model'), TokenizerError);
  }
});
