/** Tokenizers from GGUF vocabularies, against llama.cpp. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { makeTokenizer } from '../../bench/make-tokenizer.ts';
import { openTokenizer } from '../../src/engine/tokenizer.ts';
import { TokenizerError } from '../../src/errors.ts';
import { nodeFolder } from '../../src/formats/adapters/node.ts';
import { tokenizerFromGguf } from '../../src/tokenizer/gguf.ts';
import { splittingNames, splittingOf } from '../../src/tokenizer/gguf-patterns.ts';
import { ggufVocabulary } from '../../src/tokenizer/gguf-vocabulary.ts';
import { loadTokenizer } from '../../src/tokenizer/load.ts';
import { inSequence, splitByPattern } from '../../src/tokenizer/pretokenizers.ts';
import type { Tokenizer } from '../../src/tokenizer/tokenizer.ts';

interface Case {
  readonly text: string;
  readonly ids: number[];
  readonly ids_special: number[];
}

const golden = fileURLToPath(new URL('../golden/', import.meta.url));
const json = (path: string): unknown => JSON.parse(readFileSync(`${golden}${path}`, 'utf8'));

for (const name of ['gpt2', 'llama', 'qwen2', 'gemma3']) {
  test(`${name}: ids of llama.cpp, special tokens parsed and not`, async () => {
    const tokenizer = await openTokenizer(nodeFolder(`${golden}gguf`), `${name}-f32.gguf`);
    const { tokenize } = json(`gguf/${name}.expected.json`) as { tokenize: Case[] };
    assert.ok(tokenize.length > 100);
    for (const { text, ids, ids_special } of tokenize) {
      assert.deepEqual(tokenizer.encode(text), ids, text);
      assert.deepEqual(tokenizer.encode(text, { parseSpecial: true }), ids_special, text);
      if (!text.includes('▁')) assert.equal(tokenizer.decode(ids, { skipSpecial: true }), text, text);
    }
  });
}

/** By id: the keys of an object that look like numbers come first. */
const tokensOf = (vocab: Readonly<Record<string, number>>): string[] =>
  Object.entries(vocab)
    .sort(([, a], [, b]) => a - b)
    .map(([token]) => token);

/** GGUF metadata for the vocabulary of a tokenizer.json. */
function bertMetadata(name: string): Map<string, unknown> {
  const { model } = json(`tokenizers/${name}/tokenizer.json`) as { model: { vocab: Record<string, number> } };
  const tokens = tokensOf(model.vocab).map((token) =>
    /^\[.*\]$/.test(token) ? token : token.startsWith('##') ? token.slice(2) : `▁${token}`,
  );
  const ids = (token: string): number => model.vocab[token]!;
  return new Map<string, unknown>([
    ['tokenizer.ggml.model', 'bert'],
    ['tokenizer.ggml.tokens', tokens],
    ['tokenizer.ggml.token_type', Int32Array.from(tokens, (token) => (/^\[.*\]$/.test(token) ? 3 : 1))],
    ['tokenizer.ggml.normalizer.lowercase', name === 'bert'],
    ['tokenizer.ggml.bos_token_id', ids('[CLS]')],
    ['tokenizer.ggml.seperator_token_id', ids('[SEP]')],
    ['tokenizer.ggml.unknown_token_id', ids('[UNK]')],
  ]);
}

for (const name of ['bert', 'bert-cased']) {
  test(`${name}: word pieces of a GGUF file are those of tokenizer.json`, () => {
    const tokenizer = tokenizerFromGguf(bertMetadata(name), name)!;
    const { cases } = json(`tokenizers/${name}/vectors.json`) as { cases: Case[] };
    for (const { text, ids } of cases) {
      // llama.cpp has no limit of word length, and treats a mark in the text like its own.
      if (text.includes('▁') || /\S{101}/u.test(text)) continue;
      assert.deepEqual(tokenizer.encode(text, { parseSpecial: true }), ids, text);
    }
  });
}

