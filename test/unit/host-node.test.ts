import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'node:test';
import { nodeHost, physicalCores, threadsWithin } from '../../src/backend/wasm/threads/host-node.ts';

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
