/** Vocabularies without a tokenizer.json, and sidecar files. */
import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { openTokenizer } from '../../src/engine/tokenizer.ts';
import { LanewiseError, TokenizerError } from '../../src/errors.ts';
import { nodeFolder } from '../../src/formats/adapters/node.ts';
import { memoryFolder } from '../../src/formats/bytes.ts';
import { ggufVocabulary } from '../../src/tokenizer/gguf-vocabulary.ts';
import type { Tokenizer } from '../../src/tokenizer/tokenizer.ts';
import { composeMerges, loadComposed, tokenizerJsonOf } from '../../src/tokenizer/vocabulary-files.ts';
import { numberField, sentencePieceModel } from './tokenizer-protobuf.ts';

const golden = fileURLToPath(new URL('../golden/', import.meta.url));
const encoder = new TextEncoder();

type Files = Record<string, string | Uint8Array | object>;

const filesOf = (path: string): Files =>
  Object.fromEntries(
    readdirSync(`${golden}${path}`).map((name) => [name, new Uint8Array(readFileSync(`${golden}${path}/${name}`))]),
  );

function open(files: Files): Promise<Tokenizer> {
  const bytes = (value: string | Uint8Array | object): Uint8Array =>
    value instanceof Uint8Array ? value : encoder.encode(typeof value === 'string' ? value : JSON.stringify(value));
  return openTokenizer(memoryFolder('here', new Map(Object.entries(files).map(([name, file]) => [name, bytes(file)]))));
}

const textOf = (files: Files, name: string): string => new TextDecoder().decode(files[name] as Uint8Array);
const parsed = (files: Files, name: string): Record<string, unknown> => JSON.parse(textOf(files, name));

const text = 'Hello world<|im_start|>';
const control = { parseSpecial: true };

test('tokens of added_tokens.json and added_tokens_decoder are found beside a SentencePiece model', async () => {
  const all = filesOf('sidecars/spm-with-added-tokens-json');
  const ids = [1, 301, 75, 306, 278, 290, 321];
  const { 'added_tokens.json': addedTokens, 'tokenizer_config.json': config, ...model } = all;
  const { added_tokens_decoder: _, ...old } = parsed(all, 'tokenizer_config.json');
  for (const files of [
    all,
    { ...model, 'tokenizer_config.json': config! },
    {
      ...model,
      'tokenizer_config.json': { ...old, additional_special_tokens: ['<|im_start|>'] },
      'added_tokens.json': addedTokens!,
    },
    { ...model, 'special_tokens_map.json': { additional_special_tokens: ['<|im_end|>', { content: '<|im_start|>' }] } },
  ]) {
    const tokenizer = await open(files);
    assert.deepEqual(tokenizer.encode(text, control), ids);
    assert.ok(!tokenizer.encode(text).includes(321));
    assert.equal(tokenizer.decode(ids, { skipSpecial: true }), 'Hello world');
  }
  assert.deepEqual((await open(all)).role('eos'), { id: 320, text: '<|im_end|>' });
});

test('add_bos_token and add_eos_token put tokens around a text, or take them away', async () => {
  const byteLevel = filesOf('sidecars/add-bos-token-in-config');
  const spm = filesOf('sidecars/spm-with-added-tokens-json');
  const config = { bos_token: '<s>', eos_token: { content: '</s>' } };
  const encode = async (files: Files, flags: object): Promise<number[]> =>
    (await open({ ...files, 'tokenizer_config.json': { ...config, ...flags } })).encode('Hello');
  assert.deepEqual(await encode(byteLevel, {}), [339]);
  assert.deepEqual(await encode(byteLevel, { add_bos_token: true }), [1, 339]);
  assert.deepEqual(await encode(byteLevel, { add_bos_token: true, add_eos_token: true }), [1, 339, 2]);
  assert.deepEqual(await encode(byteLevel, { add_bos_token: true, bos_token: null }), [339]);
  assert.deepEqual(await encode(spm, {}), [1, 301, 75, 306, 278]);
  assert.deepEqual(await encode(spm, { add_bos_token: false, add_eos_token: true }), [301, 75, 306, 278, 2]);
  const sequence = { Sequence: { id: 'A', type_id: 0 } };
  const post_processor = {
    type: 'TemplateProcessing',
    single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, sequence],
    pair: [{ SpecialToken: { id: '<s>', type_id: 0 } }, sequence, { Sequence: { id: 'B', type_id: 1 } }],
    special_tokens: { '<s>': { id: '<s>', ids: [1], tokens: ['<s>'] } },
  };
  const framed = { 'tokenizer.json': { ...parsed(byteLevel, 'tokenizer.json'), post_processor } };
  assert.deepEqual(await encode(framed, {}), [1, 339]);
  assert.deepEqual(await encode(framed, { add_bos_token: true }), [1, 339]);
  assert.deepEqual(await encode(framed, { add_bos_token: false, add_eos_token: true }), [339, 2]);
  const pairs = await open({ ...byteLevel, 'tokenizer_config.json': { ...config, add_bos_token: true } });
  assert.deepEqual(pairs.encodePair('Hello', 'Hello'), { ids: [1, 339, 1, 339], typeIds: [0, 0, 1, 1] });
});

