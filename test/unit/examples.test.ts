import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readdirSync } from 'node:fs';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const folder = new URL('../../examples/', import.meta.url);

for (const file of readdirSync(folder)) {
  test(`examples/${file} runs`, async () => {
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [fileURLToPath(new URL(file, folder))]);
    assert.equal(stderr, '');
    assert.ok(stdout.length > 100, stdout);
  });
}
