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

/** Refuses to compile what `breaks` picks. */
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

/** Where the bodies of a module's functions begin and end. */
function bodies(bytes: Uint8Array): { readonly from: number; readonly to: number }[] {
  let at = 8;
  const number = (): number => {
    let [value, factor] = [0, 1];
    for (;;) {
      const byte = bytes[at++]!;
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) return value;
      factor *= 128;
    }
  };
  for (;;) {
    const id = bytes[at++]!;
    const length = number();
    if (id !== 10) {
      at += length;
      continue;
    }
    return Array.from({ length: number() }, () => {
      const size = number();
      const body = { from: at, to: at + size };
      at += size;
      return body;
    });
  }
}

/** Places of f32x4.add and f32x4.mul, beyond the first byte. */
function vectorArithmetic(bytes: Uint8Array, { from, to }: ReturnType<typeof bodies>[number]): number[] {
  return Array.from({ length: to - from - 2 }, (_, i) => from + i + 1).filter(
    (at) => bytes[at - 1] === 0xfd && (bytes[at] === 0xe4 || bytes[at] === 0xe6) && bytes[at + 1] === 0x01,
  );
}

/**
 * A machine that takes other instructions for those of one function of one module: f32x4.mul adds, f32x4.add
 * multiplies.
 */
function confusedHost(name: string, index: number): WasmHost {
  const host = nodeHost();
  return {
    ...host,
    compile(bytes, options) {
      if (!Buffer.from(bytes).includes(name)) return host.compile(bytes, options);
      const confused = bytes.slice();
      for (const at of vectorArithmetic(bytes, bodies(bytes)[index]!)) confused[at] = bytes[at] === 0xe4 ? 0xe6 : 0xe4;
      return host.compile(confused, options);
    },
  };
}

for (const storage of ['f32', 'q8_0', 'q4_0', 'iq4_nl', 'q6_k'] as const) {
  test(`a machine that gets any function of the ${storage} products wrong fails the check`, async () => {
    const choice = chooseKernels(nodeHost());
    let functions: number[] = [];
    const counting: WasmHost = {
      ...nodeHost(),
      compile(bytes, options) {
        if (Buffer.from(bytes).includes(`matmul_${storage}`))
          functions = bodies(bytes).flatMap((body, index) => (vectorArithmetic(bytes, body).length > 0 ? [index] : []));
        return nodeHost().compile(bytes, options);
      },
    };
    assert.equal(await selfCheck({ host: counting, choice }, [storage]), undefined);
    assert.ok(functions.length >= 2);
    const survivors: number[] = [];
    for (const index of functions) {
      const problem = await selfCheck({ host: confusedHost(`matmul_${storage}`, index), choice }, [storage]);
      if (problem === undefined) survivors.push(index);
      else assert.match(problem, new RegExp(`^${storage} kernels are off by `));
    }
    assert.deepEqual(survivors, []);
  });
}

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

test('without threads one is used, with a warning if more were requested', async () => {
  const host: WasmHost = { ...nodeHost(), threads: { possible: false, reason: 'no shared memory' } };
  const { folder } = await locate(embeddedModel);
  const warnings: string[] = [];
  const model = await loadModel({ folder, host }, { threads: 2, onWarning: (text) => warnings.push(text) });
  assert.equal(model.threads, 1);
  assert.deepEqual(warnings, ['one thread only: no shared memory']);
  await model.dispose();
});
