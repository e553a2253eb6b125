/** Every golden encoder through every backend: what transformers computes, and the same bits whatever else is in the batch. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import test from 'node:test';
import { portable } from '../../src/backend/wasm/choice.ts';
import { nodeHost } from '../../src/backend/wasm/host-node.ts';
import { chooseKernels } from '../../src/backend/wasm/probe.ts';
import { EncoderRunner, readGoldenTexts } from './encoder-support.ts';
import { largestDifference, type MakeBackend, reference, wasm, wasmInParts } from './support.ts';

const cases = readdirSync(new URL('../golden/encoders', import.meta.url));

const wide = { ...portable, wide: true } as const;
const backends: Record<string, MakeBackend> = {
  reference,
  'wasm, 1 thread': wasm(1, wide),
  "wasm, 2 threads, this machine's choice": wasm(2, chooseKernels(nodeHost())),
  'wasm, 3 threads, portable': wasm(3, portable),
  'wasm, 2 threads, many memories': wasmInParts(2, wide),
};

for (const name of cases) {
  for (const [label, make] of Object.entries(backends)) {
    test(`${name}, ${label}: hidden states, alone and in a batch`, async () => {
      const texts = await readGoldenTexts(name);
      const runner = await EncoderRunner.open(name, make);
      try {
        const together = await runner.run(texts);
        for (const [n, text] of texts.entries()) {
          const [alone] = await runner.run([text]);
          for (const [key, values] of alone!) {
            const error = largestDifference(values, text.tensors.get(key)!);
            assert.ok(error <= 2e-4, `text ${n}: ${key} is off by ${error}`);
            assert.equal(largestDifference(together[n]!.get(key)!, values), 0, `text ${n}: ${key} in a batch`);
          }
        }
      } finally {
        await runner.close();
      }
    });
  }

  test(`${name}: bits do not depend on threads, instructions or the order of texts, also quantized`, async () => {
    const texts = await readGoldenTexts(name);
    for (const policy of ['none', 'q8_0', 'q4_0']) {
      const run = async (make: MakeBackend, order: typeof texts): Promise<Map<string, Float32Array>[]> => {
        const runner = await EncoderRunner.open(name, make, policy);
        const results = await runner.run(order);
        await runner.close();
        return results;
      };
      const expected = await run(wasm(1, portable), texts);
      assert.deepEqual(await run(wasm(3, wide), texts), expected, policy);
      assert.deepEqual(
        await run(wasm(2, chooseKernels(nodeHost())), [...texts].reverse()),
        [...expected].reverse(),
        policy,
      );
    }
  });
}