test('vocab.json and merges.txt: the ids of the tokenizer.json that they come from', async () => {
  assert.deepEqual(
    (await open(filesOf('sidecars/vocab-json-and-merges-txt'))).encode(text, control),
    [339, 340, 282, 358, 65, 381, 283],
  );
  for (const [name, className] of [
    ['gpt2', 'GPT2Tokenizer'],
    ['roberta', 'RobertaTokenizerFast'],
    ['qwen2', 'Qwen2Tokenizer'],
  ] as const) {
    const whole = filesOf(`tokenizers/${name}`);
    const { model, added_tokens } = parsed(whole, 'tokenizer.json') as {
      model: { vocab: Record<string, number>; merges: (string | string[])[] };
      added_tokens: { content: string; id: number }[];
    };
    const merges = model.merges.map((merge) => (typeof merge === 'string' ? merge : merge.join(' ')));
    const tokenizer = await open({
      'vocab.json': model.vocab,
      'merges.txt': `#version: 0.2\n${merges.join('\r\n')}\n`,
      'tokenizer_config.json': {
        tokenizer_class: className,
        added_tokens_decoder: Object.fromEntries(added_tokens.map(({ id, ...token }) => [id, token])),
      },
    });
    const { cases } = parsed(whole, 'vectors.json') as { cases: { text: string; ids: number[]; decoded: string }[] };
    for (const { text, ids, decoded } of cases) {
      assert.deepEqual(tokenizer.encode(text, control), ids, `${name}: ${text}`);
      assert.equal(tokenizer.decode(ids), decoded);
    }
  }
});

test('vocab.json and merges.txt are written to GGUF as their tokenizer.json is', () => {
  const tokenizerJson = readFileSync(`${golden}tokenizers/gpt2/tokenizer.json`, 'utf8');
  const { model, added_tokens } = JSON.parse(tokenizerJson);
  const merges = model.merges.map((merge: string | string[]) => (typeof merge === 'string' ? merge : merge.join(' ')));
  const [{ content, id }] = added_tokens;
  const tokenizerConfig = JSON.stringify({ tokenizer_class: 'GPT2Tokenizer', eos_token: content });
  const composed = composeMerges({
    vocabJson: JSON.stringify(model.vocab),
    mergesTxt: merges.join('\n'),
    sidecars: { tokenizerConfig, addedTokens: JSON.stringify({ [content]: id }) },
    name: 'here',
  });
  const json = tokenizerJsonOf(composed, loadComposed(composed));
  assert.deepEqual(ggufVocabulary(json, tokenizerConfig, 1024), ggufVocabulary(tokenizerJson, tokenizerConfig, 1024));
});

test('vocab.txt: the ids of the tokenizer.json that it comes from', async () => {
  for (const [name, config] of [
    ['bert', { tokenizer_class: 'BertTokenizer' }],
    ['bert-cased', { do_lower_case: false }],
    ['mpnet', { tokenizer_class: 'MPNetTokenizer', mask_token: { content: '<mask>', lstrip: true } }],
  ] as const) {
    const whole = filesOf(`tokenizers/${name}`);
    const { model } = parsed(whole, 'tokenizer.json') as { model: { vocab: Record<string, number> } };
    const tokens = Object.entries(model.vocab).sort(([, a], [, b]) => a - b);
    const lines = tokens.map(([token]) => token).join('\n');
    const tokenizer = await open({ 'vocab.txt': `${lines}\n`, 'tokenizer_config.json': config });
    const { cases, pairs } = parsed(whole, 'vectors.json') as {
      cases: { text: string; ids: number[]; decoded: string }[];
      pairs: { pair: [string, string]; ids: number[]; type_ids: number[] }[];
    };
    for (const { text, ids, decoded } of cases) {
      // A control token of this tokenizer.json only.
      if (name === 'mpnet' && text.includes('<unk>')) continue;
      assert.deepEqual(tokenizer.encode(text, control), ids, `${name}: ${text}`);
      assert.equal(tokenizer.decode(ids), decoded);
    }
    for (const { pair, ids, type_ids } of pairs)
      assert.deepEqual(tokenizer.encodePair(...pair, control), { ids, typeIds: type_ids });
  }
});

