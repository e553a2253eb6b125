import assert from 'node:assert/strict';
import test from 'node:test';
import { portable } from '../../src/backend/wasm/choosing/choice.ts';
import { chooseKernels } from '../../src/backend/wasm/choosing/probe.ts';
import { selfCheck } from '../../src/backend/wasm/self-check.ts';
import type { WasmHost } from '../../src/backend/wasm/threads/host.ts';
import { nodeHost } from '../../src/backend/wasm/threads/host-node.ts';
import { loadModel } from '../../src/engine/load.ts';
import { embeddedModel, locate } from '../../src/node.ts';
import { type Storage, storageLayout } from '../../src/quant/storage.ts';

/** Breaks what `breaks` picks: kernels that do not compile stand for all that a machine can get wrong. */
function brokenHost(breaks: (wide: boolean) => boolean): WasmHost {
  const host = nodeHost();
  return {
    ...host,
    compile(bytes, options) {
      // The probe's tiny module is not a kernel.
      if (bytes.length > 1000 && breaks(options.wide)) throw new Error('this machine cannot');
      return host.compile(bytes, options);
    },
  };
}

test('the machine kernels and the portable ones pass the check in every storage', async () => {
  const host = nodeHost();
  const storages = Object.keys(storageLayout) as Storage[];
  for (const choice of [chooseKernels(host), portable, { ...portable, q4: 'quads' } as const])
    assert.equal(await selfCheck({ host, choice }, storages), undefined, JSON.stringify(choice));
});

test('kernels that fail their check are replaced by the portable ones, with a warning', async (t) => {
  if (!nodeHost().widens) return t.skip('this engine has no wide code to break');
  const { folder } = await locate(embeddedModel);
  const warnings: string[] = [];
  const model = await loadModel(
    { folder, host: brokenHost((wide) => wide) },
    { onWarning: (text) => warnings.push(text) },
  );
  assert.equal(warnings.length, 1);
  assert.match(warnings[0]!, /kernels failed: this machine cannot.*using the portable ones/);
  await model.dispose();
});

test('a machine that fails the portable kernels too is told about the reference backend', async () => {
  const { folder } = await locate(embeddedModel);
  await assert.rejects(loadModel({ folder, host: brokenHost(() => true) }), { code: 'SelfCheckFailed' });
});

test('without threads one is used, and said when more were asked for', async () => {
  const host: WasmHost = { ...nodeHost(), threads: { possible: false, reason: 'no shared memory' } };
  const { folder } = await locate(embeddedModel);
  const warnings: string[] = [];
  const model = await loadModel({ folder, host }, { threads: 2, onWarning: (text) => warnings.push(text) });
  assert.equal(model.threads, 1);
  assert.deepEqual(warnings, ['one thread only: no shared memory']);
  await model.dispose();
});
