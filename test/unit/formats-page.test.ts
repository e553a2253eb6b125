/** Checks docs/formats.md against the code. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import test from 'node:test';
import { writableTypes } from '../../src/cli/quantize.ts';
import { GGUF_COUNT_LIMIT, GGUF_HEADER_LIMIT } from '../../src/formats/gguf-header.ts';
import { ggufArchitectures } from '../../src/models/gguf-families.ts';
import { weightTypes } from '../../src/quant/ggml.ts';
import { storageLayout } from '../../src/quant/storage.ts';

const page = await readFile(new URL('../../docs/formats.md', import.meta.url), 'utf8');

test('every weight type has its line, with its blocks, its kernels and whether it can be written', () => {
  const lines = new Map(
    [...page.matchAll(/^\| (\w+) \| (\d+ .*) \|$/gm)].map(([, name, rest]) => [name!, rest!.split(' | ')]),
  );
  assert.deepEqual([...lines.keys()].sort(), Object.keys(weightTypes).sort());
  for (const [name, { block, bytes }] of Object.entries(weightTypes)) {
    const [blockText, bytesText, bits, memory, written] = lines.get(name)!.map((cell) => cell.trim());
    assert.deepEqual([blockText, bytesText, bits], [`${block}`, `${bytes}`, `${(bytes * 8) / block}`], name);
    assert.equal(memory, Object.hasOwn(storageLayout, name) ? 'the same' : 'q8_0', name);
    assert.equal(written, (writableTypes as readonly string[]).includes(name) ? 'yes' : '', name);
  }
});

test('every architecture of GGUF that is known is named', () => {
  const [, table] = /^\| `general\.architecture` .*\n((?:\|.*\n)+)/m.exec(page)!;
  const named = table!.split('\n').flatMap((line) => [...(line.split(' | ')[0] ?? '').matchAll(/`([\w-]+)`/g)]);
  assert.deepEqual(named.map(([, name]) => name).sort(), [...ggufArchitectures].sort());
});

test('the limits are those of the reader', () => {
  assert.equal(GGUF_COUNT_LIMIT, 2 ** 20);
  assert.equal(GGUF_HEADER_LIMIT, 256 * 2 ** 20);
  assert.match(page, /at most 2\^20\s+keys and 2\^20 tensors, and 256 MiB of header/);
});
