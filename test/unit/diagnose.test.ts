/** Checks of a machine: what is missing or limited is found, and told with a remedy. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test, { type TestContext } from 'node:test';
import { cpuQuota } from '../../src/backend/wasm/threads/cpu-quota-node.ts';
import { usableCores } from '../../src/backend/wasm/threads/host-node.ts';
import { checkEngine, checkNode, checkProcessors } from '../../src/diagnose/machine.ts';
import { checkFolders, checkHub } from '../../src/diagnose/places.ts';
import { HubServer } from './hub-server.ts';

function folderOf(t: TestContext): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'lanewise-doctor-'));
  t.after(() => rmSync(folder, { recursive: true }));
  return folder;
}

function write(file: string, text: string): void {
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, text);
}

test('old engines and other runtimes are told apart', () => {
  const status = (versions: object): string => checkNode(versions).status;
  assert.equal(status({ node: '24.3.0', v8: '13.6.1' }), 'ok');
  assert.equal(status({ node: '20.9.0', v8: '11.3.2' }), 'warning');
  assert.equal(status({ node: '18.20.0', v8: '10.2.1' }), 'fault');
  assert.equal(status({}), 'fault');
  assert.deepEqual(checkNode({ node: '24.0.0', bun: '1.3.0' }).value, 'Bun 1.3.0');
});

test('an engine without vector instructions is a fault, one without relaxed ones a warning', () => {
  assert.deepEqual(
    checkEngine().map(({ key, status, value }) => [key, status, value]),
    [
      ['wasm.simd', 'ok', true],
      ['wasm.relaxed_simd', 'ok', true],
    ],
  );
  assert.deepEqual(
    checkEngine(() => false).map(({ status, remedy }) => [status, typeof remedy]),
    [
      ['fault', 'string'],
      ['warning', 'string'],
    ],
  );
});

test('the quota of a control group counts, whether the group or one above it has it', (t) => {
  const root = folderOf(t);
  assert.equal(cpuQuota(root), undefined);
  write(path.join(root, 'proc/self/cgroup'), '0::/box/inner\n');
  write(path.join(root, 'sys/fs/cgroup/box/inner/cpu.max'), 'max 100000\n');
  assert.equal(cpuQuota(root), undefined);
  write(path.join(root, 'sys/fs/cgroup/box/cpu.max'), '150000 100000\n');
  assert.equal(cpuQuota(root), 1.5);
  // In a container the root of the hierarchy is the container's own group.
  write(path.join(root, 'sys/fs/cgroup/cpu.max'), '50000 100000\n');
  assert.equal(cpuQuota(root), 0.5);
});

test('the quota of a control group of version 1 counts', (t) => {
  const root = folderOf(t);
  write(path.join(root, 'proc/self/cgroup'), '5:memory:/box\n4:cpu,cpuacct:/box\n');
  write(path.join(root, 'sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us'), '-1\n');
  write(path.join(root, 'sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us'), '100000\n');
  assert.equal(cpuQuota(root), undefined);
  write(path.join(root, 'sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us'), '300000\n');
  assert.equal(cpuQuota(root), 3);
});

test('threads are as many as processors, cores and quota allow, and at least one', () => {
  assert.equal(usableCores({ usable: 8, physical: 4, quota: undefined }), 4);
  assert.equal(usableCores({ usable: 8, physical: undefined, quota: undefined }), 8);
  assert.equal(usableCores({ usable: 8, physical: 4, quota: 2.5 }), 2);
  assert.equal(usableCores({ usable: 8, physical: 4, quota: 0.5 }), 1);
});

test('a quota below the cores and busy processors are warnings', () => {
  const statuses = (given: Parameters<typeof checkProcessors>[0]): Record<string, string> =>
    Object.fromEntries(checkProcessors(given).map(({ key, status }) => [key, status]));
  const free = { usable: 8, physical: 4, quota: undefined, busy: 0.1 };
  assert.ok(Object.values(statuses(free)).every((status) => status === 'ok'));
  assert.equal(statuses({ ...free, quota: 2 })['cores.quota'], 'warning');
  assert.equal(statuses({ ...free, quota: 4 })['cores.quota'], 'ok');
  assert.equal(statuses({ ...free, busy: 3 })['cores.load'], 'warning');
});

test('folders that cannot be written are warnings that name them', async (t) => {
  const folder = folderOf(t);
  const fine = await checkFolders({ XDG_CACHE_HOME: folder });
  assert.deepEqual(
    fine.slice(0, 2).map(({ key, status, value }) => [key, status, value]),
    [
      ['cache.notes', 'ok', path.join(folder, 'lanewise')],
      ['cache.hub', 'ok', path.join(folder, 'huggingface', 'hub')],
    ],
  );
  const file = path.join(folder, 'file');
  writeFileSync(file, '');
  const bad = await checkFolders({ XDG_CACHE_HOME: path.join(file, 'inside') });
  for (const { status, why, remedy } of bad.slice(0, 2)) {
    assert.equal(status, 'warning');
    assert.match(why!, /file is not writable \(E[A-Z]+\)/);
    assert.ok(remedy);
  }
  const off = await checkFolders({ XDG_CACHE_HOME: folder, LANEWISE_NOTES: 'off' });
  assert.deepEqual([off[0]!.status, off[0]!.value], ['warning', null]);
  const wrong = await checkFolders({ XDG_CACHE_HOME: folder, HF_ENDPOINT: 'ftp://x' });
  assert.deepEqual([wrong.at(-1)!.key, wrong.at(-1)!.status], ['hub.endpoint', 'fault']);
});

test('the hub is asked only on request, and a token is never shown', async (t) => {
  const HF_HOME = folderOf(t);
  const hub = await HubServer.start({ 'config.json': '{}' });
  t.after(() => hub.stop());
  const environment = { HF_HOME, HF_ENDPOINT: hub.origin, HF_TOKEN: 'very secret' };
  const quiet = await checkHub(false, environment);
  assert.equal(hub.seen.length, 0);
  assert.deepEqual(
    quiet.map(({ key, value }) => [key, value]),
    [
      ['hub.endpoint', hub.origin],
      ['hub.token', true],
      ['hub.offline', false],
    ],
  );
  const asked = await checkHub(true, environment);
  assert.deepEqual([asked.at(-1)!.key, asked.at(-1)!.status], ['hub.reachable', 'ok']);
  assert.ok(hub.seen.length > 0);
  assert.doesNotMatch(JSON.stringify([quiet, asked]), /very secret/);
  await hub.stop();
  const gone = (await checkHub(true, environment)).at(-1)!;
  assert.deepEqual([gone.key, gone.status, gone.value], ['hub.reachable', 'fault', false]);
  const offline = await checkHub(true, { ...environment, HF_HUB_OFFLINE: '1' });
  assert.ok(offline.every(({ key }) => key !== 'hub.reachable'));
});
