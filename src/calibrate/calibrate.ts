/**
 * Quantizes the matrices of a model by calibration: segment by segment, each linear layer with the second moments of the inputs
 * that the layers quantized before it give on a text.
 */
import type { TensorData } from '../backend/backend.ts';
import { chooseKernels } from '../backend/wasm/choosing/probe.ts';
import type { WasmHost } from '../backend/wasm/threads/host.ts';
import type { OpenModel } from '../engine/open.ts';
import { buildModel } from '../models/index.ts';
import { parsePolicy } from '../models/policy.ts';
import type { Plan, PlannedWeight, WeightId } from '../plan/step.ts';
import { dequantize } from '../quant/codec.ts';
import { weightTypes } from '../quant/ggml.ts';
import { type BlockStorage, storageLayout } from '../quant/storage.ts';
import { Algebra, type FeedbackType, identityMoments, type Moments, mixedWithIdentity } from './algebra.ts';
import { encodeBlocks } from './encode.ts';
import { rememberingHost, SegmentRunner, type SegmentWeights } from './segment-runner.ts';
import { type LayerGroup, layerGroups, segmentsOf } from './segments.ts';
import { weightRows } from './weight-rows.ts';

/** Types that calibration writes. */
export type CalibratedStorage = FeedbackType;
export const calibratedTypes: readonly string[] = [
  'q4_0',
  'iq4_nl',
  'q4_k',
  'q5_k',
  'q6_k',
  'q8_0',
] satisfies CalibratedStorage[];

export interface CalibrationOptions {
  readonly model: OpenModel;
  readonly host: WasmHost;
  readonly threads?: number;
  /** Token ids of the calibration texts. */
  readonly texts: readonly Int32Array[];
  /** The type that a matrix is to have; undefined: it is left alone. */
  storageOf(weight: PlannedWeight): CalibratedStorage | undefined;
  /** Matrices' values done so far, and of all. */
  readonly onProgress?: (done: number, total: number) => void;
  readonly signal?: AbortSignal;
}

export interface CalibratedWeight {
  readonly weight: PlannedWeight;
  readonly storage: CalibratedStorage;
  /** Blocks of its rows, in the order of the plan. */
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** Share of the mean diagonal added to the diagonal of second moments. */
export const DAMPING = 0.01;
/** Share of the identity in the moments of a table that is embedding and output head: how much its use as embedding counts. */
export const TABLE_IDENTITY = 0.3;
/** Tokens whose last hidden states are taken: at least so many, and so many per column of the head. */
const HEAD_TOKENS = 2048;
const HEAD_TOKENS_PER_COLUMN = 6;
/** Share of what the layers before a layer have changed that it makes up for: all of it fits the text too closely. */
const MADE_UP = 0.6;
/** Values of linear layers from which on these do not make up for the layers before them. */
const MOST_CORRECTED = 5e8;
/** Bytes of values quantized at once. */
const SLAB_BYTES = 2 ** 26;

/** By the source of the weight: a tied matrix is calibrated once. */
export const sourceKey = ({ source, shape }: PlannedWeight): string => `${source.tensor} ${source.first} ${shape[0]}`;

/** @throws ModelError, FormatError, BackendError, OutOfMemoryError */
export async function calibrate(given: CalibrationOptions): Promise<ReadonlyMap<string, CalibratedWeight>> {
  const options = { ...given, host: rememberingHost(given.host) };
  const { model, host, threads = host.cores, texts, signal } = options;
  const { plan } = buildModel(model.config, model.tensors, {
    policy: parsePolicy('f32'),
    origin: model.origin,
    headDiffers: model.headDiffers,
  });
  const { wide } = chooseKernels(host);
  const types = [
    ...new Set(plan.weights.flatMap((weight) => (isMatrix(weight) ? (options.storageOf(weight) ?? []) : []))),
  ];
  const algebra = await Algebra.open(host, { threads, wide, types });
  try {
    const run = new Calibration(options, plan, algebra);
    await run.tables(texts);
    const runner = new SegmentRunner({ host, threads, plan, texts, signal });
    const before = run.corrects ? new SegmentRunner({ host, threads, plan, texts, signal }) : undefined;
    const segments = segmentsOf(plan, (group) => run.isWanted(group));
    for (const segment of segments) {
      const [first, ...inner] = segment.groups;
      if (first && first.step === segment.from)
        await run.group(first, runner.live(first.input), before?.live(first.input));
      const rest = first?.step === segment.from ? inner : segment.groups;
      for (const group of rest) {
        const part = { from: segment.from, to: group.step };
        const tapped = await runner.run(part, [group.input], run.weights);
        await run.group(group, tapped.get(group.input)!);
      }
      if (segment.to === segment.from || segment === segments.at(-1)) continue;
      await runner.advance(segment, run.weights);
      await before?.advance(segment, run.original);
    }
    return run.done;
  } finally {
    await algebra.close();
  }
}

/** Not Q8_0, which is as wrong as the second computation itself. */
const makesUp = (storage: CalibratedStorage | undefined): boolean => storage !== undefined && storage !== 'q8_0';

const isMatrix = ({ shape }: PlannedWeight): boolean => shape.length === 2;

class Calibration {
  readonly done = new Map<string, CalibratedWeight>();
  readonly #options: CalibrationOptions;
  readonly #plan: Plan;
  readonly #algebra: Algebra;
  readonly #total: number;
  #values = 0;

