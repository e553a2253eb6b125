/** Texts from files and standard input. */
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { openLines, readText } from '../../src/cli/files.ts';
import { golden, lanewise } from './run.ts';

const template = golden('chat/llama3.jinja');
const tokenizer = golden('tokenizers/llama2');
const encoder = golden('encoders/bert');

async function fileOf(t: TestContext, bytes: string | Uint8Array, name = 'text'): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'lanewise-files-'));
  t.after(() => rm(folder, { recursive: true }));
  const path = join(folder, name);
  await writeFile(path, bytes);
  return path;
}

const bytesOf = (latin: string): Uint8Array => Buffer.from(latin, 'latin1');

async function linesIn(file: string): Promise<string[]> {
  const lines: string[] = [];
  for await (const line of await openLines('--file', file)) lines.push(line);
  return lines;
}

test('a byte order mark at the beginning is dropped, elsewhere it is text', async (t) => {
  const file = await fileOf(t, '\ufeffone\n\ufefftwo\n');
  assert.equal(await readText('--file', file), 'one\n\ufefftwo\n');
  assert.deepEqual(await linesIn(file), ['one', '\ufefftwo', '']);
  assert.deepEqual(await linesIn(await fileOf(t, '\ufeff\n\ufeff')), ['', '\ufeff']);
  const empty = await fileOf(t, '');
  assert.deepEqual([await readText('--file', empty), await linesIn(empty)], ['', ['']]);
});

test('lines and characters may lie across the pieces in which a file is read', async (t) => {
  const lines = Array.from({ length: 3000 }, (_, i) => 'ä€😀'.repeat(i % 40) + i);
  const file = await fileOf(t, lines.join('\n'));
  assert.deepEqual(await linesIn(file), lines);
  const long = await fileOf(t, '€'.repeat(100_000));
  assert.deepEqual(await linesIn(long), ['€'.repeat(100_000)]);
});

test('bytes that are no UTF-8 are refused, with the place of the first', async (t) => {
  for (const [latin, offset] of [
    ['\xff', 0],
    ['ab\xff\xfe', 2],
    ['one\ntwo\xc3\nthree', 7],
    ['one\ntw\xc0\xaf', 6],
    ['cut off \xe2\x82', 8],
    ['a surrogate \xed\xa0\x80', 12],
    [`${'x'.repeat(70_000)}\n${'y'.repeat(70_000)}\x80`, 140_001],
  ] as const) {
    const file = await fileOf(t, bytesOf(latin));
    const error = { message: `--file ${file} is not UTF-8 text: see byte ${offset}`, code: 'Usage' };
    await assert.rejects(readText('--file', file), error);
    await assert.rejects(linesIn(file), error);
  }
});

test('every command reads texts in the same way', async (t) => {
  const bad = await fileOf(t, bytesOf('"ab\xff"'));
  const commands: [string[], string][] = [
    [['generate', '--batch-file'], '--batch-file'],
    [['generate', '--messages'], '--messages'],
    [['generate', '--prompt', 'x', '--chat-template'], '--chat-template'],
    [['tokenize', 'encode', tokenizer, '--file'], '--file'],
    [['tokenize', 'encode', tokenizer, '--jsonl', '--file'], '--file'],
    [['template', 'render', template, '--jsonl', '--file'], '--file'],
    [['embed', encoder, '--file'], '--file'],
  ];
  for (const [args, option] of commands) {
    const refused = await lanewise([...args, bad]);
    assert.deepEqual(refused, { code: 1, out: '', err: `error: ${option} ${bad} is not UTF-8 text: see byte 3\n` });
    const missing = await lanewise([...args, './nowhere.jinja']);
    assert.deepEqual(missing, { code: 1, out: '', err: `error: ${option} ./nowhere.jinja cannot be read: ENOENT\n` });
  }
});

test('byte order marks and other bytes at standard input', async (t) => {
  const ten = ['generate', '--temperature', '0', '--max-tokens', '8'];
  const { out } = await lanewise([...ten, '--prompt', 'Once upon a time']);
  assert.equal((await lanewise(ten, { input: '\ufeffOnce upon a time' })).out, out);
  assert.equal(
    (await lanewise([...ten, '--batch-file', await fileOf(t, '\ufeffOnce upon a time\n')])).out,
    `[1] ${out}`,
  );
  const refused = await lanewise(ten, { input: bytesOf('Once \xff') });
  assert.deepEqual(refused, { code: 1, out: '', err: 'error: standard input is not UTF-8 text: see byte 5\n' });
  const messages = await fileOf(t, '\ufeff[{"role": "user", "content": "hello"}]');
  const spoken = await lanewise([
    ...ten,
    '--chat-template',
    await fileOf(t, 'Once upon a time'),
    '--messages',
    messages,
  ]);
  assert.deepEqual([spoken.code, spoken.out], [0, out], spoken.err);
});

test('a pointer of Git LFS in place of a template or conversation is named', async (t) => {
  const pointer = `version https://git-lfs.github.com/spec/v1\noid sha256:${'0'.repeat(64)}\nsize 1234\n`;
  const file = await fileOf(t, pointer, 'pointer.jinja');
  for (const args of [
    ['generate', '--prompt', 'x', '--chat-template', file],
    ['generate', '--messages', file],
    ['template', 'render', file],
  ]) {
    const { code, err } = await lanewise(args, { input: '{"messages": []}' });
    assert.equal(code, 1);
    assert.match(err, /^error: .*found a Git LFS pointer \(the file has 1234 bytes\); run `git lfs pull`/);
  }
});
