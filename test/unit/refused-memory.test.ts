/** An engine with SharedArrayBuffer but without shared WebAssembly memories: one thread is used. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { nodeHost } from '../../src/backend/wasm/threads/host-node.ts';
import { loadModel } from '../../src/engine/load.ts';
import { nodeFolder } from '../../src/formats/adapters/node.ts';
import { embeddedModel } from '../../src/node.ts';

const Memory = WebAssembly.Memory;

/** Runs while shared memories with this maximum of pages or more are refused. */
async function outcome(refused: number, cores: number, threads?: number) {
  const warnings: string[] = [];
  const attempts: number[] = [];
  WebAssembly.Memory = class extends Memory {
    constructor(descriptor: WebAssembly.MemoryDescriptor) {
      if (descriptor.shared && descriptor.maximum! >= refused) {
        attempts.push(descriptor.maximum!);
        throw new RangeError('WebAssembly.Memory(): could not allocate memory');
      }
      super(descriptor);
    }
  };
  try {
    const host = { ...nodeHost(), cores };
    const onWarning = (text: string): number => warnings.push(text);
    const model = await loadModel({ folder: nodeFolder(embeddedModel), host }, { threads, onWarning });
    let text = '';
    for await (const event of model.generate('Once upon a time', { maxTokens: 8, temperature: 0 }))
      if (event.type === 'done') text = event.text;
    await model.dispose();
    return { threads: model.threads, text, warnings, attempts };
  } finally {
    WebAssembly.Memory = Memory;
  }
}

for (const [name, refused] of [
  ['of full size', 65536],
  ['of any size', 1],
] as const) {
  test(`shared memories ${name} refused: one thread, and one warning`, async () => {
    const given = await outcome(Number.POSITIVE_INFINITY, 2, 1);
    for (const [cores, threads] of [
      [2, undefined],
      [2, 2],
      [1, 2],
    ] as const) {
      const found = await outcome(refused, cores, threads);
      assert.deepEqual([found.threads, found.text], [1, given.text], `${cores} cores, ${threads} threads`);
      assert.match(found.warnings.join('\n'), /^one thread only: the engine gives no shared WebAssembly memory$/);
      assert.deepEqual(found.attempts, [65536]);
    }
  });
}

test('one thread asks for no shared memory', async () => {
  const { threads, warnings, attempts } = await outcome(1, 2, 1);
  assert.deepEqual([threads, warnings, attempts], [1, [], []]);
});
