/** Bytes of tokens, and the trie over all of them. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { openTokenizer, withinVocabulary } from '../../src/engine/tokenizer.ts';
import { nodeFolder } from '../../src/formats/adapters/node.ts';
import { loadTokenizer } from '../../src/tokenizer/load.ts';
import type { Tokenizer } from '../../src/tokenizer/tokenizer.ts';
import { VocabularyTrie, vocabularyTrie } from '../../src/tokenizer/vocabulary-trie.ts';

const golden = new URL('../golden/', import.meta.url);
const folder = nodeFolder(fileURLToPath(new URL('gguf', golden)));
const names = readdirSync(new URL('tokenizers/', golden));
const tokenizerOf = (name: string): Tokenizer =>
  loadTokenizer({ tokenizerJson: readFileSync(new URL(`tokenizers/${name}/tokenizer.json`, golden), 'utf8'), name });

/** All golden tokenizers, of tokenizer.json and of GGUF files. */
async function tokenizers(): Promise<[string, Tokenizer][]> {
  const files = readdirSync(new URL('gguf/', golden)).filter((name) => name.endsWith('-f32.gguf'));
  const found = names.map((name): [string, Tokenizer] => [name, tokenizerOf(name)]);
  for (const file of files) found.push([file, await openTokenizer(folder, file)]);
  return found;
}

const utf8 = new TextEncoder();
const joined = (tokenizer: Tokenizer, ids: readonly number[]): number[] =>
  ids.flatMap((id) => [...(tokenizer.bytes(id) ?? assert.fail(`no bytes of ${id} ${tokenizer.token(id)}`))]);

const same = (text: string): string => text;
const spaced = (text: string): string => ` ${text}`;
/** Those that keep every text as it is, but for a space in front of it. */
const exact: Readonly<Record<string, (text: string) => string>> = {
  gpt2: same,
  'gpt2-1024': same,
  falcon: same,
  llama3: same,
  roberta: same,
  gemma: same,
  llama2: spaced,
  'llama2-metaspace': (text) => (text.startsWith(' ') ? text : ` ${text}`),
  'gpt2-f32.gguf': same,
  'llama-f32.gguf': spaced,
  'gemma3-f32.gguf': same,
};

/** Words, numbers, spaces, scripts, symbols beyond the basic plane, what spells control tokens. */
const texts = fc
  .array(
    fc.oneof(
      fc.constantFrom(
        'The',
        ' quick',
        '  ',
        '\n',
        '\t',
        ' 1234',
        'é',
        'ß',
        '你好',
        '🦊',
        '👩‍🚀',
        '\u0000',
        "n't",
        '</s>',
        '<|endoftext|>',
      ),
      fc.string({ unit: 'grapheme', maxLength: 6 }),
      fc.string({ unit: 'binary', maxLength: 4 }),
    ),
    { maxLength: 8 },
  )
  .map((pieces) => pieces.join(''));

test('the bytes of the tokens of a text are the text', async () => {
  const found = (await tokenizers()).filter(([name]) => Object.hasOwn(exact, name));
  assert.deepEqual(found.map(([name]) => name).sort(), Object.keys(exact).sort());
  for (const [name, tokenizer] of found) {
    fc.assert(
      fc.property(texts, (text) => {
        // SentencePiece writes spaces with its mark, which such a text has already.
        fc.pre(!text.includes('▁') && text !== '');
        const ids = tokenizer.encode(text, { addSpecial: false });
        assert.deepEqual(
          joined(tokenizer, ids),
          [...utf8.encode(exact[name]!(text))],
          `${name} ${JSON.stringify(text)}`,
        );
      }),
      { numRuns: 60 },
    );
  }
});

test('where texts are normalized, bytes are those that decoding shows behind another token', async () => {
  for (const [name, tokenizer] of await tokenizers()) {
    const sample = tokenizer.encode('The quick, brown fox isn’t 12 naïve dogs. 你', { addSpecial: false });
    const [first, ...others] = sample.filter((id) => tokenizer.bytes(id) !== undefined);
    const anchor = tokenizer.encode('word', { addSpecial: false });
    for (const id of [first!, ...others]) {
      const shown = tokenizer.decode([...anchor, id]);
      const before = tokenizer.decode(anchor);
      if (shown.includes('�')) continue;
      assert.deepEqual(
        [...tokenizer.bytes(id)!],
        [...utf8.encode(shown.slice(before.length))],
        `${name} ${tokenizer.token(id)}`,
      );
    }
  }
});

test('control tokens, the unknown token and ids without a token have no bytes', async () => {
  for (const [name, tokenizer] of await tokenizers()) {
    for (const id of tokenizer.specialIds) assert.equal(tokenizer.bytes(id), undefined, `${name} ${id}`);
    const unknown = tokenizer.role('unknown');
    if (unknown) assert.equal(tokenizer.bytes(unknown.id), undefined);
    for (const id of [-1, tokenizer.vocabSize, 1.5, Number.NaN]) assert.equal(tokenizer.bytes(id), undefined);
  }
  const small = withinVocabulary(tokenizerOf('gpt2'), 300, 'small');
  assert.ok(small.bytes(299));
  assert.equal(small.bytes(300), undefined);
});

test('the trie has every token at the node that its bytes lead to, and nothing else', async () => {
  for (const [name, tokenizer] of await tokenizers()) {
    const trie = vocabularyTrie(tokenizer);
    assert.equal(vocabularyTrie(tokenizer), trie, 'built once');
    let count = 0;
    const prefixes = new Set(['']);
    for (let id = 0; id < tokenizer.vocabSize; id++) {
      const bytes = tokenizer.bytes(id);
      if (!bytes) continue;
      count++;
      let node = 0;
      let prefix = '';
      for (const byte of bytes) {
        node = trie.child(node, byte);
        assert.ok(node > 0, `${name} ${id}`);
        assert.equal(trie.bytes[node], byte);
        prefixes.add((prefix += String.fromCharCode(byte)));
      }
      assert.ok(trie.tokensAt(node).includes(id), `${name} ${id}`);
    }
    assert.equal(trie.tokens.length, count);
    assert.equal(trie.size, prefixes.size);
    for (let node = 0; node < trie.size; node++) {
      const [first, end] = [trie.firstChild[node]!, trie.firstChild[node + 1]!];
      for (let child = first + 1; child < end; child++) assert.ok(trie.bytes[child - 1]! < trie.bytes[child]!);
      const tokens = trie.tokensAt(node);
      for (let i = 1; i < tokens.length; i++) assert.ok(tokens[i - 1]! < tokens[i]!);
    }
  }
});

test('a trie of any bytes, empty and equal ones among them', () => {
  const lists = fc.array(fc.option(fc.uint8Array({ maxLength: 4, max: 3 }), { nil: undefined }), { maxLength: 40 });
  fc.assert(
    fc.property(lists, fc.uint8Array({ maxLength: 5, max: 3 }), (list, path) => {
      const trie = new VocabularyTrie({ vocabSize: list.length, bytes: (id) => list[id] });
      const begins = (bytes: Uint8Array | undefined): boolean =>
        bytes !== undefined && path.every((byte, i) => bytes[i] === byte);
      let node = 0;
      for (const byte of path) node = node < 0 ? -1 : trie.child(node, byte);
      assert.equal(node >= 0, path.length === 0 || list.some(begins));
      if (node < 0) return;
      const expected = list.flatMap((bytes, id) => (begins(bytes) && bytes!.length === path.length ? [id] : []));
      assert.deepEqual([...trie.tokensAt(node)], expected);
    }),
  );
});
