/**
 * Golden models on every backend: values of transformers, and the same bits for any threads, kernels, memories and chunks.
 * One backend runs all chunk sizes and greedy texts; the others must have its bits, for another chunk size and one greedy
 * text.
 */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import test from 'node:test';
import { portable } from '../../src/backend/wasm/choosing/choice.ts';
import { chooseKernels } from '../../src/backend/wasm/choosing/probe.ts';
import { nodeHost } from '../../src/backend/wasm/threads/host-node.ts';
import { backends, largestDifference, type MakeBackend, Runner, readGolden, reference, wasm, wide } from './support.ts';

const cases = readdirSync(new URL('../golden/models', import.meta.url));

/** Two f32 orders of summation differ by up to 4e-5 in logits; wrong settings by 0.03 and more. */
const tolerance = (name: string): number => (/^gemma|gpt2-wide/.test(name) ? 1e-3 : 2e-4);

/** The backend that runs all cases, and the chunk sizes of each backend: single rows, and sizes around that of a tile. */
const thorough = 'wasm, 1 thread';
const chunks: Readonly<Record<string, readonly number[]>> = {
  reference: [],
  [thorough]: [1, 7, 13],
  "wasm, 2 threads, this machine's choice": [13],
  'wasm, 3 threads, portable': [1],
  'wasm, 2 threads, many memories': [7],
};
assert.deepEqual(Object.keys(chunks), Object.keys(backends));

type Values = ReadonlyMap<string, Float32Array>;

/** Results of that backend for each input of a model, in one chunk. */
const bits = new Map<string, Promise<readonly Values[]>>();

function bitsOf(name: string): Promise<readonly Values[]> {
  const known = bits.get(name) ?? computeBits(name);
  bits.set(name, known);
  return known;
}

async function computeBits(name: string): Promise<readonly Values[]> {
  const { inputs } = await readGolden(name);
  const runner = await Runner.open(name, backends[thorough]!);
  const values: Values[] = [];
  for (const { ids } of inputs) values.push(await runner.run(ids, 64));
  await runner.close();
  return values;
}

function assertSame(found: Values, expected: Values, what: string): void {
  for (const [key, values] of expected) assert.equal(largestDifference(found.get(key)!, values), 0, `${key}, ${what}`);
}

for (const name of cases) {
  for (const [label, make] of Object.entries(backends)) {
    test(`${name}, ${label}: hidden states, logits and greedy continuations`, async () => {
      const golden = await readGolden(name);
      const runner = await Runner.open(name, make);
      try {
        for (const [i, { ids, tensors }] of golden.inputs.entries()) {
          const whole = await runner.run(ids, 64);
          for (const [key, expected] of tensors) {
            const error = largestDifference(whole.get(key)!, expected);
            assert.ok(error <= tolerance(name), `${key} is off by ${error}`);
          }
          if (label !== 'reference') assertSame(whole, (await bitsOf(name))[i]!, `as on ${thorough}`);
          for (const chunk of chunks[label]!) assertSame(await runner.run(ids, chunk), whole, `chunks of ${chunk}`);
        }
        // The last one has the longest prompt.
        for (const { prompt_ids, ids } of label === thorough ? golden.greedy : golden.greedy.slice(-1))
          assert.deepEqual(await runner.greedy(prompt_ids, ids.length), ids);
      } finally {
        await runner.close();
      }
    });
  }
}

for (const policy of [
  'none',
  'q8_0',
  'q4_0',
  'q8_0:min-dim=1024',
  'q8_0,attention=q4_0,output=f16,embedding=bf16',
  'q4_k',
  'f16',
  'q6_k,attention=q5_k,embedding=q4_k',
  'iq4_nl,attention=q8_0,embedding=iq4_nl',
]) {
  test(`bits do not depend on threads or instructions, and quantization stays close to the reference: ${policy}`, async () => {
    const { inputs } = await readGolden('gpt2-wide');
    const run = async (make: MakeBackend): Promise<Float32Array> => {
      const runner = await Runner.open('gpt2-wide', make, policy);
      const logits = (await runner.run(inputs[0].ids, 17)).get('logits')!;
      await runner.close();
      return logits;
    };
    const expected = await run(reference);
    const logits = await run(wasm(1, portable));
    assert.deepEqual(await run(wasm(2, wide)), logits);
    assert.deepEqual(await run(wasm(1, chooseKernels(nodeHost()))), logits);
    assert.deepEqual(await run(wasm(3, { ...wide, q4: 'pairs' })), logits);
    // An activation on the border between two quants may round to either: one part in 254 of its block.
    const norm = (x: Float32Array): number => Math.sqrt(x.reduce((sum, value) => sum + value * value, 0));
    const relative = norm(logits.map((value, i) => value - expected[i]!)) / norm(expected);
    assert.ok(relative < (policy === 'none' ? 1e-5 : 5e-3), `off by ${relative}`);
  });
}