/** A unigram model with these pieces behind its control tokens. */
function unigram(
  controls: readonly string[],
  words: readonly (readonly [string, number])[],
  unknown: number,
): Uint8Array {
  const pieces = [
    ...controls.map((text, id) => ({ text, score: 0, type: id === unknown ? 2 : 3 })),
    ...words.map(([text, score]) => ({ text, score, type: 1 })),
  ];
  const trainer = [...numberField(3, 1), ...numberField(40, unknown), ...numberField(41, -1), ...numberField(42, -1)];
  return sentencePieceModel({ pieces, trainer, normalizer: [...numberField(3, 1), ...numberField(4, 1)] });
}

test('classes that give the pieces of a SentencePiece model other ids', async () => {
  const words = [
    ['▁', -3],
    ['▁a', -1],
    ['b', -2],
  ] as const;
  const fairseq = unigram(['<unk>', '<s>', '</s>'], words, 0);
  const xlm = {
    'sentencepiece.bpe.model': fairseq,
    'tokenizer_config.json': { tokenizer_class: 'XLMRobertaTokenizer' },
  };
  const byType = { 'sentencepiece.bpe.model': fairseq, 'config.json': { model_type: 'xlm-roberta' } };
  for (const files of [xlm, byType]) {
    const tokenizer = await open(files);
    assert.deepEqual(tokenizer.encode('ab c'), [0, 5, 6, 4, 3, 2]);
    assert.deepEqual(tokenizer.encodePair('a', 'a').ids, [0, 5, 2, 2, 5, 2]);
    assert.deepEqual([tokenizer.token(1), tokenizer.token(7), tokenizer.vocabSize], ['<pad>', '<mask>', 8]);
  }
  const camembert = await open({ ...xlm, 'tokenizer_config.json': { tokenizer_class: 'CamembertTokenizer' } });
  assert.deepEqual(camembert.encode('ab'), [5, 8, 9, 6]);
  const t5 = await open({
    'spiece.model': unigram(['<pad>', '</s>', '<unk>'], words, 2),
    'tokenizer_config.json': { tokenizer_class: 'T5TokenizerFast', extra_ids: 3, eos_token: '</s>' },
  });
  assert.deepEqual(t5.encode('ab<extra_id_0>', control), [4, 5, 8, 1]);
  assert.deepEqual(
    ['<extra_id_0>', '<extra_id_2>'].map((token) => t5.id(token)),
    [8, 6],
  );
  const deberta = await open({
    'spm.model': unigram(['[PAD]', '[CLS]', '[SEP]', '[UNK]'], words, 3),
    'tokenizer_config.json': { tokenizer_class: 'DebertaV2Tokenizer', mask_token: '[MASK]' },
    'added_tokens.json': { '[MASK]': 7 },
  });
  assert.deepEqual(deberta.encode('ab[MASK]', control), [1, 5, 6, 7, 2]);
});

test('legacy and add_prefix_space say where a mark of a space goes', async () => {
  const files = filesOf('sidecars/spm-with-added-tokens-json');
  const encode = async (settings: object): Promise<number[]> =>
    (
      await open({
        ...files,
        'tokenizer_config.json': { ...parsed(files, 'tokenizer_config.json'), ...settings },
      })
    ).encode('a<|im_start|>world', control);
  assert.deepEqual(await encode({}), [1, 301, 302, 321, 290]);
  assert.deepEqual(await encode({ legacy: true }), [1, 301, 302, 321, 290]);
  assert.deepEqual(await encode({ legacy: false }), [1, 301, 302, 321, 315, 281]);
  assert.deepEqual(await encode({ add_prefix_space: false }), [1, 302, 321, 315, 281]);
});

