/** `lanewise bench`: storage policies on this machine, beside its ceilings, and against another time or another Lanewise. */

import { stat } from 'node:fs/promises';
import { cpus, freemem } from 'node:os';
import type { Model } from '../engine/model.ts';
import type { LoadOptions } from '../engine/options.ts';
import { OptionError } from '../errors.ts';
import { describeModel, load, measureMachine } from '../node.ts';
import { median, type Spread, spreadOf } from '../profile/statistics.ts';
import { renderTable } from '../profile/table.ts';
import { formatBytes } from '../profile/units.ts';
import {
  type ComparedRow,
  checkComparable,
  comparePairs,
  compareSaved,
  FEWEST_TURNS,
  renderAgainst,
} from './bench-against.ts';
import { readBench, type SavedBench, type TurnRoofs, writeBench } from './bench-file.ts';
import { type KernelTime, measureKernels, renderKernels } from './bench-kernels.ts';
import { promptOperations, runTurn, type TileKind, type Turn, type Work } from './bench-measure.ts';
import { libraryIn, ownLibrary, Side } from './bench-side.ts';
import { checkWritable } from './files.ts';
import { linearLayers, modelLine, modelPath } from './models.ts';
import { inFlags, type MachineFlags, machineOptions, numberOf, print, say } from './terminal.ts';

export interface BenchFlags extends MachineFlags {
  safetensors?: string;
  revision?: string;
  promptTokens?: string;
  decodeTokens?: string;
  repeat?: string;
  policies?: string;
  kvCache?: string;
  kernels?: boolean;
  save?: string;
  against?: string;
  threshold?: string;
  json?: boolean;
}

/** What one policy gave. */
interface Row {
  readonly policy: string;
  readonly model: Pick<Model, 'vectorBits' | 'threads' | 'description'>;
  readonly layers: number;
  readonly quantized: number;
  /** Bytes of weights and cache that the decode step in the middle reads. */
  readonly bytes: number;
  /** Multiplications and additions of the prompt; undefined with experts. */
  readonly operations: Readonly<Record<TileKind, number>> | undefined;
  readonly turns: Turn[];
  /** Where the time goes; empty unless asked for. */
  kernels: readonly KernelTime[];
}

/** Policies with overrides hold commas, so that a semicolon separates them too. */
const split = (text: string): string[] =>
  text.split(text.includes(';') ? ';' : /,(?![a-z]+=)/).map((part) => part.trim());

/** Turns, where times are kept or compared. */
const COMPARED_TURNS = 12;

export async function benchCommand(positional: string | undefined, flags: BenchFlags): Promise<number> {
  try {
    const { save, against } = flags;
    const compared = save !== undefined || against !== undefined;
    if (flags.kernels && against !== undefined)
      throw new OptionError('--kernels', 'left out with --against, which compares whole prompts and steps', true);
    if (save !== undefined) await checkWritable(`--save ${save}`, save);
    const path = await modelPath(positional, flags);
    const { contextLength } = (await describeModel(path)).config;
    const decode = count('--decode-tokens', flags.decodeTokens, 64);
    const work: Work = {
      prompt: count('--prompt-tokens', flags.promptTokens, Math.max(1, Math.min(512, contextLength - decode))),
      decode,
      repeat: count('--repeat', flags.repeat, compared ? COMPARED_TURNS : 5),
    };
    if (compared && work.repeat < FEWEST_TURNS)
      throw new OptionError('--repeat', `at least ${FEWEST_TURNS} with --save or --against`, work.repeat);
    const percent = numberOf('--threshold', flags.threshold) ?? 5;
    if (!(percent >= 0)) throw new OptionError('--threshold', 'a percentage from 0', percent);
    const options = loadOptions(flags);
    const other = against !== undefined && (await stat(against)).isDirectory() ? against : undefined;
    const policies = split(flags.policies ?? 'none,q8_0,q8_0:min-dim=1024');
    if (other !== undefined) {
      if (save !== undefined) throw new OptionError('--save', 'left out when --against names a folder', save);
      return await reportAgainst(await measureAgainst(other, path, policies, options, work, percent / 100), flags);
    }
    const before = against === undefined ? undefined : await readBench(against);
    const asked = before && flags.policies === undefined ? before.rows.map(({ policy }) => policy) : policies;
    const missing = before && asked.find((policy) => !before.rows.some((row) => row.policy === policy));
    if (missing !== undefined) throw new OptionError('--policies', `among those of ${against}`, missing);
    const check = (now: ReturnType<typeof header>): void => before && checkComparable(against!, before, now);
    const { rows, roofs } = await measure(path, asked, options, { ...work, kernels: flags.kernels }, check);
    const saved: SavedBench = { ...header(rows[0]!.model, options, work), roofs, rows: rows.map(savedRow) };
    if (save !== undefined) await writeBench(save, saved);
    if (before) return await reportAgainst(compareSaved(before, saved, percent / 100), flags);
    if (flags.json) await print(`${JSON.stringify(rows.map((row) => summary(row, work, roofs)))}\n`);
    else
      await print(
        `${roofLine(rows[0]!.model.threads, roofs)}\n\n${table(rows, work, roofs)}\n${kernelTables(rows, roofs)}`,
      );
    return 0;
  } catch (error) {
    throw inFlags(error);
  }
}

