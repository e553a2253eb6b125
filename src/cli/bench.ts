/** `lanewise bench`: the comparison of storage policies on this machine, beside its memory bandwidth. */
import { freemem } from 'node:os';
import type { Model } from '../engine/model.ts';
import type { LoadOptions } from '../engine/options.ts';
import { OptionError } from '../errors.ts';
import { describeModel, load, measureMachine } from '../node.ts';
import { renderTable } from '../profile/table.ts';
import { linearLayers, modelLine, modelPath } from './models.ts';
import { inFlags, type MachineFlags, machineOptions, numberOf, print, say } from './terminal.ts';

export interface BenchFlags extends MachineFlags {
  safetensors?: string;
  promptTokens?: string;
  decodeTokens?: string;
  repeat?: string;
  policies?: string;
  json?: boolean;
}

interface Row {
  readonly policy: string;
  readonly vectorBits: Model['vectorBits'];
  readonly layers: number;
  readonly quantized: number;
  /** Bytes of weights and cache that the decode step in the middle reads. */
  readonly bytes: number;
  readonly projectionMs: number[];
  readonly decodeMs: number[];
  readonly prefillMs: number[];
}

/** Policies with overrides hold commas, so that a semicolon separates them too. */
const split = (text: string): string[] =>
  text.split(text.includes(';') ? ';' : /,(?![a-z]+=)/).map((part) => part.trim());

export async function benchCommand(positional: string | undefined, flags: BenchFlags): Promise<number> {
  try {
    const count = (name: string, text: string | undefined, fallback: number): number => {
      const value = numberOf(name, text) ?? fallback;
      if (!(Number.isInteger(value) && value >= 1)) throw new OptionError(name, 'an integer of at least 1', value);
      return value;
    };
    const [prompt, decode, repeat] = [
      count('--prompt-tokens', flags.promptTokens, 512),
      count('--decode-tokens', flags.decodeTokens, 64),
      count('--repeat', flags.repeat, 5),
    ];
    const path = await modelPath(positional, flags.safetensors);
    const policies = split(flags.policies ?? 'none,q8_0,q8_0:min-dim=1024');
    const machine = machineOptions(flags);
    const rows: Row[] = [];
    const work = { prompt, decode, repeat };
    for (const group of await groups(path, policies)) rows.push(...(await measure(path, group, machine, work)));
    const roofs = await measureMachine(machine.threads);
    const read = roofs.readAll.median;
    if (flags.json) await print(`${JSON.stringify(rows.map((row) => summary(row, prompt, read)))}\n`);
    else await print(`${table(rows, prompt, read)}\n`);
    return 0;
  } catch (error) {
    throw inFlags(error);
  }
}

interface Work {
  readonly prompt: number;
  readonly decode: number;
  readonly repeat: number;
}

/** Policies that are measured in turns: all of them, where memory holds all their models at once. */
async function groups(path: string, policies: readonly string[]): Promise<string[][]> {
  const models = await Promise.all(policies.map((quantize) => describeModel(path, quantize)));
  const bytes = models.flatMap(({ plan }) => plan.weights).reduce((sum, weight) => sum + weight.bytes, 0);
  if (bytes < freemem() * 0.7) return [[...policies]];
  say('memory does not hold the models of all policies at once: they are measured one after the other');
  return policies.map((policy) => [policy]);
}

async function measure(path: string, policies: readonly string[], options: LoadOptions, work: Work) {
  const { prompt, decode, repeat } = work;
  const entries: { readonly model: Model; readonly row: Row }[] = [];
  try {
    for (const quantize of policies) {
      const model = await load(path, { ...options, quantize });
      entries.push({ model, row: emptyRow(quantize, model, prompt + decode / 2) });
      const most = model.contextLength;
      if (prompt + decode > most)
        throw new OptionError('--prompt-tokens', `with --decode-tokens at most ${most}, the context`, prompt + decode);
      say(`${quantize}: ${modelLine(model.description)}, ${model.vectorBits}-bit kernels`);
    }
    // The first turn meets cold caches and threads.
    for (let turn = 0; turn <= repeat; turn++) {
      for (const { model, row } of entries) {
        const { vocab } = model.description.config;
        const ids = Array.from({ length: prompt }, (_, i) => (7 + i * 37) % vocab);
        const result = await once(model, ids, decode);
        if (turn === 0) continue;
        row.prefillMs.push(result.prefillMs);
        row.decodeMs.push(...result.decodeMs);
        row.projectionMs.push(...result.projectionMs);
      }
    }
    return entries.map(({ row }) => row);
  } finally {
    for (const { model } of entries) await model.dispose();
  }
}

