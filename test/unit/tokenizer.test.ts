import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import test from 'node:test';
import fc from 'fast-check';
import { ModelError, OptionError } from '../../src/errors.ts';
import { loadTokenizer } from '../../src/tokenizer/load.ts';
import type { Tokenizer } from '../../src/tokenizer/tokenizer.ts';

interface Case {
  readonly text: string;
  readonly ids: number[];
  readonly plain_ids: number[];
  readonly decoded: string;
  readonly decoded_skip: string;
  readonly plain_decoded: string;
}

const golden = new URL('../golden/tokenizers/', import.meta.url);
const open = (folder: URL): Tokenizer =>
  loadTokenizer({
    tokenizerJson: readFileSync(new URL('tokenizer.json', folder), 'utf8'),
    tokenizerConfig: readFileSync(new URL('tokenizer_config.json', folder), 'utf8'),
    name: folder.pathname,
  });

function incrementally(tokenizer: Tokenizer, ids: readonly number[]): string {
  const decoder = tokenizer.incremental();
  const pieces = [...ids.map((id) => decoder.push(id)), decoder.end()];
  for (const piece of pieces) assert.doesNotMatch(piece, /\p{Surrogate}/u);
  return pieces.join('');
}

for (const name of readdirSync(golden)) {
  const folder = new URL(`${name}/`, golden);
  const tokenizer = open(folder);
  const { cases } = JSON.parse(readFileSync(new URL('vectors.json', folder), 'utf8')) as { cases: Case[] };

  test(`${name}: ids and texts of the reference`, () => {
    for (const { text, ids, plain_ids, decoded, decoded_skip, plain_decoded } of cases) {
      assert.deepEqual(tokenizer.encode(text), ids, text);
      assert.deepEqual(tokenizer.encode(text, { addSpecial: false }), plain_ids, text);
      // The library decodes byte tokens with a TextDecoder that drops a byte order mark.
      if (text.includes('\ufeff') && tokenizer.id('<0xEF>') !== undefined) continue;
      assert.equal(tokenizer.decode(ids), decoded);
      assert.equal(tokenizer.decode(ids, { skipSpecial: true }), decoded_skip);
      assert.equal(tokenizer.decode(plain_ids), plain_decoded);
    }
  });

  test(`${name}: decoding as ids come gives the same text`, () => {
    for (const { ids } of cases) assert.equal(incrementally(tokenizer, ids), tokenizer.decode(ids));
  });
}

test('ids that no token has are left out, decoding nothing gives nothing', () => {
  const tokenizer = open(new URL('gpt2/', golden));
  assert.equal(tokenizer.decode([]), '');
  assert.equal(tokenizer.decode([-1, 2 ** 31, 1.5]), '');
  fc.assert(
    fc.property(fc.array(fc.integer({ min: -5, max: 1e6 })), (ids) => {
      tokenizer.decode(ids);
    }),
  );
});

test('half of a surrogate pair is refused with its place', () => {
  const tokenizer = open(new URL('gpt2/', golden));
  assert.throws(
    () => tokenizer.encode('ab\ud800'),
    (error) => error instanceof OptionError && /at 2/.test(error.message),
  );
});

test('broken files are named', () => {
  for (const tokenizerJson of ['', '{', '[]', '{}', '{"model": {"type": "Parrot"}}', 'null']) {
    assert.throws(
      () => loadTokenizer({ tokenizerJson, name: 'somewhere' }),
      (error) => error instanceof ModelError && error.message.startsWith('somewhere/tokenizer.json'),
      tokenizerJson,
    );
  }
});
