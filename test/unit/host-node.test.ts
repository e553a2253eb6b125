import assert from 'node:assert/strict';
import { once } from 'node:events';
import { cpSync, mkdirSync, mkdtempSync, renameSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { flagLock, nodeHost, physicalCores, threadsWithin } from '../../src/backend/wasm/threads/host-node.ts';
import { kernelHash } from '../../src/backend/wasm/threads/kernel-hash-node.ts';

test('two threads of one core count once, processors that are switched off not at all', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'cores-'));
  for (const [cpu, siblings] of ['0,4', '1,5', '2-3', '2-3', '0,4', '1,5'].entries()) {
    mkdirSync(path.join(folder, `cpu${cpu}`, 'topology'), { recursive: true });
    writeFileSync(path.join(folder, `cpu${cpu}`, 'topology', 'thread_siblings_list'), `${siblings}\n`);
  }
  mkdirSync(path.join(folder, 'cpu6'));
  mkdirSync(path.join(folder, 'cpufreq'));
  assert.equal(physicalCores(folder), 3);
  assert.equal(physicalCores(path.join(folder, 'nowhere')), undefined);
  assert.equal(physicalCores(path.join(folder, 'cpu6')), undefined);
});

test('a host has at least one core', () => {
  assert.ok(nodeHost().cores >= 1);
});

test('threads need addresses: below 64 GiB there are none, and the reason names the limit', () => {
  assert.deepEqual(threadsWithin(undefined), { possible: true });
  assert.deepEqual(threadsWithin(2 ** 40), { possible: true });
  const threads = threadsWithin(20e9);
  assert.ok(!threads.possible && threads.remarkable);
  assert.match(threads.reason, /limited to 20 GB.*ulimit -v/);
});

test('the hash of the kernels is that of their code, whatever the times of its files', () => {
  const root = mkdtempSync(path.join(tmpdir(), 'lanewise-hash-'));
  try {
    cpSync('src', root, { recursive: true });
    const original = kernelHash('src');
    assert.equal(kernelHash(root), original);
    const kernel = path.join(root, 'kernels', 'norm.ts');
    const touchAll = (): void => {
      for (const file of [kernel, path.join(root, 'kernels'), path.join(root, 'backend', 'wasm')])
        utimesSync(file, 1, 1);
    };
    touchAll();
    assert.equal(kernelHash(root), original);
    const hashes = new Set([original]);
    const changes = [
      () => writeFileSync(kernel, 'export const changed = 1;\n'),
      () => writeFileSync(path.join(root, 'backend', 'wasm', 'lowering', 'new.ts'), ''),
      () => renameSync(path.join(root, 'wasm', 'assembler.ts'), path.join(root, 'wasm', 'renamed.ts')),
      () => writeFileSync(path.join(root, 'quant', 'q8_0.ts'), ''),
    ];
    for (const change of changes) {
      change();
      touchAll();
      assert.ok(!hashes.has(kernelHash(root)));
      hashes.add(kernelHash(root));
    }
    writeFileSync(path.join(root, 'engine', 'new.ts'), '');
    writeFileSync(path.join(root, 'backend', 'wasm', 'threads', 'built.js'), '');
    assert.ok(hashes.has(kernelHash(root)));
  } finally {
    rmSync(root, { recursive: true });
  }
});

test("a thread compiles when no other thread has changed V8's flags", async (t) => {
  const node = Number.parseInt(process.versions.v8, 10) >= 12;
  if (!node) return t.skip('this Node has none of these flags');
  Atomics.store(flagLock, 0, 1);
  const worker = new Worker(new URL('./flag-lock-worker.ts', import.meta.url));
  try {
    const told: string[] = [];
    worker.on('message', (text: string) => told.push(text));
    await once(worker, 'message');
    await sleep(200);
    assert.deepEqual(told, ['ready']);
    Atomics.store(flagLock, 0, 0);
    Atomics.notify(flagLock, 0);
    await once(worker, 'exit');
    assert.deepEqual(told, ['ready', 'compiled']);
    assert.equal(Atomics.load(flagLock, 0), 0);
  } finally {
    Atomics.store(flagLock, 0, 0);
    await worker.terminate();
  }
});
