/**
 * Times linear layers by shape and storage type, as this machine runs them: the kernels of a model, all threads, quantized
 * inputs. Types take turns within every forward, so that a slow phase of a shared machine hits all of them alike.
 */
import { type Backend, PAGE } from '../backend/backend.ts';
import { createWasmBackend } from '../backend/wasm/create.ts';
import { nodeHost } from '../backend/wasm/threads/host-node.ts';
import { OptionError } from '../errors.ts';
import type { Storage } from '../quant/storage.ts';
import { lastLevelCache } from './cache-size.ts';
import {
  hasType,
  layerBytes,
  type Shape,
  type ShapeLayer,
  type ShapePlan,
  shapePlan,
  type WeightPlace,
  weightBytes,
} from './shape-plan.ts';
import { median } from './statistics.ts';

export type { Shape, WeightPlace } from './shape-plan.ts';

export interface ShapeTimes {
  readonly type: Storage;
  readonly shape: Shape;
  /** Rows of the input: 1 as in a decode step, more as in a prefill. */
  readonly rows: number;
  readonly from: WeightPlace;
  /** Bytes of the weight as stored, without padding. */
  readonly bytes: number;
  /** Multiplications and additions. */
  readonly operations: number;
  /** Rows of the weight that were in memory; times are scaled up to all of them. */
  readonly measuredOut: number;
  /** Milliseconds of one layer in each turn. Turns of all types with the same shape, rows and place are pairs. */
  readonly ms: readonly number[];
}

export interface ShapeOptions {
  readonly types: readonly Storage[];
  readonly shapes: readonly Shape[];
  readonly rows: readonly number[];
  readonly from: readonly WeightPlace[];
  /** Default: the number of cores. */
  readonly threads?: number | undefined;
  readonly revectorize?: boolean | undefined;
  /** Turns, not counting the first one, which warms up. Default 12. */
  readonly turns?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /** @param done of `total` forwards */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

/** Times layers; `timeShapes` or a substitute. */
export type TimeShapes = (options: ShapeOptions) => Promise<ShapeTimes[]>;

export const DEFAULT_TURNS = 12;
/**
 * Largest part of a weight that is measured from memory: half a millisecond, short enough not to lose the core on a shared
 * machine. Of larger ones, some rows are measured: their time is proportional to the rows.
 */
const MOST_PART = 16 * 2 ** 20;
const MOST_CACHED = 32 * 2 ** 20;
/** Bytes that a forward goes through before it meets a weight again: four times the caches, within these limits. */
const [LEAST_CYCLE, MOST_CYCLE] = [2 ** 28, 2 ** 30];
/** Most bytes of weights in one backend that are to stay in caches. */
const MOST_CACHED_GROUP = 2 ** 28;
/** Where the size of the last-level cache is unknown. */
const USUAL_CACHE = 16 * 2 ** 20;
const MOST_ROWS = 4096;

/** Sizes that decide what is measured, and how. */
export interface CacheSizes {
  /** Largest weight that is measured from cache: the last-level cache holds it twice. */
  readonly cached: number;
  /** Bytes between two uses of a weight that is measured from memory. */
  readonly cycle: number;
}

export function cacheSizes(cache: number = lastLevelCache() ?? USUAL_CACHE): CacheSizes {
  return {
    cached: Math.min(cache / 2, MOST_CACHED),
    cycle: Math.min(MOST_CYCLE, Math.max(LEAST_CYCLE, 4 * cache)),
  };
}

/**
 * Times every type that a shape can have. From cache, weights that no cache holds are left out.
 * @throws OptionError for a shape or a number of rows that cannot be measured, OutOfMemoryError
 */
export const timeShapes: TimeShapes = async (options) => {
  const { rows, from, turns = DEFAULT_TURNS, signal, onProgress } = options;
  check(options);
  const sizes = cacheSizes();
  const groups = [...new Set(from)].flatMap((place) => groupsOf(options, place, sizes));
  const total = groups.length * (turns + 1) * rows.length;
  let done = 0;
  const times: ShapeTimes[] = [];
  for (const group of groups) {
    signal?.throwIfAborted();
    times.push(
      ...(await timeGroup(group, options, () => {
        signal?.throwIfAborted();
        onProgress?.(++done, total);
      })),
    );
  }
  return times;
};

function check({ shapes, rows, turns = DEFAULT_TURNS }: ShapeOptions): void {
  for (const shape of shapes)
    if (!shape.every((size) => Number.isInteger(size) && size >= 1 && size <= 2 ** 20))
      throw new OptionError('shapes', 'dimensions from 1 to 1048576', shape.join('x'));
  for (const count of rows)
    if (!(Number.isInteger(count) && count >= 1 && count <= MOST_ROWS))
      throw new OptionError('rows', `integers from 1 to ${MOST_ROWS}`, count);
  if (!(Number.isInteger(turns) && turns >= 1)) throw new OptionError('turns', 'an integer from 1', turns);
}

/** A layer to time, and the weight of which it is the first rows. */
interface GroupLayer extends ShapeLayer {
  readonly whole: Shape;
}

/** Layers that are in memory together. */
export interface ShapeGroup {
  readonly from: WeightPlace;
  readonly layers: readonly GroupLayer[];
  readonly flushBytes: number;
}

/** Rows of a weight that lie side by side in memory. */
const LANES = 16;

/** All layers of a shape are in one group. */
export function groupsOf(
  { types, shapes, threads = nodeHost().cores }: Pick<ShapeOptions, 'types' | 'shapes' | 'threads'>,
  from: WeightPlace,
  { cached, cycle }: CacheSizes,
): ShapeGroup[] {
  const most = from === 'memory' ? cycle : MOST_CACHED_GROUP;
  const groups: GroupLayer[][] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const whole of uniqueShapes(shapes)) {
    const part = from === 'memory' ? measuredPart(whole, threads) : whole;
    const layers = [...new Set(types)]
      .filter((type) => hasType(type, whole))
      .map((type) => ({ type, shape: part, whole }))
      .filter((layer) => from === 'memory' || layerBytes(layer) <= cached);
    if (layers.length === 0) continue;
    const own = bytesOf(layers, from);
    if (bytes + own > most) {
      groups.push([]);
      bytes = 0;
    }
    groups.at(-1)!.push(...layers);
    bytes += own;
  }
  return groups.map((layers) => ({
    from,
    layers,
    flushBytes: from === 'memory' ? Math.max(0, cycle - bytesOf(layers, from)) : 0,
  }));
}

