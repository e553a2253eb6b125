/** `lanewise bench`: measures storage policies against the machine's limits, a saved run, or another Lanewise. */

import { stat } from 'node:fs/promises';
import type { LoadOptions } from '../engine/options.ts';
import { OptionError } from '../errors.ts';
import { lastLevelCache } from '../measure/cache-size.ts';
import { type ComparedRow, checkComparable, compareSaved, FEWEST_TURNS } from '../measure/compare.ts';
import { kernelReport, placeOf } from '../measure/kernel-report.ts';
import type { KernelTime } from '../measure/kernel-times.ts';
import { describeMachine, machineRows } from '../measure/machine.ts';
import {
  decodeMs,
  header,
  type Measured,
  measureAgainst,
  measurePolicies,
  middle,
  type PolicyTimes,
  prefillMs,
  ratesOf,
  savedRow,
} from '../measure/policies.ts';
import { readBench, type SavedBench, type TurnRoofs, writeBench } from '../measure/saved.ts';
import { median, type Spread, spreadOf } from '../measure/statistics.ts';
import type { Work } from '../measure/turn.ts';
import { describeModel, type Trace } from '../node.ts';
import { formatBytes } from '../profile/units.ts';
import { renderHtml } from '../report/html.ts';
import { renderAgainst, renderKernels } from './bench-tables.ts';
import { type ExplainFlag, sayExplanations } from './explain.ts';
import { checkWritable, writeText } from './files.ts';
import { modelLine, modelPath } from './models.ts';
import { policyOrPlan, splitPolicies } from './storage-flags.ts';
import { renderTable } from './table.ts';
import { commandLine, inFlags, type MachineFlags, machineOptions, numberOf, print, say } from './terminal.ts';
import { type TraceFlags, traced } from './trace.ts';

export interface BenchFlags extends MachineFlags, TraceFlags, ExplainFlag {
  safetensors?: string;
  revision?: string;
  promptTokens?: string;
  decodeTokens?: string;
  repeat?: string;
  policies?: string;
  kvCache?: string;
  kernels?: boolean;
  html?: string;
  save?: string;
  against?: string;
  threshold?: string;
  json?: boolean;
}

/** Default number of turns with --save and --against. */
export const COMPARED_TURNS = 12;

export function benchCommand(positional: string | undefined, flags: BenchFlags): Promise<number> {
  return traced(flags, (trace) => run(positional, flags, trace));
}

