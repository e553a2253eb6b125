/** fast-check generators of tokenizer.json files: golden ones with random changes. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { OptionError, TokenizerError } from '../../src/errors.ts';
import { loadTokenizer } from '../../src/tokenizer/load.ts';

// biome-ignore lint/suspicious/noExplicitAny: files are changed at arbitrary paths.
type Json = Record<string, any>;

const golden = new URL('../golden/tokenizers/', import.meta.url);
const files = ['bert', 'falcon', 'llama2', 'qwen2', 't5'].map(
  (name) => JSON.parse(readFileSync(new URL(`${name}/tokenizer.json`, golden), 'utf8')) as Json,
);
const plain = [null, true, -1, 0, 1.5, 2 ** 31, '', 'x', '##', '▁', '(a+)+$', '\\p{L}*', '[', [], {}, [[]]];
const names = ['ByteLevel', 'Fuse', 'Sequence', 'Metaspace', 'WordLevel', 'Unigram', 'NFKC', 'Split', 'Contiguous'];
const change = fc.record({
  path: fc.array(fc.nat(40), { minLength: 1, maxLength: 6 }),
  value: fc.constantFrom<unknown>(...plain, ...names),
});

export const mutants = fc.record({
  file: fc.nat(files.length - 1),
  changes: fc.array(change, { minLength: 1, maxLength: 3 }),
  text: fc.string({ unit: 'binary', maxLength: 20 }),
});

function apply(json: Json, path: readonly number[], value: unknown): void {
  let at = json;
  for (const [i, step] of path.entries()) {
    const keys = Object.keys(at);
    const key = keys[step % keys.length];
    if (key === undefined) return;
    if (i === path.length - 1 || typeof at[key] !== 'object' || at[key] === null) {
      at[key] = structuredClone(value);
      return;
    }
    at = at[key];
  }
}

type Mutant = typeof mutants extends fc.Arbitrary<infer T> ? T : never;

/** Whether the file is still a valid tokenizer; if so, checks that decoding at once and id by id agree. */
export function checkMutant({ file, changes, text }: Mutant): boolean {
  const json = structuredClone(files[file]!);
  for (const { path, value } of changes) apply(json, path, value);
  try {
    const tokenizer = loadTokenizer({ tokenizerJson: JSON.stringify(json), name: 'mutant' });
    const ids = tokenizer.encode(text, { parseSpecial: true });
    const decoder = tokenizer.incremental();
    assert.equal(ids.map((id) => decoder.push(id)).join('') + decoder.end(), tokenizer.decode(ids));
    return true;
  } catch (error) {
    if (error instanceof TokenizerError || error instanceof OptionError) return false;
    throw error;
  }
}
