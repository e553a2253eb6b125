/** How large the cache is: what was asked for, or what the machine has, and weights spread so that it fits. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { cachePages, PAGE } from '../../src/backend/backend.ts';
import { Checksum } from '../../src/backend/checksum.ts';
import { buildBackend } from '../../src/backend/wasm/backend.ts';
import { portable } from '../../src/backend/wasm/choosing/choice.ts';
import { nodeHost } from '../../src/backend/wasm/threads/host-node.ts';
import { loadModel } from '../../src/engine/load.ts';
import { OptionError, OutOfMemoryError } from '../../src/errors.ts';
import { nodeFolder } from '../../src/formats/adapters/node.ts';
import { load, loadEncoder } from '../../src/node.ts';
import { Runner, wasm, wasmInParts } from '../models/support.ts';

const golden = (name: string): string => fileURLToPath(new URL(`../golden/models/${name}`, import.meta.url));
const llama = golden('llama3-rope-bf16');

test('pages for what was asked for, at least one context', () => {
  assert.deepEqual(cachePages(undefined, 1000), { least: 1, most: 1 });
  assert.deepEqual(cachePages({ contextLength: 130 }, 1000), { least: 3, most: 3 });
  assert.deepEqual(cachePages({ contextLength: 130, tokens: 641 }, 1000), { least: 11, most: 11 });
  assert.deepEqual(cachePages({ contextLength: 130, bytes: 9999 }, 1000), { least: 9, most: 9 });
  assert.deepEqual(cachePages({ contextLength: 130, mostTokens: 64 * 50 }, 1000), { least: 3, most: 50 });
  assert.deepEqual(cachePages({ contextLength: 130, mostTokens: 64 * 50, mostBytes: 7500 }, 1000), {
    least: 3,
    most: 7,
  });
  assert.deepEqual(cachePages({ contextLength: 130, mostTokens: 64 * 50, mostBytes: 0 }, 1000), { least: 3, most: 3 });
  assert.throws(() => cachePages({ contextLength: 130, bytes: 2999 }, 1000), {
    code: 'InvalidOption',
    message: 'cacheMemory must be at least 3000 bytes for a contextLength of 130, got 2999',
  });
});

test('the cache has the size that the load options ask for, or that the machine allows', async () => {
  const capacity = async (options: object): Promise<number> => {
    await using model = await load(llama, { threads: 1, inline: true, ...options });
    return model.stats().pages.capacity * PAGE;
  };
  assert.equal(await capacity({ cacheTokens: 1000 }), 1024);
  assert.equal(await capacity({ cacheTokens: 1000, backend: 'reference' }), 1024);
  // A cache of 100 tokens holds no longer text.
  await using small = await load(llama, { threads: 1, inline: true, cacheTokens: 100 });
  assert.deepEqual([small.contextLength, small.stats().pages.capacity], [100, 2]);
  const whole = await capacity({});
  assert.equal(whole, 64 * 512, 'a context for each sequence of a forward');
  const runner = await Runner.open('llama3-rope-bf16', wasm(1, portable));
  const { pageBytes } = runner.backend.cache;
  await runner.close();
  assert.equal((await capacity({ cacheMemory: 20 * pageBytes + 1 })) / PAGE, 20);
  // A machine with little memory has one context.
  await using poor = await loadModel(
    { folder: nodeFolder(llama), host: { ...nodeHost(), memoryBytes: 1000 } },
    { threads: 1 },
  );
  assert.equal(poor.stats().pages.capacity * PAGE, 512);
});

test('sizes that cannot be are refused before weights are read', async () => {
  const wrong = [
    [{ cacheTokens: 0 }, /^cacheTokens must be an integer from 1/],
    [{ cacheTokens: 1.5 }, /^cacheTokens must be an integer from 1/],
    [{ cacheMemory: 'all' }, /^cacheMemory must be an integer from 1/],
    [{ cacheTokens: 100, contextLength: 200 }, /^cacheTokens must be at least the contextLength of 200, got 100/],
    [{ cacheTokens: 1000, cacheMemory: 10 ** 6 }, /^cacheMemory must be left out if cacheTokens is given/],
    [{ cacheMemory: 1000 }, /^cacheMemory must be at least \d+ bytes for a contextLength of 512/],
    [{ cacheMemory: 2 ** 52 }, /^cacheMemory must be at most \d+, the memory of this machine/],
  ] as const;
  let read = false;
  for (const [options, message] of wrong) {
    const given = { threads: 1, inline: true, onProgress: () => (read = true), ...options } as object;
    await assert.rejects(load(llama, given), (error) => error instanceof OptionError && message.test(error.message));
  }
  // One layer's keys and values that no memory holds.
  await assert.rejects(
    load(llama, { threads: 1, inline: true, cacheTokens: 2 ** 30, onProgress: () => (read = true) }),
    (error) => {
      assert.ok(error instanceof OutOfMemoryError);
      return true;
    },
  );
  assert.equal(read, false);
  const encoder = golden('../encoders/bert');
  for (const options of [{ cacheTokens: 1000 }, { cacheMemory: 10 ** 9 }])
    await assert.rejects(loadEncoder(encoder, { inline: true, ...options }), /an encoder keeps no keys and values/);
});

test('weights are spread over as many memories as the cache needs, and all of its pages can be had', async () => {
  const parts: number[] = [];
  for (const tokens of [PAGE, 200 * PAGE]) {
    const cache = { contextLength: PAGE, tokens };
    const host = nodeHost();
    const runner = await Runner.open('llama3-rope-bf16', (options) =>
      buildBackend({ ...options, host, threads: 1, choice: portable, memoryBytes: 8e6, cache }),
    );
    try {
      const { cache: pages } = runner.backend;
      assert.equal(pages.capacity, tokens / PAGE);
      await pages.ensure(pages.capacity);
      assert.equal(runner.backend.memory().cache, pages.capacity * pages.pageBytes);
      const ids = Array.from({ length: 100 }, (_, i) => (i * 7) % 400);
      assert.equal((await runner.run(ids, 50)).get('logits')!.length, 100 * runner.model.config.vocab);
      parts.push(pages.capacity * pages.pageBytes);
    } finally {
      await runner.close();
    }
  }
  assert.ok(parts[1]! > 8e6, 'more than one memory may hold');
});

test('a page tells its checksum and where a number is not finite, in whatever storage and memories', async () => {
  for (const storage of ['f32', 'f16', 'q8_0'] as const) {
    const sums: number[] = [];
    for (const make of [wasm(1, portable), wasm(2, portable), wasmInParts(2, portable)]) {
      const runner = await Runner.open('llama3-rope-bf16', make, 'none', 64, storage);
      try {
        const { cache } = runner.backend;
        await runner.run(
          Array.from({ length: PAGE }, (_, i) => 3 + i),
          PAGE,
        );
        const bytes = await cache.read(0);
        const report = await cache.inspect(0);
        assert.equal(report.checksum, new Checksum().add(bytes).value);
        assert.equal(report.notFinite, undefined);
        sums.push(report.checksum);
        /** What is found where these bytes stand at a place. */
        const found = async (at: number, ...put: number[]): Promise<number | undefined> => {
          const changed = bytes.slice();
          changed.set(put, at);
          await cache.ensure(2);
          await cache.fill(1, async (start, target) => target.set(changed.subarray(start, start + target.length)));
          assert.deepEqual(await cache.read(1), changed);
          return (await cache.inspect(1)).notFinite;
        };
        const places = [0, 4096, bytes.length - 64];
        // In q8_0 the scales are in front of the integers, which may be anything.
        if (storage === 'f32') for (const at of places) assert.equal(await found(at, 0, 0, 0xc0, 0x7f), at);
        if (storage === 'f16') for (const at of places) assert.equal(await found(at + 2, 0, 0xfc), at);
        if (storage === 'q8_0') assert.equal(await found(8, 0, 0, 0x80, 0xff), 8);
        if (storage === 'q8_0') assert.equal(await found(bytes.length - 64, 255, 255, 255, 255), undefined);
      } finally {
        await runner.close();
      }
    }
    assert.equal(new Set(sums).size, 1, 'the same bytes, however weights are spread');
  }
});
