/**
 * A plan that times linear layers. Each scope holds one layer several times: its input is made anew (a copy of a row
 * buffer), so that every product waits for its input and quantizes it, as in a model. All types of a shape are in one plan:
 * one forward times all of them under the same conditions.
 */
import type { TensorData } from '../backend/backend.ts';
import type { BufferId, Plan, PlannedWeight, RowBuffer, Step, WeightId, WeightRole } from '../plan/step.ts';
import { quantize } from '../quant/codec.ts';
import { isBlockStorage, type Storage, storageBytes, storageLayout } from '../quant/storage.ts';

/** Shape of a weight. */
export type Shape = readonly [out: number, inputs: number];

/** Where weights come from: memory, or a processor cache. */
export type WeightPlace = 'memory' | 'cache';

/** One layer of a plan. */
export interface ShapeLayer {
  readonly type: Storage;
  readonly shape: Shape;
}

/** What a scope of the plan times. */
export type TimedScope =
  /** `count` layers, each as copy of the input, quantization, product. */
  | { readonly kind: 'layer'; readonly layer: ShapeLayer; readonly count: number }
  /** `count` copies of an input of this width, each with a barrier. */
  | { readonly kind: 'inputs'; readonly width: number; readonly count: number }
  /** `count` barriers. */
  | { readonly kind: 'barriers'; readonly count: number };

export interface ShapePlan {
  readonly plan: Plan;
  /** Tensors of the plan's weights. */
  tensor(name: string): TensorData;
  /** By the index of the last step of each timed scope. */
  readonly scopes: ReadonlyMap<number, TimedScope>;
  /** Whether a forward must have one wanted row, which reads the memory that empties the caches. */
  readonly flushes: boolean;
}

/** Bytes of weights that a scope goes through at least, unless it has the most layers. */
const scopeBytes: Readonly<Record<WeightPlace, number>> = { memory: 8 * 2 ** 20, cache: 4 * 2 ** 20 };
const MOST_COUNT = 256;
const INPUT_COUNT = 32;
const BARRIER_COUNT = 64;
/** Columns of the matrix that empties the caches. */
const FLUSH_INPUTS = 4096;

export const layerBytes = ({ type, shape: [out, inputs] }: ShapeLayer): number => out * storageBytes(type, inputs);

/** Layers in a timed scope. */
export const countOf = (layer: ShapeLayer, from: WeightPlace): number =>
  Math.min(MOST_COUNT, Math.ceil(scopeBytes[from] / layerBytes(layer)));

/** Bytes of weights that a plan needs for a layer. From memory, every layer of a scope has its own. */
export const weightBytes = (layer: ShapeLayer, from: WeightPlace): number =>
  layerBytes(layer) * (from === 'memory' ? countOf(layer, from) : 1);

/** Whether rows of the shape are whole blocks of the type. */
export const hasType = (type: Storage, [, inputs]: Shape): boolean => inputs % storageLayout[type].block === 0;

