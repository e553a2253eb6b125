/** Memory estimated from headers equals what a loaded model takes: weights, activations, cache, WebAssembly memories. */
import assert from 'node:assert/strict';
import { basename } from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { type BackendOptions, PAGE } from '../../src/backend/backend.ts';
import { joinTensors } from '../../src/backend/join-tensors.ts';
import { buildBackend } from '../../src/backend/wasm/backend.ts';
import { portable } from '../../src/backend/wasm/choosing/choice.ts';
import { footprint } from '../../src/backend/wasm/footprint.ts';
import { cachePageBytes, heldBytes } from '../../src/backend/wasm/memory/sizes.ts';
import { nodeHost } from '../../src/backend/wasm/threads/host-node.ts';
import { estimateMemory as estimateIn } from '../../src/engine/memory-estimate.ts';
import { OptionError } from '../../src/errors.ts';
import { nodeFolder } from '../../src/formats/adapters/node.ts';
import { estimateMemory, load, loadEncoder, type MemoryRow } from '../../src/node.ts';
import { weightsOf } from '../../src/plan/memory.ts';
import { Runner } from '../models/support.ts';

const golden = (name: string): string => fileURLToPath(new URL(`../golden/${name}`, import.meta.url));
const WASM_PAGE = 65536;
const rounded = (bytes: number): number => Math.ceil(bytes / WASM_PAGE) * WASM_PAGE;

/** Runs work and returns the WebAssembly memories that it made, oldest first. */
async function madeMemories(work: () => Promise<void>): Promise<WebAssembly.Memory[]> {
  const original = WebAssembly.Memory;
  const made: WebAssembly.Memory[] = [];
  WebAssembly.Memory = class extends original {
    constructor(descriptor: WebAssembly.MemoryDescriptor) {
      super(descriptor);
      made.push(this);
    }
  };
  try {
    await work();
    return made;
  } finally {
    WebAssembly.Memory = original;
  }
}

const decoders: readonly [model: string, policy: string, kvCache: 'f32' | 'f16' | 'q8_0', threads: number][] = [
  ['models/gpt2-tied-f32', 'none', 'f32', 1],
  ['models/gpt2-wide', 'q8_0:min-dim=1024', 'f32', 2],
  ['models/llama-gqa-f16', 'q8_0', 'f16', 3],
  ['models/gemma3', 'q4_0,output=q8_0', 'f32', 2],
  ['models/mixtral', 'bf16', 'f32', 1],
  ['models/phi3-longrope', 'q8_0', 'f32', 1],
  ['models/gemma4', 'none', 'f16', 2],
  ['gguf/llama-f32.gguf', 'f16', 'f32', 2],
];

test('weights, activations and cache of a loaded decoder are those of its estimate', async () => {
  for (const [index, [name, policy, kvCache, threads]] of decoders.entries()) {
    const path = golden(name);
    const { contextLength: longest } = await estimateMemory(path, { policies: [policy], contexts: [1] });
    // Two contexts of some models.
    for (const contextLength of new Set(index < 3 ? [Math.min(PAGE + 1, longest), longest] : [longest])) {
      const options = { policies: [policy], contexts: [contextLength], kvCaches: [kvCache], threads };
      const { rows, ...estimate } = await estimateMemory(path, options);
      assert.deepEqual([rows.length, estimate.threads], [1, threads]);
      const { memory, fits } = rows[0]!;
      assert.ok(memory && fits === 'fits', `${name} ${policy}`);
      const made = await madeMemories(async () => {
        await using model = await load(path, { inline: true, quantize: policy, kvCache, threads, contextLength });
        using sequence = model.sequence();
        await sequence.reserve(contextLength);
        const { weights, activations, cache } = memory;
        assert.deepEqual(model.memory(), { weights, activations, cache }, `${name} ${policy} ${contextLength}`);
      });
      const sizes = made.slice(-memory.memories.length).map(({ buffer }) => buffer.byteLength);
      assert.deepEqual(sizes, memory.memories.map(rounded), `${name} ${policy} ${contextLength}`);
      assert.equal(
        memory.total,
        memory.memories.reduce((sum, bytes) => sum + bytes, 0),
      );
    }
  }
});