test('t5: unigrams of a GGUF file are those of tokenizer.json', () => {
  const { model } = json('tokenizers/xlm/tokenizer.json') as { model: { vocab: [string, number][] } };
  const map = (
    json('tokenizers/xlm/tokenizer.json') as { normalizer: { normalizers: { precompiled_charsmap?: string }[] } }
  ).normalizer.normalizers[0]!.precompiled_charsmap!;
  const control = new Set(['<s>', '<pad>', '</s>', '<mask>']);
  const tokenizer = tokenizerFromGguf(
    new Map<string, unknown>([
      ['tokenizer.ggml.model', 't5'],
      ['tokenizer.ggml.tokens', model.vocab.map(([token]) => token)],
      ['tokenizer.ggml.scores', Float32Array.from(model.vocab, ([, score]) => score)],
      [
        'tokenizer.ggml.token_type',
        Int32Array.from(model.vocab, ([token]) => (token === '<unk>' ? 2 : control.has(token) ? 3 : 1)),
      ],
      ['tokenizer.ggml.precompiled_charsmap', Uint8Array.from(Buffer.from(map, 'base64'))],
      ['tokenizer.ggml.add_space_prefix', true],
      ['tokenizer.ggml.remove_extra_whitespaces', true],
      ['tokenizer.ggml.unknown_token_id', 3],
      ['tokenizer.ggml.eos_token_id', 2],
    ]),
    'xlm',
  )!;
  const { cases } = json('tokenizers/xlm/vectors.json') as { cases: (Case & { plain_ids: number[] })[] };
  const others = cases.filter(({ text, plain_ids }) => {
    const ids = tokenizer.encode(text, { addSpecial: false, parseSpecial: true });
    return JSON.stringify(ids) !== JSON.stringify(plain_ids);
  });
  // SentencePiece replaces the longest prefix, tokenizer.json whole graphemes.
  assert.ok(others.length <= 6, others.map(({ text }) => JSON.stringify(text)).join(' '));
  assert.deepEqual(tokenizer.encode('a').at(-1), 2);
});

for (const name of ['gpt2', 'llama3', 'falcon', 'llama2', 'gemma']) {
  test(`${name}: a vocabulary written as GGUF encodes like its tokenizer.json`, () => {
    const [tokenizerJson, config] = ['tokenizer.json', 'tokenizer_config.json'].map((file) =>
      readFileSync(`${golden}tokenizers/${name}/${file}`, 'utf8'),
    );
    const reference = loadTokenizer({ tokenizerJson: tokenizerJson!, name });
    const { model, pre, tokens, types, merges, scores, ids, addBos, addSpacePrefix } = ggufVocabulary(
      tokenizerJson!,
      config,
      reference.vocabSize,
    );
    const entries = Object.entries({
      model,
      pre,
      tokens,
      token_type: types,
      merges,
      scores,
      add_bos_token: addBos,
      add_space_prefix: addSpacePrefix,
      ...Object.fromEntries(Object.entries(ids).map(([role, id]) => [`${role}_token_id`, id])),
    });
    const written = tokenizerFromGguf(new Map(entries.map(([key, value]) => [`tokenizer.ggml.${key}`, value])), name)!;
    const { cases } = json(`tokenizers/${name}/vectors.json`) as { cases: Case[] };
    for (const { text } of cases) {
      for (const parseSpecial of [true, false]) {
        assert.deepEqual(written.encode(text, { parseSpecial }), reference.encode(text, { parseSpecial }), text);
      }
    }
  });
}

test('every name of a pre-tokenizer that is known gives text back', () => {
  const { tokenizer } = makeTokenizer('gpt2', 2000);
  const { vocab, merges } = tokenizer.model as { vocab: Record<string, number>; merges: string[][] };
  const text = "I'll see 1234567 trees, don't you?  \n\n  Ünïcode 日本語 🦊 ALLCaps\t";
  for (const pre of splittingNames.filter(
    (name) => !['gemma4', 'granite-embed-multi-311m', 'sarvam-moe', 'whitespace'].includes(name),
  )) {
    const file = tokenizerFromGguf(
      new Map<string, unknown>([
        ['tokenizer.ggml.model', 'gpt2'],
        ['tokenizer.ggml.pre', pre],
        ['tokenizer.ggml.tokens', tokensOf(vocab)],
        ['tokenizer.ggml.merges', merges.map((merge) => merge.join(' '))],
        ['tokenizer.ggml.bos_token_id', 1999],
        ['tokenizer.ggml.seperator_token_id', 1999],
      ]),
      pre,
    )!;
    assert.equal(file.decode(file.encode(text, { addSpecial: false })), text, pre);
  }
  assert.ok(loadTokenizer({ tokenizerJson: JSON.stringify(tokenizer), name: 'gpt2' }));
});