/** @param flushBytes bytes that each forward reads besides, so that no weight of the next one is in a cache; 0: none */
export function shapePlan(layers: readonly ShapeLayer[], from: WeightPlace, flushBytes = 0): ShapePlan {
  const buffers: RowBuffer[] = [];
  const weights: PlannedWeight[] = [];
  const steps: Step[] = [];
  const scopes = new Map<number, TimedScope>();
  const buffer = (name: string, width: number, rows: RowBuffer['rows'] = 'all'): BufferId =>
    buffers.push({ name, width, rows }) - 1;
  const weight = (role: WeightRole, shape: Shape, storage: Storage): WeightId => {
    const name = `${weights.length}`;
    const source = { tensor: name, transposed: false, first: 0, plus: 0 };
    const bytes = shape[0] * storageBytes(storage, shape[1]);
    return weights.push({ name, role, shape, source, storage, linear: role === 'ffn', reason: '', bytes }) - 1;
  };
  const timed = (what: TimedScope): void => void scopes.set(steps.length - 1, what);
  const embed = (name: string, width: number): BufferId => {
    const [out, table] = [buffer(name, width), weight('embedding', [1, width], 'f32')];
    steps.push({ scope: 'start', op: 'embed', table, index: 'token', scale: 1, add: false, out });
    return out;
  };

  const widths = [...new Set(layers.map(({ shape }) => shape[1]))];
  const given = new Map(widths.map((width) => [width, embed(`given ${width}`, width)]));
  const mark = embed('mark', 1);
  const marked = buffer('marked', 1, 'wanted');
  // Steps over wanted rows have a barrier in front; with no wanted row they do nothing else.
  const barrier = (scope: string): void => void steps.push({ scope, op: 'select', x: mark, out: marked });
  for (let n = 0; n < BARRIER_COUNT; n++) barrier('barriers');
  timed({ kind: 'barriers', count: BARRIER_COUNT });

  const inputs = new Map(widths.map((width) => [width, buffer(`input ${width}`, width)]));
  const input = (scope: string, width: number): BufferId => {
    const [base, out] = [given.get(width)!, inputs.get(width)!];
    steps.push({ scope, op: 'add', base, x: base, scale: 0, out });
    return out;
  };
  for (const width of widths) {
    const scope = `inputs ${width}`;
    for (let n = 0; n < INPUT_COUNT; n++) {
      input(scope, width);
      barrier(scope);
    }
    timed({ kind: 'inputs', width, count: INPUT_COUNT });
  }

  for (const [index, layer] of layers.entries()) {
    const { type, shape } = layer;
    const out = buffer(`product ${index}`, shape[0]);
    const product = (scope: string, id: WeightId): void =>
      void steps.push({ scope, op: 'matmul', x: input(scope, shape[1]), weight: id, add: false, out });
    const count = countOf(layer, from);
    let id = weight('ffn', shape, type);
    // Brings the weight into the caches.
    if (from === 'cache') product(`warm ${index}`, id);
    for (let n = 0; n < count; n++) {
      if (from === 'memory' && n > 0) id = weight('ffn', shape, type);
      product(`layer ${index}`, id);
    }
    timed({ kind: 'layer', layer, count });
  }

  const flushRows = Math.ceil(flushBytes / (4 * FLUSH_INPUTS));
  if (flushRows > 0) {
    const start = embed('flush input', FLUSH_INPUTS);
    const x = buffer('flush row', FLUSH_INPUTS, 'wanted');
    steps.push({ scope: 'flush', op: 'select', x: start, out: x });
    const out = buffer('flush product', flushRows, 'wanted');
    const id = weight('ffn', [flushRows, FLUSH_INPUTS], 'f32');
    steps.push({ scope: 'flush', op: 'matmul', x, weight: id, add: false, out });
  }
  const plan: Plan = { buffers, weights, caches: [], ropes: [], steps, output: mark };
  return { plan, tensor: tensorsOf(weights), scopes, flushes: flushRows > 0 };
}

/** Tensors whose rows are all equal: times do not depend on values. */
function tensorsOf(weights: readonly PlannedWeight[]): ShapePlan['tensor'] {
  const rows = new Map<string, Uint8Array>();
  const rowOf = (storage: Storage, inputs: number): Uint8Array => {
    const key = `${storage} ${inputs}`;
    const row = rows.get(key) ?? quantize(storage, someValues(inputs));
    rows.set(key, row);
    return row;
  };
  return (name) => {
    const { storage, shape } = weights[Number(name)]!;
    const [out, inputs] = shape as Shape;
    const reader = (type: Storage) => async (start: number, target: Uint8Array) =>
      repeat(rowOf(type, inputs), start, target);
    const dtype = isBlockStorage(storage) ? 'f32' : storage;
    const tensor = { dtype, shape, byteLength: out * storageBytes(dtype, inputs), readInto: reader(dtype) };
    return isBlockStorage(storage) ? { ...tensor, blocks: { storage, readInto: reader(storage) } } : tensor;
  };
}

/** Values around 0 with the spread of trained weights. */
const someValues = (count: number): Float32Array =>
  Float32Array.from({ length: count }, (_, i) => 0.02 * Math.sin(12.9898 * (i + 1)));

/** Fills `target` with repetitions of `row`, as from byte `start` of them on. */
function repeat(row: Uint8Array, start: number, target: Uint8Array): void {
  const head = Math.min(row.length, target.length);
  for (let i = 0; i < head; i++) target[i] = row[(start + i) % row.length]!;
  for (let done = head; done > 0 && done < target.length; done *= 2) target.copyWithin(done, 0, done);
}
