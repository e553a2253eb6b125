import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import test from 'node:test';
import { modelTypes } from '../../src/models/index.ts';
import { modelsPage } from '../../tools/models-page.ts';

const root = path.join(import.meta.dirname, '../..');

test('docs/models.md is what the registry and the golden cases say', async () => {
  const page = readFileSync(path.join(root, 'docs/models.md'), 'utf8');
  assert.equal(page, await modelsPage(root), 'write it again: node tools/models-page.ts');
});

test('every model_type is checked by a golden case', () => {
  const rows = readFileSync(path.join(root, 'docs/models.md'), 'utf8')
    .split('\n')
    .filter((line) => line.startsWith('| ') && line.includes('`'));
  const types = rows.flatMap((row) => [...row.matchAll(/`(\w+)`/g)].map(([, type]) => type));
  for (const type of modelTypes) assert.ok(types.includes(type), type);
  for (const row of rows) assert.match(row, /\| [\w-]+ \(\de-\d+\)(, [\w-]+ \(\de-\d+\))* \|$/, row);
});
