/** The slow backend that defines what a plan means. Every kernel and every architecture is tested against it. */

import { LanewiseError } from '../../errors.ts';
import { type BufferId, type Plan, type PlannedWeight, sourceRow } from '../../plan/step.ts';
import { dequantize, quantize } from '../../quant/codec.ts';
import { isBlockStorage } from '../../quant/storage.ts';
import {
  type Backend,
  type BackendOptions,
  type Batch,
  joinTensors,
  type LoadTimes,
  type LogitsSummary,
  type StepTime,
  type TensorData,
  type Timing,
} from '../backend.ts';
import { checkFinite, notFinite } from '../finite.ts';
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

/** The weight's own part of its tensor, as [out, in], stored as planned and widened again. */
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
  // Blocks of the file are kept as they are.
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
  timing: Timing = 'off';
  readonly #plan: Plan;
  readonly #weights: readonly HeldWeight[];
  readonly #caches: readonly KvPages[];
  #buffers: Float32Array[] = [];
  #times: StepTime[] = [];

  constructor({ plan, maxRows, maxWanted }: BackendOptions, weights: readonly HeldWeight[], loadTimes: LoadTimes) {
    this.#plan = plan;
    this.#weights = weights;
    this.#caches = plan.caches.map((spec) => new KvPages(spec));
    this.maxRows = maxRows;
    this.maxWanted = maxWanted;
    this.loadTimes = loadTimes;
  }

  memory(): { weights: number; activations: number; cache: number } {
    const sum = (sizes: readonly number[]): number => sizes.reduce((a, b) => a + b, 0);
    return {
      weights: sum([...new Set(this.#weights)].map(({ values }) => values.byteLength)),
      activations: sum(this.#buffers.map((buffer) => buffer.byteLength)),
      cache: sum(this.#caches.map(({ bytes }) => bytes)),
    };
  }

  ensurePages(count: number): void {
    for (const cache of this.#caches) cache.grow(count);
  }

  async forward(batch: Batch): Promise<void> {
    const rows = { all: batch.tokens.length, wanted: batch.wanted.length };
    this.#buffers = this.#plan.buffers.map((buffer) => new Float32Array(buffer.width * rows[buffer.rows]));
    const state: State = {
      plan: this.#plan,
      batch,
      buffers: this.#buffers,
      weights: this.#weights,
      caches: this.#caches,
    };
    this.#times = [];
    for (const [index, step] of this.#plan.steps.entries()) {
      const start = performance.now();
      runStep(step, state);
      if (this.timing !== 'off') this.#times.push({ step: index, ms: performance.now() - start });
    }
  }

  output(i: number): Float32Array {
    return this.#resultRow(this.#plan.output, i);
  }

  summary(i: number): LogitsSummary {
    return combineSummary(this.#resultRow(this.#plan.summary!, i));
  }

  #resultRow(buffer: BufferId, i: number): Float32Array {
    const { width } = this.#plan.buffers[buffer]!;
    return this.#buffers[buffer]!.subarray(i * width, (i + 1) * width);
  }

  tap(name: string): Float32Array {
    const step = this.#plan.steps.find((candidate) => candidate.op === 'tap' && candidate.name === name);
    if (step?.op !== 'tap') throw new LanewiseError('UnknownTap', `the plan keeps no copy named ${name}`);
    return this.#buffers[step.out]!.slice();
  }

  stepTimes(): readonly StepTime[] {
    return this.#times;
  }

  async dispose(): Promise<void> {
    this.#buffers = [];
  }
}
