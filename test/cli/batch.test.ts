/** Batch files: results in order as they are done, options and errors of single lines. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { lanewise } from './run.ts';

async function file(t: TestContext, lines: readonly (string | object)[]): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'lanewise-batch-'));
  t.after(() => rm(folder, { recursive: true }));
  const path = join(folder, 'requests.jsonl');
  await writeFile(path, lines.map((line) => `${typeof line === 'string' ? line : JSON.stringify(line)}\n`).join(''));
  return path;
}

test('options of lines are obeyed in every spelling, or refused by name with the number of the line', async (t) => {
  const messages = [{ role: 'user', content: 'hi' }];
  const path = await file(t, [
    { prompt: 'Once', max_tokens: 3, temperature: 0 },
    { prompt: 'Once', temprature: 3 },
    { messages, maxTokens: 4, '--temperature': 0, seed: 9 },
    { prompt: 'Once', 'top-p': 7 },
    '{"prompt": ',
    { prompt: 'word '.repeat(2000) },
    { prompt: 'Once', maxTokens: 3, max_tokens: 4 },
    messages,
    { token_ids: [5, 6], 'max-tokens': 2, stop: 'x' },
  ]);
  const { code, out, err } = await lanewise(['generate', '--max-tokens', '5', '--batch-file', path, '--json']);
  assert.equal(code, 1);
  const results = out
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  assert.deepEqual(
    results.map(({ line }) => line),
    [1, 2, 3, 4, 5, 6, 7, 8, 9],
  );
  assert.deepEqual(
    results.map((result) => result.error?.code ?? result.token_ids.length),
    [3, 'Usage', 4, 'InvalidOption', 'Usage', 'ContextLengthExceeded', 'Usage', results[7].token_ids.length, 2],
  );
  assert.equal(results[2].model.seed, 9);
  assert.equal(results[2].text, 'I am very short');
  for (const message of [
    /^error: --batch-file \S+, line 2: "temprature" is not an option of a request; known are .*max-tokens/m,
    /^error: --batch-file \S+, line 4: top-p must be in \(0, 1\], got 7$/m,
    /^error: --batch-file \S+, line 5: invalid JSON/m,
    /^error: --batch-file \S+, line 6: the prompt has 2002 tokens, the context holds 512; /m,
    /^error: --batch-file \S+, line 7: "maxTokens" and "max_tokens" are the same option$/m,
    /^9 prompts in .*, 5 failed$/m,
  ])
    assert.match(err, message);
});

test('a line that is no request says what was found', async (t) => {
  const user = { role: 'user', content: 'hi' };
  const path = await file(t, [
    { prompt: '' },
    { prompt: 5 },
    { token_ids: '1,2' },
    { messages: [] },
    { messages: [user, { role: 'user' }] },
    { messages: [user], tools: { name: 'f' } },
    { max_tokens: 3 },
    { messages: ['hi'] },
    { messages: [{ content: 'hi' }] },
  ]);
  const { code, err } = await lanewise(['generate', '--batch-file', path]);
  assert.equal(code, 1);
  const lines = err.trim().split('\n');
  for (const [i, found] of [
    /line 1: prompt must be a text that is not empty, got ""$/,
    /line 2: prompt must be a text that is not empty, got 5$/,
    /line 3: token_ids must be a list of token ids such as \[1, 2, 3\], got "1,2"$/,
    /line 4: expected .*, found an empty list of messages$/,
    /line 5: expected .*, found messages\[1\] without content that is text or parts$/,
    /line 6: expected .*, found tools that are not a list$/,
    /line 7: expected .*, found no messages$/,
    /line 8: expected .*, found messages\[0\] that is not an object$/,
    /line 9: expected .*, found messages\[0\] without a role$/,
  ].entries())
    assert.match(lines[i]!, found);
});

test('Ctrl-C keeps the results that are done, and exits with 130', async (t) => {
  const path = await file(t, [
    { prompt: 'Once', max_tokens: 2 },
    { prompt: 'Once', max_tokens: 400 },
    { prompt: 'Once', max_tokens: 2 },
  ]);
  const main = fileURLToPath(new URL('../../src/cli/lanewise.ts', import.meta.url));
  const args = ['generate', '--ignore-eos', '--backend', 'reference', '--json', '--batch-file', path];
  const child = spawn(process.execPath, [main, ...args]);
  let [out, err] = ['', ''];
  child.stderr.on('data', (data) => {
    err += data;
  });
  child.stdout.on('data', (data) => {
    out += data;
    // The result of the first line is printed while the second is running.
    if (!child.killed) child.kill('SIGINT');
  });
  const code = await new Promise((resolve) => child.on('close', resolve));
  assert.equal(code, 130, err);
  const results = out
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  assert.deepEqual([results[0].line, results[0].finish_reason], [1, 'length']);
  const second = results.find(({ line }) => line === 2);
  assert.ok(second.finish_reason === 'aborted' && second.token_ids.length < 400);
  assert.match(err, /^interrupted: \d of 3 prompts done$/m);
});