function count(name: string, text: string | undefined, fallback: number): number {
  const value = numberOf(name, text) ?? fallback;
  if (!(Number.isInteger(value) && value >= 1)) throw new OptionError(name, 'an integer of at least 1', value);
  return value;
}

/** Without those that were not given: another Lanewise may not know them. */
function loadOptions(flags: BenchFlags): LoadOptions {
  const { threads, revectorize } = machineOptions(flags);
  return {
    ...(threads === undefined ? {} : { threads }),
    ...(revectorize === false ? { revectorize } : {}),
    ...(flags.kvCache === undefined ? {} : { kvCache: flags.kvCache as LoadOptions['kvCache'] }),
  };
}

async function reportAgainst(rows: readonly ComparedRow[], { against, json }: BenchFlags): Promise<number> {
  if (json) await print(`${JSON.stringify({ against, rows })}\n`);
  else await print(`${renderAgainst(rows)}\n`);
  return rows.some(({ failed }) => failed) ? 1 : 0;
}

/** Policies that are measured in turns: all of them, where memory holds all their models at once. */
async function groups(path: string, policies: readonly string[]): Promise<string[][]> {
  const models = await Promise.all(policies.map((quantize) => describeModel(path, quantize)));
  const bytes = models.flatMap(({ plan }) => plan.weights).reduce((sum, weight) => sum + weight.bytes, 0);
  if (bytes < freemem() * 0.7) return [[...policies]];
  say('memory does not hold the models of all policies at once: they are measured one after the other');
  return policies.map((policy) => [policy]);
}