const uniqueShapes = (shapes: readonly Shape[]): Shape[] => [
  ...new Map(shapes.map((shape) => [shape.join('x'), shape])).values(),
];

const bytesOf = (layers: readonly ShapeLayer[], from: WeightPlace): number =>
  layers.reduce((sum, layer) => sum + weightBytes(layer, from), 0);

/** The first rows of a weight that is too large, equal for all types: as many whole lane groups for every thread. */
function measuredPart([out, inputs]: Shape, threads: number): Shape {
  const step = LANES * threads;
  const rows = Math.max(step, Math.floor(MOST_PART / (4 * inputs * step)) * step);
  return [Math.min(out, rows), inputs];
}

async function timeGroup(group: ShapeGroup, options: ShapeOptions, onForward: () => void): Promise<ShapeTimes[]> {
  const { rows, threads, revectorize, turns = DEFAULT_TURNS } = options;
  const shapes = shapePlan(group.layers, group.from, group.flushBytes);
  const backend = await createWasmBackend({
    host: nodeHost(),
    plan: shapes.plan,
    tensor: shapes.tensor,
    maxRows: Math.max(...rows),
    maxWanted: 1,
    allThreads: true,
    ...(threads === undefined ? {} : { threads }),
    ...(revectorize === undefined ? {} : { revectorize }),
    ...(options.signal ? { signal: options.signal } : {}),
  });
  try {
    await backend.cache.ensure(Math.ceil(Math.max(...rows) / PAGE));
    const samples = rows.map((): number[][] => []);
    // The first turn, with cold caches and threads, is not counted.
    for (let turn = 0; turn <= turns; turn++) {
      for (const [index, count] of rows.entries()) {
        const scopeMs = await forward(backend, shapes, count);
        if (turn > 0) samples[index]!.push(scopeMs);
        onForward();
      }
    }
    return rows.flatMap((count, index) => summarize(group, shapes, count, samples[index]!));
  } finally {
    await backend.dispose();
  }
}

/** Milliseconds of each timed scope, in the order of the plan. */
async function forward(backend: Backend, { scopes, flushes }: ShapePlan, rows: number): Promise<number[]> {
  const { times } = await backend.forward({
    tokens: new Int32Array(rows),
    positions: Int32Array.from({ length: rows }, (_, row) => row),
    sequences: new Int32Array(rows),
    pages: [Int32Array.from({ length: Math.ceil(rows / PAGE) }, (_, page) => page)],
    wanted: new Int32Array(flushes ? 1 : 0),
    timing: 'scopes',
  });
  const found = new Map(times.map(({ step, ms }) => [step, ms]));
  return [...scopes.keys()].map((step) => found.get(step)!);
}

/** @param turns milliseconds of each timed scope by turn */
export function summarize(
  { from, layers }: ShapeGroup,
  { scopes }: Pick<ShapePlan, 'scopes'>,
  rows: number,
  turns: readonly (readonly number[])[],
): ShapeTimes[] {
  const timed = [...scopes.values()];
  const each = timed.map(({ count }, index) => turns.map((ms) => ms[index]! / count));
  const barrierMs = median(each[timed.findIndex(({ kind }) => kind === 'barriers')]!);
  // What an input costs besides the barrier behind it, which belongs to the layer.
  const inputMs = new Map(
    timed.flatMap((scope, index) =>
      scope.kind === 'inputs' ? [[scope.width, Math.max(0, median(each[index]!) - barrierMs)] as const] : [],
    ),
  );
  let layer = 0;
  return timed.flatMap((scope, index): ShapeTimes[] => {
    if (scope.kind !== 'layer') return [];
    const { type, shape, whole } = layers[layer++]!;
    const [out, inputs] = whole;
    const scale = out / shape[0];
    const ms = each[index]!.map((all) => {
      // Rounding of the clock must not make a layer free.
      return Math.max(all - inputMs.get(inputs)!, all / 2) * scale;
    });
    const bytes = layerBytes({ type, shape: whole });
    return [{ type, shape: whole, rows, from, bytes, operations: 2 * rows * out * inputs, measuredOut: shape[0], ms }];
  });
}
