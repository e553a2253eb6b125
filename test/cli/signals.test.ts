import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { writeAtomically } from '../../src/node.ts';

async function folder(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'lanewise-signals-'));
  t.after(() => rm(path, { recursive: true, force: true }));
  return path;
}

const source = (file: string): string => JSON.stringify(new URL(`../../src/${file}`, import.meta.url).href);

for (const signal of ['SIGTERM', 'SIGHUP', 'SIGINT'] as const) {
  test(`${signal} in the middle of a write leaves the old file, and nothing half-written`, async (t) => {
    const path = await folder(t);
    await writeFile(join(path, 'out.gguf'), 'old');
    const program = `import { removeUnfinishedAtSignals } from ${source('cli/signals.ts')};
      import { writeAtomically } from ${source('node.ts')};
      removeUnfinishedAtSignals();
      await writeAtomically(${JSON.stringify(join(path, 'out.gguf'))}, async (handle) => {
        await handle.writeFile('half');
        console.log('writing');
        await new Promise((resolve) => setTimeout(resolve, 60_000));
      });`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await new Promise((resolve) => child.stdout.once('data', resolve));
    assert.equal((await readdir(path)).length, 2);
    child.kill(signal);
    const ended = await new Promise((resolve) => child.once('exit', (_, by) => resolve(by)));
    assert.equal(ended, signal);
    assert.deepEqual(await readdir(path), ['out.gguf']);
    assert.equal(await readFile(join(path, 'out.gguf'), 'utf8'), 'old');
  });
}

test('a write that fails leaves nothing; a device is written to, not replaced', async (t) => {
  const path = await folder(t);
  await assert.rejects(
    writeAtomically(join(path, 'x'), async (handle) => {
      await handle.writeFile('half');
      throw new Error('no more');
    }),
    /no more/,
  );
  assert.deepEqual(await readdir(path), []);
  if (process.platform !== 'win32') await writeAtomically('/dev/null', async (handle) => handle.writeFile('x'));
});