/** What a file says of a run besides its times. */
function header(
  { description, threads, vectorBits }: Row['model'],
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

/** @param check told of every model before anything is measured */
async function measure(
  path: string,
  policies: readonly string[],
  options: LoadOptions,
  work: Work & { readonly kernels: boolean | undefined },
  check: (now: ReturnType<typeof header>) => void,
): Promise<{ rows: Row[]; roofs: TurnRoofs[] }> {
  const rows: Row[] = [];
  const roofs: TurnRoofs[] = [];
  for (const group of await groups(path, policies)) {
    const models: { readonly model: Model; readonly row: Row }[] = [];
    // Roofs of the first group stand for all: more turns of them would not be beside all rows.
    const first = roofs.length === 0;
    try {
      for (const quantize of group) {
        const model = await load(path, { ...options, quantize });
        const row = rowOf(quantize, model, work);
        models.push({ model, row });
        rows.push(row);
        check(header(model, options, work));
        say(`${quantize}: ${modelLine(model.description)}, ${model.vectorBits}-bit kernels`);
      }
      // The first turn meets cold caches and threads.
      for (let turn = 0; turn <= work.repeat; turn++) {
        for (const { model, row } of models) {
          const result = await runTurn(model, work, true);
          if (turn > 0) row.turns.push(result);
        }
        if (turn > 0 && first) roofs.push(await roofsNow(options));
      }
      if (work.kernels) for (const { model, row } of models) row.kernels = await measureKernels(model, work);
    } finally {
      for (const { model } of models) await model.dispose();
    }
  }
  return { rows, roofs };
}

/** Measured between the turns, so that both see the same machine. */
async function roofsNow({ threads, revectorize }: LoadOptions): Promise<TurnRoofs> {
  const { readAll, f32, q8 } = await measureMachine(threads, { revectorize, turns: 3 });
  return { read: readAll.median, f32: f32.median, q8: q8.median };
}

function rowOf(policy: string, model: Model, { prompt, decode }: Work): Row {
  const most = model.contextLength;
  if (prompt + decode > most)
    throw new OptionError('--prompt-tokens', `with --decode-tokens at most ${most}, the context`, prompt + decode);
  const layers = linearLayers(model.description);
  return {
    policy,
    model,
    layers: layers.length,
    quantized: layers.filter(({ quantized }) => quantized).length,
    bytes: model.decodeBytes(prompt + decode / 2),
    operations: promptOperations(model.description, prompt),
    turns: [],
    kernels: [],
  };
}

/** This Lanewise and that of a folder, each in a process of its own, in turns. */
async function measureAgainst(
  folder: string,
  path: string,
  policies: readonly string[],
  options: LoadOptions,
  work: Work,
  threshold: number,
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
      say(`${quantize}: ${work.repeat} turns`);
      for (let turn = 0; turn <= work.repeat; turn++) {
        for (const [name, side] of sides) {
          const { prefillMs, decodeMs } = await side.turn();
          if (turn === 0) continue;
          times[name].prefill.push(prefillMs);
          times[name].decode.push(median(decodeMs));
        }
        // Whoever goes first meets another cache and another clock.
        sides.reverse();
      }
    } finally {
      for (const [, side] of sides) side.stop();
    }
    rows.push(...comparePairs(quantize, times.before, times.now, threshold));
  }
  return rows;
}

const prefillMs = ({ turns }: Row): number[] => turns.map((turn) => turn.prefillMs);
const decodeMs = ({ turns }: Row): number[] => turns.flatMap((turn) => turn.decodeMs);

const savedRow = (row: Row): SavedBench['rows'][number] => ({
  policy: row.policy,
  prefill_ms: prefillMs(row),
  decode_ms: row.turns.map((turn) => median(turn.decodeMs)),
  tile: row.operations && row.operations.f32 > row.operations.q8 ? 'f32' : 'q8',
});

const middle = (roofs: readonly TurnRoofs[], name: keyof TurnRoofs): number => median(roofs.map((turn) => turn[name]));

/** Bytes per second that decoding reads, and the share of a tile loop's speed that a prompt reaches. */
function ratesOf(row: Row, roofs: readonly TurnRoofs[]): { decode: number; prefill: number | undefined } {
  const ideal = row.operations && row.operations.f32 / middle(roofs, 'f32') + row.operations.q8 / middle(roofs, 'q8');
  return {
    decode: row.bytes / (median(decodeMs(row)) / 1000),
    prefill: ideal && ideal / (median(prefillMs(row)) / 1000),
  };
}

function summary(row: Row, { prompt }: Work, roofs: readonly TurnRoofs[]): object {
  const read = middle(roofs, 'read');
  const rates = ratesOf(row, roofs);
  const extent = (values: readonly number[]): object => {
    const sorted = values.toSorted((a, b) => a - b);
    return { ...spreadOf(values), min: sorted[0], max: sorted.at(-1) };
  };
  return {
    policy: row.policy,
    vector_bits: row.model.vectorBits,
    linear_layers: row.layers,
    quantized: row.quantized,
    projection_ms: extent(row.turns.flatMap((turn) => turn.projectionMs)),
    decode_ms: extent(decodeMs(row)),
    prefill_ms: extent(prefillMs(row)),
    prefill_tokens_per_second: (prompt / median(prefillMs(row))) * 1000,
    of_tiles: rates.prefill ?? null,
    gigabytes_per_second: rates.decode / 1e9,
    read_gigabytes_per_second: read / 1e9,
    of_memory_bandwidth: rates.decode / read,
    ...(row.kernels.length > 0 ? { kernels: row.kernels.map((time) => kernelSummary(time, roofs)) } : {}),
  };
}