test('gemma4 marks spaces and has tokens for bytes and for line feeds', () => {
  const { tokenizer } = makeTokenizer('gemma', 3000);
  const { vocab, merges } = tokenizer.model as { vocab: Record<string, number>; merges: string[][] };
  const file = tokenizerFromGguf(
    new Map<string, unknown>([
      ['tokenizer.ggml.model', 'gemma4'],
      ['tokenizer.ggml.tokens', tokensOf(vocab)],
      ['tokenizer.ggml.merges', merges.map((merge) => merge.join(' '))],
      ['tokenizer.ggml.bos_token_id', vocab['<bos>']],
    ]),
    'gemma4',
  )!;
  const reference = loadTokenizer({ tokenizerJson: JSON.stringify(tokenizer), name: 'gemma' });
  const text = 'the train to Oslo\nand 日本 back';
  assert.deepEqual(file.encode(text), reference.encode(text));
  assert.equal(file.decode(file.encode(text), { skipSpecial: true }), text);
});

test('vocabularies that contradict themselves are refused, naming the key', () => {
  const tokens = ['<unk>', '<s>', '</s>', 'a', 'b', 'ab'];
  const llama = {
    model: 'llama',
    tokens,
    scores: new Float32Array(6),
    token_type: Int32Array.of(2, 3, 3, 1, 1, 1),
  };
  const gpt2 = { model: 'gpt2', pre: 'gpt-2', tokens, merges: ['a b'] };
  const broken: readonly (readonly [Record<string, unknown>, RegExp])[] = [
    [{ ...llama, scores: new Float32Array(5) }, /scores.*6 numbers/],
    [{ ...llama, scores: undefined }, /scores/],
    [{ ...llama, scores: ['1'] }, /scores/],
    [{ ...llama, token_type: new Int32Array(2) }, /token_type/],
    [{ ...llama, bos_token_id: '1' }, /bos_token_id/],
    [{ ...llama, eos_token_id: 1.5 }, /eos_token_id/],
    [{ ...llama, tokens: 'abc' }, /tokens/],
    [{ ...llama, tokens: [...tokens.slice(0, 5), 'a'] }, /"a"/],
    [{ ...llama, tokens: [1, 2, 3, 4, 5, 6] }, /tokens/],
    [{ ...gpt2, merges: ['a c'] }, /"c"/],
    [{ ...gpt2, merges: ['b a'] }, /"ba"/],
    [{ ...gpt2, merges: ['ab'] }, /merges\[0\]/],
    [{ ...gpt2, merges: undefined }, /merges/],
    [{ ...gpt2, pre: 'parrot' }, /pre/],
    [{ ...gpt2, model: 'parrot' }, /model/],
    [{ ...gpt2, add_bos_token: true }, /add_bos_token/],
    [
      { ...gpt2, model: 't5', scores: new Float32Array(6), precompiled_charsmap: Uint8Array.of(9, 0, 0, 0, 1) },
      /charsmap/,
    ],
    [{ ...gpt2, model: 'bert', unknown_token_id: 6 }, /unknown_token_id/],
  ];
  const entries = (fields: Record<string, unknown>): Map<string, unknown> =>
    new Map(Object.entries(fields).map(([key, value]) => [`tokenizer.ggml.${key}`, value]));
  for (const [fields, message] of broken) {
    assert.throws(
      () => tokenizerFromGguf(entries(fields), 'file.gguf'),
      (error) => error instanceof TokenizerError && message.test(error.message) && /^file.gguf: /.test(error.message),
      `${message}`,
    );
  }
  assert.ok(tokenizerFromGguf(entries(llama), 'file.gguf'));
  assert.ok(tokenizerFromGguf(entries(gpt2), 'file.gguf'));
  assert.equal(tokenizerFromGguf(new Map(), 'file.gguf'), undefined);
});