test('unknown pieces may be renamed by added_tokens_decoder', async () => {
  const files = filesOf('sidecars/spm-with-added-tokens-json');
  const tokenizer = await open({
    'tokenizer.model': files['tokenizer.model']!,
    'tokenizer_config.json': { added_tokens_decoder: { 300: { content: '<|tool|>', special: true } } },
  });
  assert.deepEqual(tokenizer.encode('a<|tool|>', control), [1, 301, 302, 300]);
});

test('do_lower_case, strip_accents and tokenize_chinese_chars of vocab.txt', async () => {
  const vocab = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', 'Ä', 'a', 'ä', '中', '文', '中文'].join('\n');
  const encode = async (config: object): Promise<number[]> =>
    (await open({ 'vocab.txt': vocab, 'tokenizer_config.json': config })).encode('Ä 中文', { addSpecial: false });
  assert.deepEqual(await encode({}), [5, 7, 8]);
  assert.deepEqual(await encode({ strip_accents: false }), [6, 7, 8]);
  assert.deepEqual(await encode({ do_lower_case: false }), [4, 7, 8]);
  assert.deepEqual(await encode({ do_lower_case: false, tokenize_chinese_chars: false }), [4, 9]);
});

test('tekken.json: control tokens first, words that are tokens stay whole, lower ranks merge first', async () => {
  const bytes = Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte));
  const words = ['he', 'll', 'llo', 'hello', ' w', 'or'].map((word) => encoder.encode(word));
  const vocab = [...bytes, ...words].map((token, rank) => ({
    rank,
    token_bytes: Buffer.from(token).toString('base64'),
    token_str: null,
  }));
  const special = ['<unk>', '<s>', '</s>', '[INST]'].map((token_str, rank) => ({ rank, token_str, is_control: true }));
  const tekken = {
    config: {
      pattern: '[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+|\\s+',
      num_vocab_tokens: vocab.length,
      default_vocab_size: 10 + vocab.length,
      default_num_special_tokens: 10,
      version: 'v7',
    },
    vocab,
    special_tokens: special,
  };
  const tokenizer = await open({ 'tekken.json': tekken });
  const byte = (character: string): number => 10 + character.charCodeAt(0);
  const hello = 10 + 256 + 3;
  assert.deepEqual(tokenizer.encode('[INST]hello world', control), [
    ...[1, 3, hello, 10 + 256 + 4, 10 + 256 + 5, byte('l'), byte('d')],
  ]);
  assert.ok(!tokenizer.encode('[INST]').includes(3));
  assert.equal(tokenizer.token(9), '<SPECIAL_9>');
  assert.equal(tokenizer.decode(tokenizer.encode('hello wörld 日本'), { skipSpecial: true }), 'hello wörld 日本');
  assert.deepEqual(tokenizer.role('eos'), { id: 2, text: '</s>' });
  const { special_tokens: _, ...older } = tekken;
  assert.deepEqual((await open({ 'tekken.json': older })).encode('[INST]', control), [1, 3]);
  for (const [broken, message] of [
    [{ ...tekken, vocab: vocab.slice(0, 100) }, /tekken\.json\.vocab/],
    [{ ...tekken, vocab: [{ rank: 0, token_bytes: '!' }, ...vocab.slice(1)] }, /vocab\[0\].*base64/],
    [{ ...tekken, config: {} }, /config/],
  ] as const) {
    await assert.rejects(
      open({ 'tekken.json': broken }),
      (error) =>
        error instanceof TokenizerError && message.test(error.message) && error.message.startsWith('here/tekken.json'),
    );
  }
});

