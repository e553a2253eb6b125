/** The same sources in a browser: the same bits as under Node, on one thread and on several. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { accessSync, constants, mkdtempSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import path from 'node:path';
import test from 'node:test';
import { load } from '../../src/node.ts';
import { serveSources } from './server.ts';

interface Outcome {
  readonly error?: string;
  readonly text: string;
  readonly tokens: readonly { readonly id: number; readonly logprob: number }[];
  readonly threads: number;
  readonly warnings: readonly string[];
}

function findBrowser(): string | undefined {
  const names = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'];
  const files = (process.env.PATH ?? '')
    .split(path.delimiter)
    .flatMap((folder) => names.map((n) => path.join(folder, n)));
  return files.find((file) => {
    try {
      accessSync(file, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

const browser = findBrowser();
const skip = browser === undefined ? 'no Chromium on this machine: install one to run the sources in a browser' : false;

async function inBrowser(isolated: boolean): Promise<{ main: Outcome; worker: Outcome }> {
  const server = await serveSources('/test/browser/page.ts', isolated);
  const profile = mkdtempSync(path.join(tmpdir(), 'lanewise-browser-'));
  const flags = ['--headless=new', '--no-sandbox', '--disable-gpu', '--no-first-run', `--user-data-dir=${profile}`];
  const child = spawn(browser!, [...flags, server.origin], { stdio: 'ignore' });
  try {
    const ended = new Promise<never>((_, reject) => {
      child.once('error', reject);
      child.once('exit', (code) => reject(new Error(`the browser ended with code ${code}`)));
    });
    const posted = (await Promise.race([server.result, ended])) as
      | { main: Outcome; worker: Outcome }
      | { error: string };
    if ('error' in posted) throw new Error(`the page failed: ${posted.error}`);
    return posted;
  } finally {
    child.removeAllListeners('exit');
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await gone;
    server.close();
    rmSync(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  }
}

async function underNode(): Promise<Pick<Outcome, 'text' | 'tokens'>> {
  const model = await load();
  const tokens: { id: number; logprob: number }[] = [];
  let text = '';
  for await (const event of model.generate('Once upon a time', { temperature: 0, maxTokens: 40 })) {
    if (event.type === 'token') tokens.push({ id: event.id, logprob: event.logprob });
    if (event.type === 'done') text = event.text;
  }
  await model.dispose();
  return { text, tokens };
}

test('an isolated page: several threads in a worker, one on the main thread, the bits of Node', {
  skip,
  timeout: 90_000,
}, async () => {
  const expected = await underNode();
  const { main, worker } = await inBrowser(true);
  for (const outcome of [main, worker]) {
    assert.equal(outcome.error, undefined);
    assert.equal(outcome.text, expected.text);
    assert.deepEqual(outcome.tokens, expected.tokens);
  }
  assert.equal(main.threads, 1);
  if (availableParallelism() > 1) assert.ok(worker.threads > 1, `${worker.threads} threads`);
});

test('H4: a page that may not share memory: one thread everywhere', { skip, timeout: 90_000 }, async () => {
  const expected = await underNode();
  const { main, worker } = await inBrowser(false);
  for (const outcome of [main, worker]) {
    assert.equal(outcome.error, undefined);
    assert.equal(outcome.threads, 1);
    assert.deepEqual(outcome.tokens, expected.tokens);
  }
});
