/** `--trace`: a complete timeline also after a signal or an error, and an error at once where none can be written. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { checkTrace } from '../unit/trace-check.ts';
import { lanewise } from './run.ts';

const main = fileURLToPath(new URL('../../src/cli/lanewise.ts', import.meta.url));

async function folder(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'lanewise-trace-'));
  t.after(() => rm(path, { recursive: true, force: true }));
  return path;
}

for (const [signal, code, by] of [
  ['SIGINT', 130, null],
  ['SIGTERM', null, 'SIGTERM'],
] as const) {
  test(`${signal} in the middle of a text: what was recorded is a valid file`, async (t) => {
    if (process.platform === 'win32') return t.skip('Windows ends processes without signals');
    const path = await folder(t);
    const args = [main, 'generate', '--prompt', 'Once', '--max-tokens', '-1', '--ignore-eos', '--threads', '1'];
    const child = spawn(process.execPath, [...args, '--trace', join(path, 'trace.json')], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await new Promise((resolve) => child.stdout.once('data', resolve));
    child.kill(signal);
    const ended = await new Promise((resolve) => child.once('exit', (...how) => resolve(how)));
    assert.deepEqual(ended, [code, by]);
    assert.deepEqual(await readdir(path), ['trace.json']);
    const { spans } = checkTrace(await readFile(join(path, 'trace.json'), 'utf8'), signal === 'SIGTERM');
    assert.ok(spans.some(({ name }) => name === 'prefill'));
  });
}

test('a command that fails leaves a valid trace; a trace that cannot be written is an error at once', async (t) => {
  const path = await folder(t);
  const file = join(path, 'trace.json');
  const failed = await lanewise(['generate', '--prompt', 'x', '--context-length', '99999999', '--trace', file]);
  assert.equal(failed.code, 1);
  assert.match(failed.err, /^error: --context-length must be/);
  checkTrace(await readFile(file, 'utf8'));
  const none = join(path, 'none', 'trace.json');
  const refused = await lanewise(['embed', 'no-model', '--text', 'x', '--trace', none]);
  assert.deepEqual([refused.code, refused.out, refused.err], [1, '', `error: ${none} cannot be written: ENOENT\n`]);
});