async function run(positional: string | undefined, flags: BenchFlags, trace: Trace | undefined): Promise<number> {
  try {
    const { save, against, html } = flags;
    const compared = save !== undefined || against !== undefined;
    if (flags.kernels && against !== undefined)
      throw new OptionError('--kernels', 'left out with --against, which compares whole prompts and steps', true);
    if (html !== undefined && !flags.kernels)
      throw new OptionError('--html', 'given with --kernels, whose plot it is', html);
    for (const [name, file] of Object.entries({ save, html }))
      if (file !== undefined) await checkWritable(`--${name} ${file}`, file);
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
    const policies = splitPolicies(flags.policies ?? 'none,q8_0,q8_0:min-dim=1024');
    if (other !== undefined) {
      if (trace) throw new OptionError('--trace', 'left out when --against names a folder', flags.trace);
      if (save !== undefined) throw new OptionError('--save', 'left out when --against names a folder', save);
      return await reportAgainst(
        await measureAgainst(other, path, await Promise.all(policies.map(policyOrPlan)), options, {
          work,
          threshold: percent / 100,
          say,
        }),
        flags,
      );
    }
    const before = against === undefined ? undefined : await readBench(against);
    const asked = before && flags.policies === undefined ? before.rows.map(({ policy }) => policy) : policies;
    const missing = before && asked.find((policy) => !before.rows.some((row) => row.policy === policy));
    if (missing !== undefined) throw new OptionError('--policies', `among those of ${against}`, missing);
    const check = (model: Measured, policy: string): void => {
      checkContext(model, work);
      if (before) checkComparable(against!, before, header(model, options, work));
      say(`${policy}: ${modelLine(model.description)}, ${model.vectorBits}-bit kernels`);
      sayExplanations(() => model.explain(), flags);
    };
    const measuring = { work, kernels: flags.kernels ?? false, check, say };
    const loading = { ...options, ...(trace && { trace }) };
    const { rows, roofs } = await measurePolicies(path, await Promise.all(asked.map(policyOrPlan)), loading, measuring);
    const saved: SavedBench = { ...header(rows[0]!.model, options, work), roofs, rows: rows.map(savedRow) };
    if (save !== undefined) await writeBench(save, saved);
    if (html !== undefined) await writeKernelPage(html, rows, roofs);
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

export function count(name: string, text: string | undefined, fallback: number): number {
  const value = numberOf(name, text) ?? fallback;
  if (!(Number.isInteger(value) && value >= 1)) throw new OptionError(name, 'an integer of at least 1', value);
  return value;
}

/** @throws OptionError */
export function checkContext({ contextLength: most }: Measured, { prompt, decode }: Work): void {
  if (prompt + decode > most)
    throw new OptionError('--prompt-tokens', `with --decode-tokens at most ${most}, the context`, prompt + decode);
}

/** Load options that were given: another Lanewise may not know the others. */
export function loadOptions(flags: MachineFlags & { kvCache?: string }): LoadOptions {
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

function summary(row: PolicyTimes, { prompt }: Work, roofs: readonly TurnRoofs[]): object {
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
    ...(row.kernels.length > 0
      ? { roofs: medianRoofs(roofs), kernels: row.kernels.map((time) => kernelSummary(time, medianRoofs(roofs))) }
      : {}),
  };
}

function kernelSummary(time: KernelTime, roofs: TurnRoofs): object {
  const { work, kernel, ms, share, rate, roof, bytes, operations } = time;
  const { bytesPerSecond, operationsPerSecond, intensity, limit, ofRoof } = placeOf(time, roofs);
  return {
    ...{ work, kernel, ms, share, bytes },
    operations: operations ?? null,
    gigabytes_per_second: bytesPerSecond / 1e9,
    giga_operations_per_second: operationsPerSecond === undefined ? null : operationsPerSecond / 1e9,
    operations_per_byte: intensity ?? null,
    limit,
    of_limit: ofRoof,
    rate: rate ?? null,
    roof,
    of_roof: rate === undefined ? null : rate / roofs[roof],
  };
}

const medianRoofs = (roofs: readonly TurnRoofs[]): TurnRoofs => ({
  read: middle(roofs, 'read'),
  f32: middle(roofs, 'f32'),
  q8: middle(roofs, 'q8'),
});

function kernelTables(rows: readonly PolicyTimes[], roofs: readonly TurnRoofs[]): string {
  return rows
    .filter(({ kernels }) => kernels.length > 0)
    .map(({ policy, kernels }) => `${policy}\n\n${renderKernels(kernels, medianRoofs(roofs))}\n`)
    .join('');
}

async function writeKernelPage(file: string, rows: readonly PolicyTimes[], roofs: readonly TurnRoofs[]): Promise<void> {
  const { threads, vectorBits } = rows[0]!.model;
  const machine = machineRows(describeMachine(), { threads, vectorBits, read: [] });
  const report = kernelReport({ command: commandLine(), machine, models: rows, roofs: medianRoofs(roofs) });
  await writeText(file, renderHtml(report));
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

/** A higher share of the measured read rate than noise explains: weights were read from processor caches. */
const BEYOND_MEMORY = 1.05;

/**
 * The share of the memory read rate, or a note that weights were read from processor caches.
 * @param bytes read by a decode step @param cache bytes that caches can hold
 */
export const shareOfRead = (share: number, bytes: number, cache = Number.POSITIVE_INFINITY): string =>
  share > BEYOND_MEMORY && bytes <= cache ? `${formatBytes(bytes)} from caches` : `${(share * 100).toFixed(0)} %`;

function table(rows: readonly PolicyTimes[], { prompt }: Work, roofs: readonly TurnRoofs[]): string {
  const read = middle(roofs, 'read');
  const percent = (share: number | undefined): string => (share === undefined ? '' : `${(share * 100).toFixed(0)} %`);
  const ms = (values: readonly number[]): string => spreadText(spreadOf(values), 2);
  const metrics: [string, (row: PolicyTimes) => string][] = [
    ['Layers quantized', (row) => `${row.quantized} of ${row.layers}`],
    ['Prefill tok/s', (row) => spreadText(spreadOf(prefillMs(row).map((time) => (prompt / time) * 1000)), 0)],
    ['of the tile loops', (row) => percent(ratesOf(row, roofs).prefill)],
    ['Decode ms per step', (row) => ms(decodeMs(row))],
    ['Output projection ms', (row) => ms(row.turns.flatMap((turn) => turn.projectionMs))],
    ['Decode GB/s', (row) => (ratesOf(row, roofs).decode / 1e9).toFixed(1)],
    ['of the memory read', (row) => shareOfRead(ratesOf(row, roofs).decode / read, row.bytes, lastLevelCache())],
  ];
  return renderTable(
    [{ title: 'Metric' }, ...rows.map(({ policy }) => ({ title: policy, align: 'right' as const }))],
    metrics.map(([name, cell]) => [name, ...rows.map(cell)]),
  );
}
