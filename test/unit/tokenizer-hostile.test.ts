/** Inconsistent tokenizer files, and texts designed to take long. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import fc from 'fast-check';
import { OptionError, TokenizerError } from '../../src/errors.ts';
import { loadTokenizer } from '../../src/tokenizer/load.ts';
import type { Tokenizer } from '../../src/tokenizer/tokenizer.ts';
import { checkMutant, mutants } from './tokenizer-arbitrary.ts';

const golden = new URL('../golden/tokenizers/', import.meta.url);
const text = (name: string): string => readFileSync(new URL(`${name}/tokenizer.json`, golden), 'utf8');
// biome-ignore lint/suspicious/noExplicitAny: files are changed at arbitrary paths.
type Json = Record<string, any>;
const load = (json: unknown): Tokenizer => loadTokenizer({ tokenizerJson: JSON.stringify(json), name: 'here' });

const tiny = {
  added_tokens: [] as Json[],
  model: { type: 'BPE', vocab: { a: 0, b: 1, ab: 2, '<unk>': 3 }, merges: ['a b'], unk_token: '<unk>' } as Json,
};
const template = (id: string, ids: unknown): Json => ({
  type: 'TemplateProcessing',
  single: [{ SpecialToken: { id, type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
  pair: [],
  special_tokens: { '<s>': { id: '<s>', ids, tokens: ['<s>'] } },
});
const withVocab = (vocab: Json): Json => ({ ...tiny, model: { ...tiny.model, vocab } });

test('files that make no sense are refused, naming the place', () => {
  const broken: readonly (readonly [Json, RegExp])[] = [
    [{ ...tiny, model: { ...tiny.model, merges: ['a c'] } }, /merges\[0\].*"c"/],
    [{ ...tiny, model: { ...tiny.model, merges: ['b a'] } }, /"ba"/],
    [{ ...tiny, model: { ...tiny.model, merges: [['a']] } }, /merges\[0\]/],
    [{ ...tiny, model: { ...tiny.model, merges: [1] } }, /merges\[0\]/],
    [{ ...tiny, model: { ...tiny.model, fuse_unk: 'yes' } }, /fuse_unk/],
    [{ ...tiny, model: { ...tiny.model, type: 'constructor' } }, /model.type/],
    [{ ...tiny, normalizer: { type: '__proto__' } }, /normalizer.type/],
    [{ ...tiny, normalizer: { type: 'toString' } }, /normalizer.type/],
    [{ ...tiny, pre_tokenizer: { type: 'FixedLength', length: 0 } }, /length/],
    [{ ...tiny, pre_tokenizer: { type: 'Split', pattern: { Regex: '(' }, behavior: 'Isolated' } }, /pattern/],
    [{ ...tiny, pre_tokenizer: { type: 'Split', pattern: { String: ' ' }, behavior: 'Sideways' } }, /behavior/],
    [{ ...tiny, truncation: { max_length: 5, stride: 5 } }, /stride/],
    [{ ...tiny, post_processor: template('</s>', [0]) }, /special_tokens/],
    [{ ...tiny, post_processor: template('<s>', [99]) }, /<s>/],
    [{ ...tiny, post_processor: template('<s>', ['0']) }, /<s>/],
    [{ ...tiny, decoder: { type: 'Strip', content: ' ', start: -1, stop: 0 } }, /start/],
    [{ ...tiny, normalizer: { type: 'Precompiled', precompiled_charsmap: '!' } }, /base64/],
    [{ ...tiny, normalizer: { type: 'Precompiled', precompiled_charsmap: 'AAAAAA==' } }, /character map/],
    [{ ...tiny, normalizer: { type: 'Precompiled', precompiled_charsmap: '/////wAA' } }, /character map/],
    [{ ...tiny, added_tokens: [{ id: 0, content: 'x' }] }, /id 0/],
    [{ ...tiny, added_tokens: [{ id: 2 ** 31, content: 'x' }] }, /"x"/],
    [{ ...tiny, added_tokens: [{ id: 1_000_000, content: 'x' }] }, /ids up to/],
    [withVocab({ a: 0, b: 0, ab: 2 }), /id 0/],
    [withVocab({ a: 2 ** 31, b: 1, ab: 2 }), /"a"/],
    [withVocab({ a: -1, b: 1, ab: 2 }), /"a"/],
    [withVocab({ a: 1.5, b: 1, ab: 2 }), /"a"/],
    [withVocab({ a: '0', b: 1, ab: 2 }), /"a"/],
    [withVocab({ a: 0, b: 1, ab: 2, '\ud800': 3 }), /well-formed/],
    [
      {
        ...tiny,
        model: {
          type: 'Unigram',
          vocab: [
            ['a', 0],
            ['b', 'x'],
          ],
          unk_id: 0,
        },
      },
      /vocab/,
    ],
    [{ ...tiny, model: { type: 'Unigram', vocab: [['a', 0]], unk_id: 1 } }, /unk_id/],
    [{ ...tiny, model: { type: 'Unigram', vocab: [null] } }, /vocab/],
    [{ ...tiny, model: { type: 'WordPiece', vocab: { a: 0 }, unk_token: '[UNK]' } }, /unk_token/],
  ];
  assert.ok(load(tiny));
  for (const [json, message] of broken) {
    const found = (error: unknown): boolean => error instanceof TokenizerError && message.test(error.message);
    assert.throws(() => load(json), found, `${message} ${JSON.stringify(json).slice(0, 200)}`);
  }
});

test('what changes a file gives a tokenizer that works, or a TokenizerError', () => {
  let loaded = 0;
  const property = fc.property(mutants, (mutant) => {
    if (checkMutant(mutant)) loaded++;
  });
  fc.assert(property, { numRuns: 1000 });
  assert.ok(loaded > 0, 'some changes do no harm');
});

test('files nested without end, and texts that grow without end, are refused', () => {
  const deep = `${'{"type":"Sequence","normalizers":['.repeat(50_000)}${']}'.repeat(50_000)}`;
  const tokenizerJson = JSON.stringify(tiny).replace('{', `{"normalizer":${deep},`);
  assert.throws(() => loadTokenizer({ tokenizerJson, name: 'here' }), TokenizerError);
  const grow = { type: 'Replace', pattern: { String: 'a' }, content: 'a'.repeat(100) };
  const nested = { type: 'Sequence', normalizers: [grow, { type: 'Sequence', normalizers: [grow, grow, grow] }] };
  assert.throws(() => load({ ...tiny, normalizer: nested }).encode('a'.repeat(1000)), TokenizerError);
  assert.throws(() => load({ ...tiny, normalizer: { ...grow, content: 'a'.repeat(1000) } }), TokenizerError);
});

test('a vocabulary without some bytes leaves them out', () => {
  const json = JSON.parse(text('gpt2')) as Json;
  const { x, ...vocab } = json.model.vocab;
  const merges = json.model.merges.filter((merge: string | string[]) => !`${merge}`.includes('x'));
  const tokenizer = load({ ...json, model: { ...json.model, vocab, merges } });
  assert.ok(x > 0);
  assert.equal(tokenizer.decode(tokenizer.encode('axb')), 'ab');
});

for (const name of ['gpt2', 'llama3', 'llama2', 'gemma', 't5', 'xlm', 'bert']) {
  test(`${name}: a million characters without a break`, () => {
    const tokenizer = loadTokenizer({ tokenizerJson: text(name), name });
    // With superlinear time, even a fifth of this length would take minutes.
    for (const [one, length] of [
      ['a', 1e6],
      ...['.', ' ', '\n', 'ab'].map((other) => [other, 2e5] as const),
    ] as const) {
      const long = one.repeat(length / one.length);
      const ids = tokenizer.encode(long, { addSpecial: false });
      if (!['xlm', 'bert', 't5'].includes(name)) assert.equal(tokenizer.decode(ids), long);
    }
  });
}

test('words beyond the size where merging changes its way give the tokens of the definition', () => {
  const json = JSON.parse(text('gpt2-1024')) as Json;
  const tokenizer = load(json);
  const ranks = new Map<string, number>(
    json.model.merges.map((merge: string | string[], i: number) => [`${merge}`.replace(',', ' '), i]),
  );
  const merged = (word: string): string[] => {
    const parts = [...word];
    for (;;) {
      let best = -1;
      for (let i = 0; i + 1 < parts.length; i++) {
        const rank = ranks.get(`${parts[i]} ${parts[i + 1]}`) ?? Number.POSITIVE_INFINITY;
        if (rank < (best < 0 ? Number.POSITIVE_INFINITY : ranks.get(`${parts[best]} ${parts[best + 1]}`)!)) best = i;
      }
      if (best < 0) return parts;
      parts.splice(best, 2, parts[best]! + parts[best + 1]!);
    }
  };
  const letters = fc.constantFrom(...'etaoinshrdlu'.split(''), 'the', 'ing', 'ed', 'ou');
  fc.assert(
    fc.property(fc.array(letters, { minLength: 1, maxLength: 120 }), (parts) => {
      const word = parts.join('');
      assert.deepEqual(
        tokenizer.encode(word).map((id) => tokenizer.token(id)),
        merged(word),
      );
    }),
  );
});

test('texts beyond the limit are refused before they are tokenized', () => {
  const tokenizer = loadTokenizer({ tokenizerJson: text('gpt2'), name: 'gpt2' });
  assert.throws(() => tokenizer.encode('é'.repeat(17 * 2 ** 20)), OptionError);
});