test('broken and missing files are named', async () => {
  const merges = filesOf('sidecars/vocab-json-and-merges-txt');
  const spm = filesOf('sidecars/spm-with-added-tokens-json');
  const { 'merges.txt': _, ...withoutMerges } = merges;
  const { 'vocab.json': __, ...withoutVocab } = merges;
  const cases: readonly (readonly [Files, RegExp])[] = [
    [withoutMerges, /^here\/merges\.txt.*vocab\.json/],
    [withoutVocab, /^here\/vocab\.json.*merges\.txt/],
    [{ ...merges, 'vocab.json': '{' }, /^here\/vocab\.json.*JSON/],
    [{ ...merges, 'vocab.json': { a: 'b' } }, /^here\/vocab\.json/],
    [{ ...merges, 'merges.txt': '#version: 0.2\na b c\n' }, /^here\/merges\.txt, line 2/],
    [{ ...merges, 'merges.txt': 'a parrot\n' }, /^here\/merges\.txt, line 1.*parrot/],
    [{ ...merges, 'tokenizer_config.json': '[' }, /^here\/tokenizer_config\.json.*JSON/],
    [{ ...merges, 'tokenizer_config.json': { add_bos_token: 'yes' } }, /^here\/tokenizer_config\.json\.add_bos_token/],
    [{ ...spm, 'added_tokens.json': { a: -1 } }, /^here\/added_tokens\.json\.a/],
    [{ ...spm, 'added_tokens.json': 'null' }, /^here\/added_tokens\.json/],
    [{ ...spm, 'special_tokens_map.json': '[]' }, /^here\/special_tokens_map\.json/],
    [
      { ...spm, 'tokenizer_config.json': { added_tokens_decoder: { x: {} } } },
      /^here\/tokenizer_config\.json\.added_tok/,
    ],
    [{ 'vocab.txt': 'a\nb\n' }, /^here\/vocab\.txt.*\[UNK\]/],
  ];
  for (const [files, message] of cases) {
    await assert.rejects(open(files), (error) => {
      assert.ok(error instanceof LanewiseError, String(error));
      assert.match(error.message, message);
      return true;
    });
  }
});

test('a Git LFS pointer in place of any of the files is called that', async () => {
  const pointer = 'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1234\n';
  const beside: Readonly<Record<string, string>> = {
    'added_tokens.json': 'spm-with-added-tokens-json',
    'tokenizer_config.json': 'add-bos-token-in-config',
    'special_tokens_map.json': 'vocab-json-and-merges-txt',
    'merges.txt': 'vocab-json-and-merges-txt',
    'vocab.json': 'vocab-json-and-merges-txt',
  };
  const alone = ['tokenizer.json', 'tokenizer.model', 'spiece.model', 'tekken.json', 'vocab.txt'];
  for (const name of [...alone, ...Object.keys(beside)]) {
    const folder = mkdtempSync(join(tmpdir(), 'lanewise-'));
    try {
      if (beside[name]) cpSync(`${golden}sidecars/${beside[name]}`, folder, { recursive: true });
      writeFileSync(join(folder, name), pointer);
      await assert.rejects(openTokenizer(nodeFolder(folder)), (error) => {
        assert.ok(error instanceof LanewiseError, String(error));
        assert.ok(error.message.startsWith(join(folder, name)), error.message);
        return /a Git LFS pointer.*git lfs pull/.test(error.message);
      });
    } finally {
      rmSync(folder, { recursive: true });
    }
  }
});

test('a byte level normalizer spells the text in the alphabet of bytes', async () => {
  assert.deepEqual((await open(filesOf('sidecars/bytelevel-normalizer'))).encode('Hello world'), [339, 340]);
});

test('ends of words are marked once where a vocabulary marks spaces too', async () => {
  const tokenizer = await open({
    'tokenizer.json': {
      model: {
        type: 'BPE',
        vocab: { '▁': 0, a: 1, b: 2, 'b</w>': 3, 'a</w>': 4, '▁a': 5, '▁b</w>': 6 },
        merges: ['▁ a', '▁ b</w>'],
        end_of_word_suffix: '</w>',
      },
    },
  });
  assert.deepEqual(tokenizer.encode('▁a▁b'), [5, 6]);
});

test('bytes in a row that are no UTF-8 give a replacement character each', async () => {
  const vocab = Array.from({ length: 256 }, (_, i) => [`<0x${i.toString(16).toUpperCase().padStart(2, '0')}>`, -1]);
  const tokenizer = await open({
    'tokenizer.json': {
      model: { type: 'Unigram', vocab: [...vocab, ['▁', -1], ['<unk>', 0]], unk_id: 257, byte_fallback: true },
      decoder: { type: 'ByteFallback' },
    },
  });
  assert.equal(tokenizer.decode([0xff, 0xf0, 0x9f]), '\ufffd\ufffd\ufffd');
  assert.equal(tokenizer.decode([0xe2, 0x82, 0xac, 256, 0xff]), '€▁\ufffd');
  assert.equal(tokenizer.decode([0xe2, 0x82, 0xac, 0xff]), '\ufffd\ufffd\ufffd\ufffd');
});
