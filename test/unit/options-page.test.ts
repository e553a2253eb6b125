import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import test from 'node:test';
import type { OptionError } from '../../src/errors.ts';
import { generateTable, optionNames, validateGenerate } from '../../src/schedule/generation-options.ts';
import { optionsPage } from '../../tools/options-page.ts';

const root = path.join(import.meta.dirname, '../..');

test('docs/options.md is what the table of options says', () => {
  const page = readFileSync(path.join(root, 'docs/options.md'), 'utf8');
  assert.equal(page, optionsPage(), 'write it again: node tools/options-page.ts');
});

test('every option refuses invalid values by its name, and has its default if it is left out', () => {
  const defaults = validateGenerate();
  const empty = validateGenerate(Object.fromEntries(optionNames.map((name) => [name, null])) as object);
  for (const name of optionNames) {
    for (const wrong of [Number.NaN, Symbol('wrong')]) {
      assert.throws(
        () => validateGenerate({ [name]: wrong } as object, { name: (option) => `given ${option}` }),
        (error: OptionError) => error.code === 'InvalidOption' && error.option.startsWith(`given ${name}`),
        name,
      );
    }
    if (name !== 'seed') assert.deepEqual(empty[name], defaults[name], name);
    assert.ok(generateTable[name].help.length > 10 && generateTable[name].expected.length > 5, name);
  }
});