test('ids beyond the vocabulary are told of once and left out', () => {
  const warnings: string[] = [];
  const make = (fields: Record<string, unknown>): Tokenizer =>
    tokenizerFromGguf(
      new Map<string, unknown>(
        Object.entries({
          model: 'llama',
          tokens: ['<unk>', '<s>', '</s>', 'a', 'b', 'ab'],
          scores: new Float32Array(6),
          token_type: Int32Array.of(2, 3, 3, 1, 1, 1),
          add_space_prefix: false,
          ...fields,
        }).map(([key, value]) => [`tokenizer.ggml.${key}`, value]),
      ),
      'file.gguf',
      (message) => warnings.push(message),
    )!;
  const tokenizer = make({
    bos_token_id: 6,
    eos_token_id: 2,
    padding_token_id: -1,
    seperator_token_id: 2 ** 32 - 1,
    add_sep_token: true,
  });
  assert.deepEqual(tokenizer.encode('ab'), [1, 5]);
  assert.deepEqual(
    warnings.map((message) => /(\w+_token_id): expected an id below 6, found (-?\d+)/.exec(message)?.slice(1)),
    [
      ['bos_token_id', '6'],
      ['padding_token_id', '-1'],
      ['seperator_token_id', '4294967295'],
    ],
  );
  assert.deepEqual(tokenizer.role('eos'), { id: 2, text: '</s>' });
  assert.equal(tokenizer.role('bos'), undefined);
});

test('ends of turns are control tokens whatever their type says', () => {
  const tokens = ['<unk>', '<s>', '</s>', ...'<|im_end>'].concat('<|im_end|>', '<|im_start|>');
  const unique = [...new Set(tokens)];
  const tokenizer = tokenizerFromGguf(
    new Map<string, unknown>([
      ['tokenizer.ggml.model', 'gpt2'],
      ['tokenizer.ggml.pre', 'qwen2'],
      ['tokenizer.ggml.tokens', unique],
      ['tokenizer.ggml.token_type', new Int32Array(unique.length).fill(1)],
      ['tokenizer.ggml.merges', []],
    ]),
    'file.gguf',
  )!;
  const end = unique.indexOf('<|im_end|>');
  assert.deepEqual(tokenizer.encode('d<|im_end|>', { parseSpecial: true }), [unique.indexOf('d'), end]);
  assert.ok(!tokenizer.encode('<|im_end|>').includes(end));
  assert.ok(!tokenizer.specialIds.includes(unique.indexOf('<|im_start|>')));
});

test('pre-tokenizers cut where llama.cpp does', () => {
  const words = (pre: string, text: string): string[] => {
    const { patterns } = splittingOf(pre)!;
    const out: string[] = [];
    inSequence(patterns.map((pattern) => splitByPattern(pattern, pre)))(
      text,
      true,
      (piece) => piece && out.push(piece),
    );
    return out;
  };
  assert.deepEqual(words('afmoe', 'in 1234567 ways, 12'), ['in', ' ', '1', '234', '567', ' ways', ',', ' ', '12']);
  assert.deepEqual(words('afmoe', 'go日本ภาษา'), ['go', '日本', 'ภาษา']);
  assert.deepEqual(words('spark2_5', 'a 123!\n\nb'), ['a', ' ', '1', '2', '3', '!', '\n', '\n', 'b']);
  assert.deepEqual(words('deepseek-v3', 'a!\n\nb'), ['a', '!\n\n', 'b']);
  assert.deepEqual(words('chameleon', "IMGIMGABCZ don't  7"), ['IMGIMGABCZ', ' don', "'", 't', '  ', '7']);
  assert.deepEqual(words('glm5', '12345 ok'), words('llama3', '12345 ok'));
  assert.ok(splittingOf('glm4')!.ignoreMerges && splittingOf('glm5')!.ignoreMerges);
});