  constructor(options: CalibrationOptions, plan: Plan, algebra: Algebra) {
    this.#options = options;
    this.#plan = plan;
    this.#algebra = algebra;
    const wanted = new Map(
      plan.weights.filter((weight) => this.#storage(weight)).map((weight) => [sourceKey(weight), weight]),
    );
    this.#total = [...wanted.values()].reduce((sum, { shape }) => sum + shape[0]! * shape[1]!, 0);
  }

  /** Weights as they are by now: calibrated ones as blocks, others as the file has them. */
  get weights(): SegmentWeights {
    return {
      weight: (id) => this.#now(this.#plan.weights[id]!),
      tensor: (name) => this.#tensor(name),
    };
  }

  /** Weights as they were: matrices as Q8_0, whose error is small beside that of types with fewer bits. */
  get original(): SegmentWeights {
    const { model } = this.#options;
    const weight = (id: WeightId): PlannedWeight => {
      const was = { ...this.#plan.weights[id]!, shares: undefined };
      const fits = isMatrix(was) && was.linear && was.shape[1]! % storageLayout.q8_0.block === 0;
      return isMatrix(was) ? { ...was, storage: fits ? 'q8_0' : 'f32' } : was;
    };
    return { weight, tensor: (name) => model.tensor(name) };
  }

  /** Whether layers also make up for what the layers before them lost: where the second computation is worth its time. */
  get corrects(): boolean {
    if (!this.#plan.weights.some((weight) => weight.linear && makesUp(this.#storage(weight)))) return false;
    const values = this.#plan.weights.reduce((sum, { linear, shape }) => sum + (linear ? shape[0]! * shape[1]! : 0), 0);
    return values < MOST_CORRECTED;
  }

  isWanted({ weights }: LayerGroup): boolean {
    return weights.some((id) => this.#isOpen(id));
  }

  /** Tables that tokens are looked up in: first, since all layers see their rows. */
  async tables(texts: readonly Int32Array[]): Promise<void> {
    const { plan, weights } = { plan: this.#plan, weights: this.#plan.weights };
    const groups = layerGroups(plan);
    for (const step of plan.steps) {
      if (step.op !== 'embed' || !this.#isOpen(step.table)) continue;
      const table = weights[step.table]!;
      const head = groups.find((group) => group.weights.some((id) => sourceKey(weights[id]!) === sourceKey(table)));
      const width = table.shape[1]!;
      const moments = head
        ? mixedWithIdentity(await this.#headMoments(head, width, texts), TABLE_IDENTITY)
        : identityMoments(width);
      await this.#quantize(step.table, moments);
    }
  }

  /**
   * Calibrates the layers of a group. Matrices with other inputs (the last of an expert's three) are fitted with all columns
   * alike.
   * @param inputs [rows, width]
   * @param before what they were in the model as it was
   */
  async group(group: LayerGroup, inputs: Float32Array, before?: Float32Array): Promise<void> {
    const { weights, buffers } = this.#plan;
    const { width } = buffers[group.input]!;
    const open = group.weights.filter((id) => this.#isOpen(id));
    const own = open.filter((id) => weights[id]!.shape[1] === width);
    if (own.length > 0) {
      const moments =
        before && own.some((id) => makesUp(this.#storage(weights[id]!)))
          ? await this.#algebra.changedMoments(width, inputs, before, MADE_UP)
          : await this.#algebra.moments(width, [inputs]);
      await this.#algebra.factor(moments, DAMPING, weights[own[0]!]!.name);
      for (const id of own) await this.#quantizeFactored(id);
    }
    const others = open.filter((id) => !own.includes(id));
    for (const [i, id] of others.entries()) {
      const columns = weights[id]!.shape[1]!;
      if (i === 0 || weights[others[i - 1]!]!.shape[1] !== columns)
        await this.#algebra.factor(identityMoments(columns), DAMPING, weights[id]!.name);
      await this.#quantizeFactored(id);
    }
  }

  /** Moments of what the output head reads, of the model as it was: as Q8_0, whose error is small beside the spread of texts. */
  async #headMoments(head: LayerGroup, width: number, texts: readonly Int32Array[]): Promise<Moments> {
    const { host, threads, signal } = this.#options;
    const some = spread(texts, Math.max(HEAD_TOKENS, HEAD_TOKENS_PER_COLUMN * width));
    const runner = new SegmentRunner({ host, threads, plan: this.#plan, texts: some, signal });
    const outputs = await runner.run({ from: 0, to: head.step }, [head.input], this.original);
    return this.#algebra.moments(width, [outputs.get(head.input)!]);
  }

  async #quantize(id: WeightId, moments: Moments): Promise<void> {
    await this.#algebra.factor(moments, DAMPING, this.#plan.weights[id]!.name);
    await this.#quantizeFactored(id);
  }

  async #quantizeFactored(id: WeightId): Promise<void> {
    const weight = this.#plan.weights[id]!;
    const storage = this.#storage(weight)!;
    const { rows, columns, read } = weightRows(weight, this.#options.model.tensor(weight.source.tensor));
    const rowBytes = (columns / weightTypes[storage].block) * weightTypes[storage].bytes;
    const bytes = new Uint8Array(rows * rowBytes);
    const step = Math.max(16, Math.floor(SLAB_BYTES / (4 * columns * 16)) * 16);
    for (let first = 0; first < rows; first += step) {
      this.#options.signal?.throwIfAborted();
      const count = Math.min(step, rows - first);
      const codes = await this.#algebra.quantize(storage, await read(first, count), makesUp(storage));
      bytes.set(encodeBlocks(storage, codes), first * rowBytes);
      this.#values += count * columns;
      this.#options.onProgress?.(this.#values, this.#total);
    }
    this.done.set(sourceKey(weight), { weight, storage, bytes });
  }

  #storage(weight: PlannedWeight): CalibratedStorage | undefined {
    return isMatrix(weight) ? this.#options.storageOf(weight) : undefined;
  }

  #isOpen(id: WeightId): boolean {
    const weight = this.#plan.weights[id]!;
    return !this.done.has(sourceKey(weight)) && this.#storage(weight) !== undefined;
  }

  #now(weight: PlannedWeight): PlannedWeight {
    const done = this.done.get(sourceKey(weight));
    if (!done) return weight.shape.length === 2 ? { ...weight, storage: 'f32', shares: undefined } : weight;
    const runs = Object.hasOwn(storageLayout, done.storage) ? (done.storage as BlockStorage) : 'f32';
    const source = { tensor: `${CALIBRATED}${sourceKey(weight)}`, transposed: false, first: 0, plus: 0 };
    return { ...weight, storage: runs, source, shares: undefined };
  }

  #tensor(name: string): TensorData {
    if (!name.startsWith(CALIBRATED)) return this.#options.model.tensor(name);
    return calibratedTensor(this.done.get(name.slice(CALIBRATED.length))!);
  }
}

const CALIBRATED = 'calibrated ';

function calibratedTensor({ weight, storage, bytes }: CalibratedWeight): TensorData {
  const [rows, columns] = weight.shape as [number, number];
  const known = Object.hasOwn(storageLayout, storage);
  const rowBytes = bytes.length / rows;
  return {
    dtype: 'f32',
    shape: [rows, columns],
    byteLength: rows * columns * 4,
    ...(known && {
      blocks: {
        storage: storage as BlockStorage,
        readInto: async (start: number, target: Uint8Array) => target.set(bytes.subarray(start, start + target.length)),
      },
    }),
    async readInto(start, target) {
      const first = Math.floor(start / (4 * columns));
      const last = Math.ceil((start + target.length) / (4 * columns));
      const values = dequantize(storage, bytes.subarray(first * rowBytes, last * rowBytes));
      const skipped = start - first * columns * 4;
      target.set(new Uint8Array(values.buffer, skipped, target.length));
    },
  };
}

/** Texts with about `tokens` tokens, spread over all. */
function spread(texts: readonly Int32Array[], tokens: number): readonly Int32Array[] {
  const all = texts.reduce((sum, text) => sum + text.length, 0);
  const count = Math.min(texts.length, Math.max(1, Math.ceil((texts.length * tokens) / all)));
  return Array.from({ length: count }, (_, i) => texts[Math.floor((i * texts.length) / count)]!);
}
