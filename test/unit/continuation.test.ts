/** The text that follows a prompt, with every kind of decoder. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import test from 'node:test';
import { continueText } from '../../src/prompts/continuation.ts';
import { loadTokenizer } from '../../src/tokenizer/load.ts';
import type { Tokenizer } from '../../src/tokenizer/tokenizer.ts';

const golden = new URL('../golden/tokenizers/', import.meta.url);

function added(tokenizer: Tokenizer, prompt: readonly number[], ids: readonly number[]): string {
  const decoder = continueText(tokenizer, prompt, {});
  return ids.map((id) => decoder.push(id)).join('') + decoder.end();
}

for (const name of readdirSync(golden)) {
  test(`${name}: a prompt and the text behind it joined are what all tokens decode to`, () => {
    const tokenizerJson = readFileSync(new URL(`${name}/tokenizer.json`, golden), 'utf8');
    const tokenizer = loadTokenizer({ tokenizerJson, name });
    const all = tokenizer.encode('Once upon a time, 🦊 was  there. Don’t   stop', { addSpecial: false });
    const whole = tokenizer.decode(all);
    for (let cut = 1; cut < all.length; cut++) {
      const before = tokenizer.decode(all.slice(0, cut));
      // A prompt may end within a character, which the text then begins with.
      if (whole.startsWith(before))
        assert.equal(before + added(tokenizer, all.slice(0, cut), all.slice(cut)), whole, `cut at ${cut}`);
      else assert.match(before, /\uFFFD$/);
    }
  });
}

test('the first token of an answer begins a text; what a decoder holds back of the prompt is not told again', () => {
  const tokenizerJson = readFileSync(new URL('llama2/tokenizer.json', golden), 'utf8');
  const tokenizer = loadTokenizer({ tokenizerJson, name: 'llama2' });
  const ids = tokenizer.encode('a time', { addSpecial: false });
  assert.equal(added(tokenizer, [], ids), 'a time');
  assert.equal(added(tokenizer, tokenizer.encode('Once'), ids), ' a time');
  assert.equal(added(tokenizer, tokenizer.encode(''), ids), 'a time');
  const json = JSON.parse(tokenizerJson) as Record<string, unknown>;
  // Holds the last token back: it does not know whether a space follows.
  json.decoder = { type: 'BPEDecoder', suffix: '▁' };
  const late = loadTokenizer({ tokenizerJson: JSON.stringify(json), name: 'late' });
  const prompt = late.encode('Once upon', { addSpecial: false });
  assert.equal(late.decode(prompt) + added(late, prompt, ids), late.decode([...prompt, ...ids]));
});
