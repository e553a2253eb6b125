/** Runs golden models on a backend: hidden states, logits and greedy continuations, with any chunk size. */

import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { type Backend, type BackendOptions, PAGE, type TensorData } from '../../src/backend/backend.ts';
import { createReferenceBackend } from '../../src/backend/reference/backend.ts';
import { buildBackend } from '../../src/backend/wasm/backend.ts';
import { type Choice, portable } from '../../src/backend/wasm/choosing/choice.ts';
import { chooseKernels } from '../../src/backend/wasm/choosing/probe.ts';
import { cachePageBytes, heldBytes } from '../../src/backend/wasm/memory/sizes.ts';
import { nodeHost } from '../../src/backend/wasm/threads/host-node.ts';
import { nodeFolder } from '../../src/formats/adapters/node.ts';
import { type CheckpointTensor, openCheckpoint, readJson } from '../../src/formats/checkpoint.ts';
import { buildModel, type ModelDescription } from '../../src/models/index.ts';
import { parsePolicy } from '../../src/models/policy.ts';
import { weightsOf } from '../../src/plan/memory.ts';
import { ropeSet } from '../../src/plan/rope.ts';
import type { Step } from '../../src/plan/step.ts';
import { type TapChoice, tapped } from '../../src/plan/taps.ts';
import type { KvStorage } from '../../src/quant/kv-cache.ts';

const goldenFolder = (name: string): string => fileURLToPath(new URL(`../golden/models/${name}`, import.meta.url));

/** A prompt with its hidden states and logits. */
export interface GoldenInput {
  readonly ids: Int32Array;
  readonly tensors: ReadonlyMap<string, Float32Array>;
}

export interface Golden {
  /** The input, and for some models a second one (`short.*`). */
  readonly inputs: readonly [GoldenInput, ...GoldenInput[]];
  readonly greedy: readonly { readonly prompt_ids: number[]; readonly ids: number[] }[];
}

/** Results of transformers for a model. */
export async function readGolden(name: string): Promise<Golden> {
  const checkpoint = await openCheckpoint(nodeFolder(goldenFolder(name)), 'expected.safetensors');
  const prefixes = checkpoint.tensors.has('short.input_ids') ? ['', 'short.'] : [''];
  const inputs: GoldenInput[] = [];
  for (const prefix of prefixes) {
    const tensors = new Map<string, Float32Array>();
    let ids = new Int32Array(0);
    for (const [key, tensor] of checkpoint.tensors) {
      const name = key.slice(prefix.length);
      if (!key.startsWith(prefix) || name.startsWith('short.')) continue;
      const bytes = new Uint8Array(tensor.byteLength);
      await tensor.readInto(0, bytes);
      if (name === 'input_ids') ids = new Int32Array(bytes.buffer);
      else tensors.set(name, new Float32Array(bytes.buffer));
    }
    inputs.push({ ids, tensors });
  }
  await checkpoint.close();
  const { greedy } = JSON.parse(await readFile(`${goldenFolder(name)}/expected.json`, 'utf8'));
  return { inputs: inputs as [GoldenInput, ...GoldenInput[]], greedy };
}

const tensorData = (tensor: CheckpointTensor): TensorData => ({
  dtype: tensor.dtype.toLowerCase() as TensorData['dtype'],
  shape: tensor.shape,
  byteLength: tensor.byteLength,
  readInto: (start, target) => tensor.readInto(start, target),
});

export type MakeBackend = (options: BackendOptions) => Promise<Backend>;
export const reference: MakeBackend = createReferenceBackend;
export const wasm =
  (threads: number, choice: Choice): MakeBackend =>
  (options) =>
    buildBackend({ ...options, host: nodeHost(), threads, choice, allThreads: true });

/** As many memories as the step with the most weights allows. */
export const wasmInParts =
  (threads: number, choice: Choice): MakeBackend =>
  (options) => {
    const { steps, weights } = options.plan;
    const bytes = (step: Step): number => weightsOf(step).reduce((sum, id) => sum + heldBytes(weights[id]!), 0);
    const largest = steps.reduce((most, step) => Math.max(most, bytes(step)), 0);
    const caches = options.plan.caches.map(cachePageBytes);
    const memoryBytes = largest * 1.3 + Math.max(0, ...caches) + 4096;
    return buildBackend({ ...options, host: nodeHost(), threads, choice, memoryBytes, allThreads: true });
  };

