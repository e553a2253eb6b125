/** The reference backend: slow, and the definition of every step. Kernels and architectures are tested against it. */

import { LanewiseError } from '../../errors.ts';
import { type BufferId, type Plan, type PlannedWeight, sourceRow } from '../../plan/step.ts';
import { dequantize, quantize } from '../../quant/codec.ts';
import { isBlockStorage } from '../../quant/storage.ts';
import {
  type Backend,
  type BackendOptions,
  type Batch,
  type CachePages,
  cachePages,
  type LoadTimes,
  pageCells,
  type Results,
  type StepTime,
  type TensorData,
  type WalkRecord,
} from '../backend.ts';
import { checkBatch } from '../check-batch.ts';
import { Checksum, firstNotFinite } from '../checksum.ts';
import { drawFrom } from '../draw.ts';
import type { Explanation } from '../explanation.ts';
import { checkFinite, notFinite } from '../finite.ts';
import { joinTensors } from '../join-tensors.ts';
import { combineSummary } from '../summary.ts';
import { KvPages } from './kv-pages.ts';
import { type HeldWeight, runStep, type State } from './steps.ts';

export async function createReferenceBackend(options: BackendOptions): Promise<Backend> {
  const { plan, onProgress, signal } = options;
  const start = performance.now();
  const weights: HeldWeight[] = [];
  const tensors = joinTensors(options);
  const total = plan.weights.reduce((sum, { bytes }) => sum + bytes, 0);
  let [done, bytesRead] = [0, 0];
  for (const weight of plan.weights) {
    signal?.throwIfAborted();
    if (weight.shares !== undefined) {
      weights.push(weights[weight.shares]!);
      continue;
    }
    const tensor = tensors(weight.source.tensor);
    weights.push(hold(weight, tensor, await readAll(tensor)));
    bytesRead += tensor.byteLength;
    onProgress?.(weight, (done += weight.bytes), total);
  }
  const ms = performance.now() - start;
  return new ReferenceBackend(options, weights, {
    ms,
    readMs: ms,
    quantizeMs: 0,
    packMs: 0,
    bytesRead,
  });
}

async function readAll(tensor: TensorData): Promise<Uint8Array> {
  const bytes = new Uint8Array(tensor.byteLength);
  await tensor.readInto(0, bytes);
  return bytes;
}

/** The weight's rows of its tensor as [out, in], quantized to its storage and dequantized. */
function hold({ shape, source, storage }: PlannedWeight, tensor: TensorData, bytes: Uint8Array): HeldWeight {
  const file = dequantize(tensor.dtype, bytes);
  const [rows, columns = 1] = shape as [number, number?];
  const values = new Float32Array(rows * columns);
  const outputs = tensor.shape[1] ?? 1;
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) {
      const row = sourceRow(source, r);
      values[r * columns + c] = file[source.transposed ? c * outputs + row : row * columns + c]! + source.plus;
    }
  }
  // Blocks that already have the right storage are not quantized again.
  const kept = tensor.blocks?.storage === storage && !source.transposed;
  const place = tensor.place ?? source.tensor;
  checkFinite(place, values, storage);
  const held = kept ? values : dequantize(storage, quantize(storage, values));
  if (!held.every(Number.isFinite)) throw notFinite(place, values, storage);
  return { values: held, quantized: isBlockStorage(storage) };
}

class ReferenceBackend implements Backend {
  readonly name = 'reference';
  readonly threads = 1;
  readonly vectorBits = undefined;
  readonly maxRows: number;
  readonly maxWanted: number;
  readonly loadTimes: LoadTimes;
  readonly cache: CachePages;
  readonly #plan: Plan;
  /** Undefined once disposed. */
  #weights: readonly HeldWeight[] | undefined;
  readonly #caches: readonly KvPages[];
  #buffers: Float32Array[] = [];
  readonly #records: readonly WalkRecord[];