function emptyRow(policy: string, model: Model, position: number): Row {
  const layers = linearLayers(model.description);
  return {
    policy,
    vectorBits: model.vectorBits,
    layers: layers.length,
    quantized: layers.filter(({ quantized }) => quantized).length,
    bytes: model.decodeBytes(position),
    projectionMs: [],
    decodeMs: [],
    prefillMs: [],
  };
}

async function once(
  model: Model,
  ids: readonly number[],
  decode: number,
): Promise<{ prefillMs: number; decodeMs: number[]; projectionMs: number[] }> {
  const sequence = model.sequence();
  const [decodeMs, projectionMs]: [number[], number[]] = [[], []];
  try {
    const start = performance.now();
    for (let at = 0; at < ids.length; at += model.maxRows) {
      await model.step([
        { sequence, tokens: ids.slice(at, at + model.maxRows), wanted: at + model.maxRows >= ids.length },
      ]);
    }
    const prefillMs = performance.now() - start;
    for (let i = 0; i < decode; i++) {
      // Every fourth step is timed inside: the clock reads do not touch the others.
      model.timing = i % 4 === 3;
      const before = performance.now();
      await model.step([{ sequence, tokens: [ids[i % ids.length]!], wanted: true }]);
      if (model.timing) projectionMs.push(model.lastPhases!.projection);
      else decodeMs.push(performance.now() - before);
    }
    return { prefillMs, decodeMs, projectionMs };
  } finally {
    model.timing = false;
    sequence.release();
  }
}

function spread(values: readonly number[]): { median: number; min: number; max: number } {
  const sorted = [...values].sort((a, b) => a - b);
  return { median: sorted[sorted.length >> 1]!, min: sorted[0]!, max: sorted.at(-1)! };
}

function summary(row: Row, prompt: number, read: number): object {
  const decode = spread(row.decodeMs);
  const rate = row.bytes / (decode.median / 1000);
  const prefill = spread(row.prefillMs);
  return {
    policy: row.policy,
    vector_bits: row.vectorBits,
    linear_layers: row.layers,
    quantized: row.quantized,
    projection_ms: spread(row.projectionMs),
    decode_ms: decode,
    prefill_ms: prefill,
    prefill_tokens_per_second: (prompt / prefill.median) * 1000,
    gigabytes_per_second: rate / 1e9,
    read_gigabytes_per_second: read / 1e9,
    of_memory_bandwidth: rate / read,
  };
}

function table(rows: readonly Row[], prompt: number, read: number): string {
  const ms = (values: readonly number[]): string => {
    const { median, min, max } = spread(values);
    return `${median.toFixed(2)} (${min.toFixed(2)} - ${max.toFixed(2)})`;
  };
  const metrics: [string, (row: Row) => string][] = [
    ['Layers quantized', (row) => `${row.quantized} of ${row.layers}`],
    ['Output projection ms', (row) => ms(row.projectionMs)],
    ['Decode ms per step', (row) => ms(row.decodeMs)],
    ['Prefill tok/s', (row) => ((prompt / spread(row.prefillMs).median) * 1000).toFixed(0)],
    ['Decode GB/s', (row) => (row.bytes / spread(row.decodeMs).median / 1e6).toFixed(1)],
    [
      `of ${(read / 1e9).toFixed(1)} GB/s memory read`,
      (row) => `${((row.bytes / spread(row.decodeMs).median / 1e-3 / read) * 100).toFixed(0)} %`,
    ],
  ];
  return renderTable(
    [{ title: 'Metric' }, ...rows.map(({ policy }) => ({ title: policy, align: 'right' as const }))],
    metrics.map(([name, cell]) => [name, ...rows.map(cell)]),
  );
}
