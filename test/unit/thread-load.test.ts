/** Weights that threads read for themselves: also where some cannot, and where one is lost, the model is the same. */
import assert from 'node:assert/strict';
import { open } from 'node:fs/promises';
import test from 'node:test';
import type { WasmHost } from '../../src/backend/wasm/threads/host.ts';
import { nodeHost } from '../../src/backend/wasm/threads/host-node.ts';
import { loadModel } from '../../src/engine/load.ts';
import { nodeFolder } from '../../src/formats/adapters/node.ts';
import type { ByteSource, FileFolder } from '../../src/formats/bytes.ts';
import { embeddedModel } from '../../src/node.ts';

const host = nodeHost();

/** The embedded model, its files with another descriptor. */
function described(descriptor: (source: ByteSource) => number | undefined): FileFolder {
  const folder = nodeFolder(embeddedModel);
  return {
    ...folder,
    async open(name) {
      const source = await folder.open(name);
      return source && { ...source, descriptor: descriptor(source) };
    },
  };
}

async function textOf(source: Parameters<typeof loadModel>[0], threads: number): Promise<string> {
  const progress: number[] = [];
  let total = 0;
  const onProgress = (done: number, all: number): void => {
    progress.push(done);
    total = all;
  };
  await using model = await loadModel(source, { threads, quantize: 'q8_0', onProgress });
  assert.deepEqual(
    progress,
    [...progress].sort((a, b) => a - b),
  );
  assert.equal(progress.at(-1), total, 'all is told in the end');
  assert.equal(model.loadTimes.bytesRead, total);
  for await (const event of model.generate('Once upon a time', { maxTokens: 12, temperature: 0 }))
    if (event.type === 'done') return event.tokenIds.join(' ');
  throw new Error('no done event');
}

const expected = await textOf({ folder: nodeFolder(embeddedModel), host }, 1);

test('any number of threads', async () => {
  for (const threads of [2, 5])
    assert.equal(await textOf({ folder: nodeFolder(embeddedModel), host }, threads), expected);
});

test('a file that threads cannot read by its number, or read nothing from', async () => {
  const empty = await open('/dev/null');
  try {
    for (const descriptor of [undefined, 2 ** 20, empty.fd])
      assert.equal(await textOf({ folder: described(() => descriptor), host }, 3), expected);
  } finally {
    await empty.close();
  }
});

test('a thread that ends while it loads', async () => {
  let losses = 2;
  const spawn: WasmHost['spawn'] = (setup) => {
    if (losses-- <= 0) return host.spawn(setup);
    const thread = host.spawn({ ...setup, load: undefined });
    void thread.ready.then(() => thread.terminate());
    return thread;
  };
  assert.equal(await textOf({ folder: nodeFolder(embeddedModel), host: { ...host, spawn } }, 3), expected);
});

test('an abort while threads load', async () => {
  const controller = new AbortController();
  const onProgress = (): void => controller.abort();
  const loading = loadModel(
    { folder: nodeFolder(embeddedModel), host },
    { threads: 3, signal: controller.signal, onProgress },
  );
  await assert.rejects(loading, { name: 'AbortError' });
});