export const wide = { ...portable, wide: true } as const;
/** The backends that golden models run on. */
export const backends: Record<string, MakeBackend> = {
  reference,
  'wasm, 1 thread': wasm(1, wide),
  "wasm, 2 threads, this machine's choice": wasm(2, chooseKernels(nodeHost())),
  'wasm, 3 threads, portable': wasm(3, portable),
  'wasm, 2 threads, many memories': wasmInParts(2, wide),
};

export class Runner {
  readonly backend: Backend;
  readonly model: ModelDescription;
  readonly tensor: (name: string) => TensorData;
  readonly #close: () => Promise<void>;

  private constructor(
    backend: Backend,
    model: ModelDescription,
    tensor: (name: string) => TensorData,
    close: () => Promise<void>,
  ) {
    this.backend = backend;
    this.model = model;
    this.tensor = tensor;
    this.#close = close;
  }

  static async open(
    name: string,
    make: MakeBackend,
    quantize = 'none',
    maxRows = 64,
    kvCache?: KvStorage,
    taps: TapChoice = 'hidden',
  ): Promise<Runner> {
    const folder = nodeFolder(goldenFolder(name));
    const checkpoint = await openCheckpoint(folder);
    const built = buildModel(await readJson(folder, 'config.json'), checkpoint.tensors, {
      policy: parsePolicy(quantize),
      kvCache,
    });
    const model = { ...built, plan: tapped(built.plan, taps) };
    const tensor = (key: string): TensorData => tensorData(checkpoint.tensors.get(key)!);
    const backend = await make({ plan: model.plan, maxRows, maxWanted: maxRows, tensor });
    return new Runner(backend, model, tensor, () => checkpoint.close());
  }

  /** Forwards `ids` in chunks; all taps and the logits, joined. Pages are taken in falling order, to be no identity. */
  async run(
    ids: ArrayLike<number>,
    chunk: number,
    from = 0,
    length = from + ids.length,
  ): Promise<Map<string, Float32Array>> {
    const pageCount = Math.ceil(length / PAGE);
    await this.backend.cache.ensure(pageCount);
    const pages = [Int32Array.from({ length: pageCount }, (_, i) => pageCount - 1 - i)];
    const parts = new Map<string, Float32Array[]>();
    const keep = (name: string, values: Float32Array): void => {
      const list = parts.get(name);
      if (list) list.push(values);
      else parts.set(name, [values]);
    };
    for (let start = 0; start < ids.length; start += chunk) {
      const tokens = Int32Array.from(Array.prototype.slice.call(ids, start, start + chunk));
      const rows = Int32Array.from(tokens, (_, i) => i);
      const positions = rows.map((i) => from + start + i);
      const sequences = new Int32Array(tokens.length);
      const lengths = Int32Array.of(length);
      const results = await this.backend.forward({ tokens, positions, sequences, pages, wanted: rows, lengths });
      for (const step of this.model.plan.steps) if (step.op === 'tap') keep(step.name, results.tap(step.name));
      for (const row of rows) keep('logits', results.output(row).slice());
    }
    return new Map([...parts].map(([name, list]) => [name, join(list)]));
  }

  /** The continuation by the largest logit. */
  async greedy(prompt: readonly number[], count: number): Promise<number[]> {
    const out: number[] = [];
    let input: readonly number[] = prompt;
    let at = 0;
    while (out.length < count) {
      // What the engine does when a sequence grows beyond a limit.
      const { ropes } = this.model.plan;
      if (ropeSet(ropes, at + input.length) !== ropeSet(ropes, at))
        await this.run([...prompt, ...out].slice(0, at), 64, 0, at + input.length);
      const logits = (await this.run(input, 64, at)).get('logits')!.slice(-this.model.config.vocab);
      at += input.length;
      let best = 0;
      for (let i = 1; i < logits.length; i++) if (logits[i]! > logits[best]!) best = i;
      out.push(best);
      input = [best];
    }
    return out;
  }

  async close(): Promise<void> {
    await this.backend.dispose();
    await this.#close();
  }
}

function join(parts: readonly Float32Array[]): Float32Array {
  const out = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

export function largestDifference(a: Float32Array, b: Float32Array): number {
  if (a.length !== b.length) return Number.POSITIVE_INFINITY;
  return a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0);
}
