/** Measures storage policies of one model in turns, or this Lanewise and another one. */
import { cpus, freemem } from 'node:os';
import type { Model } from '../engine/model.ts';
import type { LoadOptions } from '../engine/options.ts';
import { describeModel, load, measureMachine, type Quantize, quantizeText } from '../node.ts';
import { type ComparedRow, comparePairs } from './compare.ts';
import { type KernelTime, measureKernels } from './kernel-times.ts';
import type { SavedBench, TurnRoofs } from './saved.ts';
import { libraryIn, ownLibrary, Side } from './side.ts';
import { median } from './statistics.ts';
import {
  isQuantized,
  type MeasuredModel,
  promptOperations,
  runTurn,
  type TileKind,
  type Turn,
  type Work,
} from './turn.ts';

/** Measurements of one policy. */
export interface PolicyTimes {
  readonly policy: string;
  readonly model: Pick<Measured, 'vectorBits' | 'threads' | 'description'>;
  readonly layers: number;
  readonly quantized: number;
  /** Bytes of weights and KV cache read by the decode step in the middle. */
  readonly bytes: number;
  /** Multiplications and additions of the prefill; undefined with experts. */
  readonly operations: Readonly<Record<TileKind, number>> | undefined;
  readonly turns: Turn[];
  /** Times by kernel; empty unless requested. */
  kernels: readonly KernelTime[];
}

/** Whether memory holds the models of all policies at once. */
async function fitTogether(path: string, policies: readonly Quantize[], free: number): Promise<boolean> {
  const models = await Promise.all(policies.map((quantize) => describeModel(path, quantize)));
  const bytes = models.flatMap(({ plan }) => plan.weights).reduce((sum, weight) => sum + weight.bytes, 0);
  return bytes < free * 0.7;
}

/** The description of a run in a saved file. */
export function header(
  { description, threads, vectorBits }: PolicyTimes['model'],
  { kvCache = 'f32' }: LoadOptions,
  work: Work,
): Omit<SavedBench, 'roofs' | 'rows'> {
  const { modelType, parameters, config } = description;
  return {
    date: new Date().toISOString(),
    cpu: cpus()[0]?.model ?? 'unknown',
    node: process.version,
    threads,
    vector_bits: vectorBits,
    kv_cache: kvCache,
    subject: { model_type: modelType, parameters, layers: config.layers, dim: config.dim, vocab: config.vocab },
    work,
  };
}

export interface Measuring {
  readonly work: Work;
  /** Whether to time kernels one by one too. */
  readonly kernels: boolean;
  /** Number of decode steps per turn that are timed by phase, as is the prefill then. Default 0. */
  readonly phases?: number;
  /**
   * Whether models that memory cannot hold together take turns all the same, loaded anew for every turn. Otherwise they are
   * measured one after the other.
   */
  readonly reload?: boolean;
  /** Called for every model before it is measured; may throw. */
  readonly check: (model: Measured, policy: string) => void;
  readonly say: (text: string) => void;
  /** Called after every turn of a policy. */
  readonly progress?: (done: number, total: number) => void;
  /** Default: this machine. */
  readonly machine?: Machine;
}

/** The part of a model that is used here. */
export type Measured = MeasuredModel &
  Pick<Model, 'vectorBits' | 'threads' | 'contextLength' | 'decodeBytes' | 'explain' | 'dispose'>;

/** What loads and times models. */
export interface Machine {
  load(path: string, options: LoadOptions): Promise<Measured>;
  roofs(options: LoadOptions): Promise<TurnRoofs>;
  /** A clock in milliseconds. */
  now(): number;
  /** In bytes. */
  freeMemory(): number;
}

const thisMachine: Machine = { load, roofs: roofsNow, now: () => performance.now(), freeMemory: freemem };

/** Measures storage policies in turns, and the rates of the machine between turns. */
export async function measurePolicies(
  path: string,
  policies: readonly Quantize[],
  options: LoadOptions,
  measuring: Measuring,
): Promise<{ rows: PolicyTimes[]; roofs: TurnRoofs[] }> {
  const { say, reload = false, machine = thisMachine } = measuring;
  const together = await fitTogether(path, policies, machine.freeMemory());
  if (together) return measureTogether(path, policies, options, measuring);
  const trouble = 'memory cannot hold the models of all policies at once';
  if (reload) {
    say(`${trouble}: they are loaded anew for every turn`);
    return measureReloaded(path, policies, options, measuring);
  }
  say(`${trouble}: they are measured one after the other`);
  const results = [];
  for (const policy of policies) results.push(await measureTogether(path, [policy], options, measuring));
  // There is one list of rates for all rows.
  return { rows: results.flatMap(({ rows }) => rows), roofs: results[0]!.roofs };
}

async function measureTogether(
  path: string,
  policies: readonly Quantize[],
  options: LoadOptions,
  { work, kernels, phases, check, progress = () => {}, machine = thisMachine }: Measuring,
): Promise<{ rows: PolicyTimes[]; roofs: TurnRoofs[] }> {
  const models: { readonly model: Measured; readonly row: PolicyTimes }[] = [];
  const roofs: TurnRoofs[] = [];
  let done = 0;
  try {
    for (const quantize of policies) {
      const model = await machine.load(path, { inline: true, ...options, quantize });
      const row = rowOf(quantizeText(quantize), model, work);
      models.push({ model, row });
      check(model, row.policy);
    }
    // The first turn, with cold caches and threads, is not counted.
    for (let turn = 0; turn <= work.repeat; turn++) {
      for (const index of orderOf(turn, models.length)) {
        const { model, row } = models[index]!;
        const result = await runTurn(model, work, true, { phases, now: machine.now });
        if (turn > 0) row.turns.push(result);
        progress(++done, (work.repeat + 1) * models.length);
      }
      if (turn > 0) roofs.push(await machine.roofs(options));
    }
    if (kernels) for (const { model, row } of models) row.kernels = await measureKernels(model, work);
  } finally {
    for (const { model } of models) await model.dispose();
  }
  return { rows: models.map(({ row }) => row), roofs };
}

