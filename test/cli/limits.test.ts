/** Processes with resource limits: fewer threads with one warning and the same text, or a one-line error with a code. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test, { after } from 'node:test';
import { fileURLToPath } from 'node:url';

const cache = mkdtempSync(path.join(tmpdir(), 'lanewise-limits-'));
after(() => rmSync(cache, { recursive: true, force: true }));
const root = fileURLToPath(new URL('../..', import.meta.url));
const library = new URL('../../src/node.ts', import.meta.url).href;
const program = `
const { load } = await import('${library}');
const warnings = [];
try {
  const model = await load(undefined, { inline: true, threads: 3, onWarning: (text) => warnings.push(text) });
  const [result] = await model.generateBatch(['Once upon a time'], { maxTokens: 6, temperature: 0 });
  console.log(JSON.stringify({ text: result.text, threads: model.threads, warnings }));
  await model.dispose();
} catch (error) {
  console.log(JSON.stringify({ code: error.code, message: error.message }));
}
`;

interface Outcome {
  readonly text?: string;
  readonly threads?: number;
  readonly warnings?: readonly string[];
  readonly code?: string;
  readonly message?: string;
}

/** @param limit what `ulimit` sets, as `-n 40` @param flags of Node */
function run(limit: string, ...flags: string[]): Outcome {
  const { stdout, stderr } = spawnSync(
    'sh',
    [
      '-c',
      `${limit && `ulimit ${limit} && `}exec "$@"`,
      'sh',
      process.execPath,
      ...flags,
      '--input-type=module',
      '-e',
      program,
    ],
    { cwd: root, encoding: 'utf8', timeout: 60_000, env: { ...process.env, XDG_CACHE_HOME: cache } },
  );
  const line = stdout.trim().split('\n').at(-1) ?? '';
  assert.ok(line.startsWith('{'), `expected an answer, found ${JSON.stringify(stdout + stderr)}`);
  return JSON.parse(line);
}

const { skip } = { skip: process.platform !== 'linux' && 'limits are set as on Linux' };
const { text } = run('');

test('without --allow-worker one thread runs, and the warning names the flag', () => {
  const outcome = run('', '--permission', '--allow-fs-read=*');
  assert.equal(outcome.text, text);
  assert.equal(outcome.threads, 1);
  assert.equal(outcome.warnings?.length, 1);
  assert.match(outcome.warnings![0]!, /^one thread instead of 3: .*--allow-worker$/);
});

test('a model that may not be read is an error that names the flag', () => {
  const outcome = run(
    '',
    '--permission',
    `--allow-fs-read=${root}src/*`,
    `--allow-fs-read=${root}node_modules/@logtape/*`,
    `--allow-fs-read=${root}package.json`,
  );
  assert.equal(outcome.code, 'NotPermitted');
  assert.match(outcome.message!, /--allow-fs-read/);
  assert.ok(!outcome.message!.includes('\n'));
});

test('whatever number of files may be open, the text is the same or the error names the limit', { skip }, () => {
  const threads = new Set<number>();
  for (const files of [24, 30, 34, 256]) {
    const outcome = run(`-n ${files}`);
    if (outcome.code !== undefined) {
      assert.equal(outcome.code, 'TooManyOpenFiles');
      assert.match(outcome.message!, /ulimit -n/);
      continue;
    }
    threads.add(outcome.threads!);
    assert.equal(outcome.text, text, `${files} files`);
    assert.equal(outcome.warnings?.length, outcome.threads === 3 ? 0 : 1, `${files} files: ${outcome.warnings}`);
  }
  assert.ok(threads.has(3), `only ${[...threads]} threads were seen`);
});

test('with a limit of the address space one thread runs, with one warning', { skip }, () => {
  const outcome = run('-v 30000000');
  assert.equal(outcome.text, text);
  assert.equal(outcome.threads, 1);
  assert.match(outcome.warnings!.join('\n'), /^one thread only: the address space .*ulimit -v\)$/);
});

test('an address space with little room for WebAssembly gives the same text, or an error of one line', { skip }, () => {
  for (const kilobytes of [8_000_000, 18_000_000]) {
    const outcome = run(`-v ${kilobytes}`);
    if (outcome.code === undefined) assert.equal(outcome.text, text);
    else {
      assert.equal(outcome.code, 'OutOfMemory');
      assert.match(outcome.message!, /ulimit -v/);
      assert.ok(!outcome.message!.includes('\n'));
    }
  }
});