  constructor(
    { plan, maxRows, maxWanted, cache }: BackendOptions,
    weights: readonly HeldWeight[],
    loadTimes: LoadTimes,
  ) {
    this.#plan = plan;
    this.#records = plan.steps.map(({ op }, step) => ({ step, kernel: op }));
    this.#weights = weights;
    this.#caches = plan.caches.map((spec) => new KvPages(spec, cellsOf(plan).cells));
    this.cache = pagesOf(plan, this.#caches, cache);
    this.maxRows = maxRows;
    this.maxWanted = maxWanted;
    this.loadTimes = loadTimes;
  }

  memory(): { weights: number; activations: number; cache: number } {
    const sum = (sizes: readonly number[]): number => sizes.reduce((a, b) => a + b, 0);
    return {
      weights: sum([...new Set(this.#weights ?? [])].map(({ values }) => values.byteLength)),
      activations: sum(this.#buffers.map((buffer) => buffer.byteLength)),
      cache: sum(this.#caches.map(({ bytes }) => bytes)),
    };
  }

  explain(): Explanation[] {
    return [
      {
        key: 'backend.name',
        value: this.name,
        from: 'option backend',
        why: 'plain TypeScript: slow, and without kernels',
      },
      { key: 'threads.count', value: 1, from: 'option backend', why: 'the reference backend has one thread' },
    ];
  }

  async forward(batch: Batch): Promise<Results> {
    if (!this.#weights) throw new LanewiseError('Disposed', 'the backend has been disposed');
    const { maxRows, maxWanted, cache } = this;
    checkBatch(batch, { plan: this.#plan, maxRows, maxWanted, pageCount: cache.count, cellsPerPage: cache.cells });
    const rows = { all: batch.tokens.length, wanted: batch.wanted.length };
    this.#buffers = this.#plan.buffers.map((buffer) => new Float32Array(buffer.width * rows[buffer.rows]));
    const state: State = {
      plan: this.#plan,
      batch: { ...batch, cells: batch.cells ?? batch.pages.map((table) => table.map((page) => page * cache.cells)) },
      buffers: this.#buffers,
      weights: this.#weights,
      caches: this.#caches,
    };
    const times: StepTime[] = [];
    const { timing = 'off', onWalk } = batch;
    const begin = performance.now();
    const ends: number[] = [];
    for (const [index, step] of this.#plan.steps.entries()) {
      const start = performance.now();
      runStep(step, state);
      if (timing !== 'off') times.push({ step: index, ms: performance.now() - start });
      if (onWalk) ends.push(performance.now());
    }
    const nowhere = (): number => Number.NEGATIVE_INFINITY;
    onWalk?.({
      records: this.#records,
      threads: [{ offset: 0, start: begin, ended: (i) => ends[i]!, arrived: nowhere }],
    });
    return {
      times,
      output: (i) => this.#resultRow(this.#plan.output, i),
      summary: (i) => combineSummary(this.#resultRow(this.#plan.summary!, i)),
      draw: async (draws) =>
        Int32Array.from(draws, (draw) => drawFrom(this.#resultRow(this.#plan.output, draw.row), draw)),
      tap: (name) => this.#tap(name),
    };
  }

  #resultRow(buffer: BufferId, i: number): Float32Array {
    const { width } = this.#plan.buffers[buffer]!;
    return this.#buffers[buffer]!.subarray(i * width, (i + 1) * width);
  }

  #tap(name: string): Float32Array {
    const step = this.#plan.steps.find((candidate) => candidate.op === 'tap' && candidate.name === name);
    if (step?.op !== 'tap') throw new LanewiseError('UnknownTap', `the plan keeps no copy named ${name}`);
    return this.#buffers[step.out]!.slice();
  }

  async dispose(): Promise<void> {
    this.#buffers = [];
    this.#weights = undefined;
    for (const cache of this.#caches) cache.clear();
  }
}

const cellsOf = ({ caches }: Plan): ReturnType<typeof pageCells> =>
  pageCells(caches.map((spec) => ({ window: spec.window, bytes: spec.kvHeads * spec.headDim })));

function pagesOf(plan: Plan, caches: readonly KvPages[], size: BackendOptions['cache']): CachePages {
  let count = 0;
  const pageBytes = caches.reduce((sum, cache) => sum + cache.pageBytes, 0);
  return {
    capacity: cachePages(size, pageBytes).most,
    tableEntries: Number.POSITIVE_INFINITY,
    ...cellsOf(plan),
    pageBytes,
    get count() {
      return count;
    },
    async ensure(wanted) {
      count = Math.max(count, wanted);
      for (const cache of caches) cache.grow(count);
    },
    async copy(from, to) {
      for (const cache of caches) cache.write(to, cache.read(from));
    },
    async shrink(page, cell) {
      for (const [id, cache] of caches.entries()) if (plan.caches[id]!.window === undefined) cache.shrink(page, cell);
    },
    async read(page) {
      const parts = caches.map((cache) => cache.read(page));
      const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
      let at = 0;
      for (const part of parts) {
        whole.set(part, at);
        at += part.length;
      }
      return whole;
    },
    async fill(page, source) {
      let at = 0;
      for (const cache of caches) {
        const bytes = new Uint8Array(cache.pageBytes);
        await source(at, bytes);
        cache.write(page, bytes);
        at += bytes.length;
      }
    },
    async inspect(page) {
      const bytes = await this.read(page);
      const words = new Int32Array(bytes.buffer);
      const found = firstNotFinite(words, 0, words.length, 'f32');
      return { checksum: new Checksum().add(bytes).value, notFinite: found && 4 * found };
    },
  };
}