async function measureReloaded(
  path: string,
  policies: readonly Quantize[],
  options: LoadOptions,
  { work, phases, check, progress = () => {}, machine = thisMachine }: Measuring,
): Promise<{ rows: PolicyTimes[]; roofs: TurnRoofs[] }> {
  const rows = new Array<PolicyTimes | undefined>(policies.length);
  const roofs: TurnRoofs[] = [];
  // For threads, caches and clock rate.
  const warmUp = { ...work, prompt: Math.min(work.prompt, 64), decode: Math.min(work.decode, 4) };
  let done = 0;
  for (let turn = 0; turn < work.repeat; turn++) {
    for (const index of orderOf(turn, policies.length)) {
      const quantize = policies[index]!;
      const model = await machine.load(path, { inline: true, ...options, quantize });
      try {
        if (rows[index] === undefined) check(model, quantizeText(quantize));
        const row = (rows[index] ??= rowOf(quantizeText(quantize), model, work));
        await runTurn(model, warmUp, false, { now: machine.now });
        row.turns.push(await runTurn(model, work, true, { phases, now: machine.now }));
      } finally {
        await model.dispose();
      }
      progress(++done, work.repeat * policies.length);
    }
    roofs.push(await machine.roofs(options));
  }
  return { rows: rows.map((row) => row!), roofs };
}

/** The order alternates: the first one finds other caches and another clock rate. */
const orderOf = (turn: number, count: number): number[] =>
  Array.from({ length: count }, (_, i) => (turn % 2 === 0 ? i : count - 1 - i));

/** The rates of the machine now. */
async function roofsNow({ threads, revectorize }: LoadOptions): Promise<TurnRoofs> {
  const { readAll, f32, q8 } = await measureMachine(threads, { revectorize, turns: 3 });
  return { read: readAll.median, f32: f32.median, q8: q8.median };
}

function rowOf(policy: string, model: Measured, { prompt, decode }: Work): PolicyTimes {
  const layers = model.description.plan.weights.filter(({ linear }) => linear);
  return {
    policy,
    model,
    layers: layers.length,
    quantized: layers.filter(({ storage }) => isQuantized(storage)).length,
    bytes: model.decodeBytes(prompt + decode / 2),
    operations: promptOperations(model.description, prompt),
    turns: [],
    kernels: [],
  };
}

/** Measures this Lanewise and the one in a folder, each in its own process, in turns. */
export async function measureAgainst(
  folder: string,
  path: string,
  policies: readonly Quantize[],
  options: LoadOptions,
  { work, threshold, say }: { readonly work: Work; readonly threshold: number; readonly say: (text: string) => void },
): Promise<ComparedRow[]> {
  const libraries = { before: libraryIn(folder), now: ownLibrary };
  const rows: ComparedRow[] = [];
  for (const quantize of policies) {
    const sides: [keyof typeof libraries, Side][] = [];
    const times = { before: { prefill: [], decode: [] }, now: { prefill: [], decode: [] } } as Record<
      keyof typeof libraries,
      Record<ComparedRow['work'], number[]>
    >;
    try {
      for (const name of ['before', 'now'] as const) {
        const side = await Side.start({
          library: libraries[name],
          model: path,
          options: { ...options, quantize },
          work,
        });
        sides.push([name, side]);
      }
      say(`${quantizeText(quantize)}: ${work.repeat} turns`);
      for (let turn = 0; turn <= work.repeat; turn++) {
        for (const [name, side] of sides) {
          const { prefillMs, decodeMs } = await side.turn();
          if (turn === 0) continue;
          times[name].prefill.push(prefillMs);
          times[name].decode.push(median(decodeMs));
        }
        // The order alternates: the first one finds other caches and another clock rate.
        sides.reverse();
      }
    } finally {
      for (const [, side] of sides) side.stop();
    }
    rows.push(...comparePairs(quantizeText(quantize), times.before, times.now, threshold));
  }
  return rows;
}

export const prefillMs = ({ turns }: PolicyTimes): number[] => turns.map((turn) => turn.prefillMs);
export const decodeMs = ({ turns }: PolicyTimes): number[] => turns.flatMap((turn) => turn.decodeMs);

export const savedRow = (row: PolicyTimes): SavedBench['rows'][number] => ({
  policy: row.policy,
  prefill_ms: prefillMs(row),
  decode_ms: row.turns.map((turn) => median(turn.decodeMs)),
  tile: row.operations && row.operations.f32 > row.operations.q8 ? 'f32' : 'q8',
});

export const middle = (roofs: readonly TurnRoofs[], name: keyof TurnRoofs): number =>
  median(roofs.map((turn) => turn[name]));

/** Bytes read per second of decode, and the share of the tile loop's rate that prefill reaches. */
export function ratesOf(
  row: PolicyTimes,
  roofs: readonly TurnRoofs[],
): { decode: number; prefill: number | undefined } {
  const ideal = row.operations && row.operations.f32 / middle(roofs, 'f32') + row.operations.q8 / middle(roofs, 'q8');
  return {
    decode: row.bytes / (median(decodeMs(row)) / 1000),
    prefill: ideal && ideal / (median(prefillMs(row)) / 1000),
  };
}