test('an encoder takes what its estimate says, also with many short texts', async () => {
  for (const name of ['bert', 'modernbert', 'nomic-bert']) {
    const path = golden(`encoders/${name}`);
    for (const contextLength of [32, 128]) {
      const { rows, kind } = await estimateMemory(path, { contexts: [contextLength], threads: 1 });
      const { memory, kvCache, policy } = rows[0]!;
      assert.ok(memory && kind === 'encoder' && kvCache === undefined);
      await using encoder = await loadEncoder(path, { inline: true, contextLength, threads: 1, quantize: policy });
      await encoder.embed([{ tokenIds: Array.from({ length: contextLength }, (_, n) => 1 + (n % 50)) }]);
      const { weights, activations, cache } = memory;
      assert.deepEqual(encoder.memory(), { weights, activations, cache }, name);
      await encoder.embed(Array.from({ length: 100 }, () => ({ tokenIds: [1] })));
      assert.ok(encoder.memory().cache <= memory.mostCache, name);
    }
  }
});

test('a plan in many memories takes what its footprint says, for any number of threads', async () => {
  for (const [name, threads] of [
    ['llama3-rope-bf16', 1],
    ['gemma3', 3],
    ['mixtral', 2],
  ] as const) {
    let made: readonly WebAssembly.Memory[] = [];
    let runner: Runner | undefined;
    let expected: ReturnType<typeof footprint> | undefined;
    const make = async (given: BackendOptions) => {
      const { steps, weights, caches } = given.plan;
      const largest = steps.map((step) => weightsOf(step).reduce((sum, id) => sum + heldBytes(weights[id]!), 0));
      const memoryBytes = Math.max(...largest) * 1.3 + Math.max(...caches.map(cachePageBytes)) + 4096;
      const options = { ...given, threads, choice: portable, memoryBytes };
      expected = footprint({ ...options, tensor: joinTensors(given) });
      return buildBackend({ ...options, host: nodeHost() });
    };
    made = await madeMemories(async () => {
      runner = await Runner.open(name, make);
    });
    try {
      const { backend } = runner!;
      const memories = expected!.memories(1).length;
      assert.ok(memories > 1, name);
      assert.deepEqual(backend.memory(), expected!.memory(1), name);
      assert.equal(backend.cache.capacity * PAGE, expected!.mostPositions);
      const sizes = made.slice(-memories).map(({ buffer }) => buffer.byteLength);
      assert.deepEqual(sizes, expected!.memories(1).map(rounded), name);
    } finally {
      await runner?.close();
    }
  }
});

test('an estimate says whether a model fits, and why not', async () => {
  const path = golden('models/llama-gqa-f16');
  const fitsWith = async (memoryBytes: number, unusedBytes: number): Promise<MemoryRow> => {
    const source = { folder: nodeFolder(path), host: { ...nodeHost(), memoryBytes, unusedBytes } };
    return (await estimateIn(source, { policies: ['none'], contexts: [64], threads: 1 })).rows[0]!;
  };
  const { processBytes } = await estimateMemory(path, { policies: ['none'], contexts: [64], threads: 1 });
  const total = (await fitsWith(1e12, 1e12)).memory!.total + processBytes;
  assert.deepEqual((await fitsWith(total, total)).fits, 'fits');
  assert.deepEqual((await fitsWith(total, total - 1)).fits, 'tight');
  assert.deepEqual((await fitsWith(total - 1, total - 1)).fits, 'exceeds');
  const { rows } = await estimateMemory(golden('models/gpt2-tied-f32'), { kvCaches: ['f32', 'q8_0'], contexts: [64] });
  const refused = rows.find(({ kvCache, fits }) => kvCache === 'q8_0' && fits === 'unsupported');
  if (refused) assert.match(refused.reason!, /head dimensions that are multiples of 32/);
});

test('an estimate refuses what a load refuses, naming the option', async () => {
  const path = golden('models/llama-gqa-f16');
  const wrong: readonly [object, RegExp][] = [
    [{ policies: ['q9_0'] }, /^policies must be none, q8_0/],
    [{ policies: [] }, /^policies must be an array with at least one item/],
    [{ contexts: [0] }, /^contextLength must be an integer from 1/],
    [{ contexts: [10 ** 6] }, /^contextLength must be at most \d+, the model's limit/],
    [{ kvCaches: ['f64'] }, /^kvCache must be f32, f16 or q8_0/],
    [{ threads: 0 }, /^threads must be an integer from 1/],
    [{ policy: 'none' }, /^policy must be left out \(no such option/],
  ];
  for (const [options, message] of wrong)
    await assert.rejects(
      estimateMemory(path, options),
      (error) => error instanceof OptionError && message.test(error.message),
      JSON.stringify(options),
    );
  await assert.rejects(
    estimateMemory(golden('encoders/bert'), { kvCaches: ['f16'] }),
    /^OptionError: kvCaches must be left out: an encoder keeps no keys and values/,
  );
  assert.equal(basename((await estimateMemory(path)).name), 'llama-gqa-f16');
});