const kernelSummary = ({ work, kernel, ms, share, rate, roof }: KernelTime, roofs: readonly TurnRoofs[]): object => ({
  ...{ work, kernel, ms, share },
  rate: rate ?? null,
  roof,
  of_roof: rate === undefined ? null : rate / middle(roofs, roof),
});

function kernelTables(rows: readonly Row[], roofs: readonly TurnRoofs[]): string {
  const rates = { read: middle(roofs, 'read'), f32: middle(roofs, 'f32'), q8: middle(roofs, 'q8') };
  return rows
    .filter(({ kernels }) => kernels.length > 0)
    .map(({ policy, kernels }) => `${policy}\n\n${renderKernels(kernels, rates)}\n`)
    .join('');
}

/** `2 threads: memory read 33.1 GB/s (32.9 - 33.4), tile loops f32 192 GFLOP/s (190 - 193), int8 ...` */
function roofLine(threads: number, roofs: readonly TurnRoofs[]): string {
  const rate = (name: keyof TurnRoofs, unit: string): string => {
    const digits = name === 'read' ? 1 : 0;
    return spreadText(spreadOf(roofs.map((turn) => turn[name] / 1e9)), digits, ` ${unit}`);
  };
  const loops = `tile loops f32 ${rate('f32', 'GFLOP/s')}, int8 ${rate('q8', 'GOP/s')}`;
  return `${threads} threads, median (quartiles): memory read ${rate('read', 'GB/s')}, ${loops}`;
}

const spreadText = ({ median, low, high }: Spread, digits: number, unit = ''): string =>
  `${median.toFixed(digits)}${unit} (${low.toFixed(digits)} - ${high.toFixed(digits)})`;

/** More than noise makes of a model that memory bounds. */
const BEYOND_MEMORY = 1.05;

/** Memory is no ceiling for what the caches of the processor hold. @param bytes that a decode step reads */
export const shareOfRead = (share: number, bytes: number): string =>
  share > BEYOND_MEMORY ? `${formatBytes(bytes)} from caches` : `${(share * 100).toFixed(0)} %`;

function table(rows: readonly Row[], { prompt }: Work, roofs: readonly TurnRoofs[]): string {
  const read = middle(roofs, 'read');
  const percent = (share: number | undefined): string => (share === undefined ? '' : `${(share * 100).toFixed(0)} %`);
  const ms = (values: readonly number[]): string => spreadText(spreadOf(values), 2);
  const metrics: [string, (row: Row) => string][] = [
    ['Layers quantized', (row) => `${row.quantized} of ${row.layers}`],
    ['Prefill tok/s', (row) => spreadText(spreadOf(prefillMs(row).map((time) => (prompt / time) * 1000)), 0)],
    ['of the tile loops', (row) => percent(ratesOf(row, roofs).prefill)],
    ['Decode ms per step', (row) => ms(decodeMs(row))],
    ['Output projection ms', (row) => ms(row.turns.flatMap((turn) => turn.projectionMs))],
    ['Decode GB/s', (row) => (ratesOf(row, roofs).decode / 1e9).toFixed(1)],
    ['of the memory read', (row) => shareOfRead(ratesOf(row, roofs).decode / read, row.bytes)],
  ];
  return renderTable(
    [{ title: 'Metric' }, ...rows.map(({ policy }) => ({ title: policy, align: 'right' as const }))],
    metrics.map(([name, cell]) => [name, ...rows.map(cell)]),
  );
}
