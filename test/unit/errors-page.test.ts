import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import path from 'node:path';
import test from 'node:test';
import { LanewiseError } from '../../src/errors.ts';
import { documentedCodes, errorsPage } from '../../tools/errors-page.ts';

const root = path.join(import.meta.dirname, '../..');

test('docs/errors.md has a row for every code', () => {
  const page = readFileSync(path.join(root, 'docs/errors.md'), 'utf8');
  assert.equal(page, errorsPage(), 'write it again: node tools/errors-page.ts');
});

test('every code that is documented is one that the code uses', () => {
  const files = globSync('src/**/*.ts', { cwd: root }).filter((file) => !file.endsWith('error-codes.ts'));
  const code = files.map((file) => readFileSync(path.join(root, file), 'utf8')).join('\n');
  assert.ok(documentedCodes.length > 100);
  const unused = documentedCodes.filter((name) => !new RegExp(`['"]${name}['"]`).test(code));
  assert.deepEqual(unused, []);
});

test('the compiler refuses codes that do not exist', () => {
  // @ts-expect-error: npm run check fails where this is no error.
  assert.equal(new LanewiseError('NoSuchCode', '').code, 'NoSuchCode');
});
