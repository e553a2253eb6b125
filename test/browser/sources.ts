/**
 * Runs the sources in browsers and compares with the bits of Node: with one thread and several, from every kind of
 * source: `npm run test:browsers`. These are minutes of loading, and not part of `npm test`.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import path from 'node:path';
import test, { after, before } from 'node:test';
import { embeddedModel, load, quantizeModel } from '../../src/node.ts';
import { checkTrace } from '../unit/trace-check.ts';
import { type BrowserName, browserNames, findBrowser, withBrowser } from './browsers.ts';
import { type Outcome, outcomeOf } from './outcome.ts';
import type { MemoryOutcome, TraceOutcome } from './run.ts';
import { serveSources } from './server.ts';

type Results = Readonly<
  Record<
    string,
    Outcome &
      Partial<MemoryOutcome> &
      Partial<TraceOutcome> & {
        readonly error?: string;
        readonly stopped?: number;
        readonly turns?: number;
        readonly ms?: number;
      }
  >
>;

const work = mkdtempSync(path.join(tmpdir(), 'lanewise-browser-test-'));
const gguf = path.join(work, 'stories-Q8_0.gguf');
let expected: { folder: string; gguf: string };

before(async () => {
  if (!browserNames.some(findBrowser)) return;
  await quantizeModel(embeddedModel, gguf, { to: 'q8_0' });
  const hashOf = async (model: string): Promise<string> =>
    (await outcomeOf((onWarning) => load(model, { onWarning }))).hash;
  expected = { folder: await hashOf(embeddedModel), gguf: await hashOf(gguf) };
});
after(() => rmSync(work, { recursive: true, force: true }));

async function inBrowser(
  name: BrowserName,
  isolated: boolean,
  query: string,
): Promise<{ main: Results; worker: Results }> {
  const given = new Map([['stories-Q8_0.gguf', readFileSync(gguf)]]);
  const server = await serveSources('/test/browser/page.ts', { isolated, given });
  try {
    const posted = await withBrowser(name, `${server.origin}/?${query}`, server.result);
    if (typeof posted === 'object' && posted !== null && 'error' in posted)
      throw new Error(`the page failed: ${posted.error}`);
    return posted as { main: Results; worker: Results };
  } finally {
    server.close();
  }
}

const fromGguf = new Set(['gguf', 'hub', 'file']);

/** Checks that every job gives the bits of Node. */
function assertSame(results: Results, jobs: readonly string[]): void {
  for (const job of jobs) {
    const outcome = results[job]!;
    assert.equal(outcome.error, undefined, job);
    assert.equal(outcome.hash, fromGguf.has(job) ? expected.gguf : expected.folder, job);
  }
}

for (const name of browserNames) {
  const skip = findBrowser(name) === undefined && `no ${name} on this machine: install one to run the sources in it`;
  const options = { skip, timeout: 240_000 };

  test(
    `${name}: an isolated page has several threads, inline in a worker only, and its event loop is free`,
    options,
    async () => {
      const jobs = ['folder', 'one', 'two', 'inline', 'relative'];
      const { main, worker } = await inBrowser(name, true, `jobs=${[...jobs, 'stopped', 'turns', 'memory']}`);
      for (const results of [main, worker]) {
        assertSame(results, jobs);
        assert.ok(results.stopped!.stopped! < 2000, `a timer waited ${results.stopped!.stopped} ms`);
      }
      for (const { memory } of [main, worker]) {
        assert.equal(memory!.error, undefined);
        assert.deepEqual(memory!.taken, memory!.estimated);
        const { 'vectors.bits': bits, 'engine.thread': thread, 'storage.policy': policy } = memory!.explained!;
        assert.deepEqual([bits, thread, policy], [128, 'own', 'q8_0']);
      }
      for (const { folder, one, two, turns } of [main, worker]) {
        assert.deepEqual([one!.threads, two!.threads, folder!.warnings], [1, 2, []]);
        assert.ok(turns!.turns! > turns!.ms! / 50, `${turns!.turns} turns in ${turns!.ms} ms`);
        if (availableParallelism() > 1) assert.ok(folder!.threads > 1, `${folder!.threads} threads`);
      }
      assert.equal(main.inline!.threads, 1);
      assert.equal(worker.inline!.threads, worker.folder!.threads);
      assert.match(
        main.inline!.warnings.join('\n'),
        availableParallelism() > 1 ? /^one thread only: the main.*$/ : /^$/,
      );
    },
  );

  test(`${name}: a trace of an engine in a worker, with all its threads, and an equal replay`, options, async () => {
    const { main } = await inBrowser(name, true, 'jobs=traced');
    const { trace, text, threads, equal, error } = main.traced!;
    assert.deepEqual([error, threads, equal], [undefined, 2, true]);
    const { spans, events } = checkTrace(trace!);
    for (const thread of ['thread 0', 'thread 1'])
      assert.ok(
        spans.some((span) => span.thread === thread && span.path.includes('layer[5]')),
        thread,
      );
    const pieces = events.filter(({ ph, name }) => ph === 'i' && ['token', 'text'].includes(name!));
    assert.equal(pieces.map(({ args }) => args!.text).join(''), text);
  });

  test(`${name}: a page that is not isolated has one thread everywhere, and says so once`, options, async () => {
    const { main, worker } = await inBrowser(name, false, 'jobs=folder,two');
    for (const results of [main, worker]) {
      assertSame(results, ['folder', 'two']);
      assert.deepEqual([results.folder!.threads, results.two!.threads], [1, 1]);
      assert.equal(results.two!.warnings.length, 1);
    }
    assert.match(worker.two!.warnings[0]!, /one thread only: the page is not isolated/);
  });

  test(
    `${name}: an isolated page whose engine shares no memory has one thread, and says so once`,
    options,
    async () => {
      const { worker } = await inBrowser(name, true, 'jobs=inlineTwo&unshared');
      assertSame(worker, ['inlineTwo']);
      assert.equal(worker.inlineTwo!.threads, 1);
      assert.match(
        worker.inlineTwo!.warnings.join('\n'),
        /^one thread only: this browser shares no WebAssembly memory.*$/,
      );
    },
  );

  test(`${name}: more cores claimed than there are: as many threads, the same bits`, options, async () => {
    const { worker } = await inBrowser(name, true, 'jobs=inline&cores=8');
    assertSame(worker, ['inline']);
    assert.equal(worker.inline!.threads, 8);
  });

  test(`${name}: a GGUF address, an id of the hub, a file, a folder of the page's own`, options, async () => {
    const jobs = ['gguf', 'hub', 'file', 'handle'];
    const { main, worker } = await inBrowser(name, true, `jobs=${jobs}`);
    assertSame(main, jobs);
    assertSame(worker, jobs);
  });
}
