/** `lanewise fit`: the memory that a model will take, before any weights are downloaded or loaded. */
import type { Command } from 'commander';
import { type EstimateOptions, estimateMemory, type KvStorage, type MemoryEstimate, type MemoryRow } from '../node.ts';
import { formatBytes } from '../profile/units.ts';
import { modelName } from './models.ts';
import { policyOrPlan, splitPolicies } from './storage-flags.ts';
import { renderTable } from './table.ts';
import { inFlags, type MachineFlags, machineOptions, print, say, UsageError } from './terminal.ts';

export interface FitFlags extends MachineFlags {
  revision?: string;
  policies?: string;
  context?: string;
  kvCache?: string;
  json?: boolean;
}

export function addFitCommand(command: Command, finish: (code: number) => void): void {
  command
    .option('--revision <name>', 'a branch, tag or commit of a model at the hub (default: main)')
    .option('--policies <list>', 'separated by commas, or by semicolons if policies have overrides')
    .option('--context <list>', 'context lengths: 2k,8k (default: 512, the default of load, and the longest)')
    .option('--kv-cache <list>', 'how keys and values are cached: f32,f16,q8_0 (default: f32)')
    .option('--json', 'one JSON object')
    .action(async (model, flags) => finish(await fitCommand(model, flags)));
}

/** @returns the exit code: 1 if nothing fits in the memory of this machine */
export async function fitCommand(given: string | undefined, flags: FitFlags): Promise<number> {
  const options: EstimateOptions = {
    ...machineOptions(flags),
    policies:
      flags.policies === undefined ? undefined : await Promise.all(splitPolicies(flags.policies).map(policyOrPlan)),
    contexts: flags.context === undefined ? undefined : lengthsOf('--context', flags.context),
    kvCaches: flags.kvCache?.split(',').map((name) => name.trim() as KvStorage),
  };
  const name = modelName(given, flags);
  const estimate = await estimateMemory(name, { ...options, revision: flags.revision }).catch((error) => {
    throw inFlags(error);
  });
  const someFits = estimate.rows.some(({ fits }) => fits === 'fits' || fits === 'tight');
  if (flags.json) {
    await print(`${JSON.stringify(jsonOf(estimate))}\n`);
    return someFits ? 0 : 1;
  }
  await print(`${headOf(estimate)}\n\n${tableOf(estimate)}`);
  for (const reason of new Set(estimate.rows.flatMap(({ memory, reason }) => (memory || !reason ? [] : [reason]))))
    say(`refused: ${reason}`);
  return someFits ? 0 : 1;
}

/** Parses context lengths such as `512,2k,128k`. @throws UsageError */
export function lengthsOf(option: string, text: string): number[] {
  return text.split(',').map((part) => {
    const [, count, unit] = /^\s*(\d+)(k?)\s*$/i.exec(part) ?? [];
    if (count === undefined)
      throw new UsageError(`${option} must be numbers of tokens such as 512,2k,128k, got ${JSON.stringify(text)}`);
    return Number(count) * (unit ? 1024 : 1);
  });
}

function headOf(estimate: MemoryEstimate): string {
  const { name, modelType, parameters, fileBytes, threads, memoryBytes, unusedBytes, processBytes } = estimate;
  const unused = unusedBytes === undefined ? '' : `, ${formatBytes(unusedBytes)} of them unused`;
  return `${name}: ${modelType}, ${(parameters / 1e6).toFixed(1)}M parameters, ${formatBytes(fileBytes)} of tensors
${threads} ${threads === 1 ? 'thread' : 'threads'}; this machine has ${formatBytes(memoryBytes)} of memory${unused}; the rest of the program takes some ${formatBytes(processBytes)}`;
}

function tableOf(estimate: MemoryEstimate): string {
  const caches = new Set(estimate.rows.map(({ kvCache }) => kvCache));
  const right = (title: string): { title: string; align: 'right' } => ({ title, align: 'right' });
  return renderTable(
    [
      { title: 'Stored as' },
      right('Context'),
      ...(caches.size > 1 ? [{ title: 'Keys, values' }] : []),
      right('Weights'),
      right('Activations'),
      right('Cache'),
      right('Total'),
      { title: '32-bit memories' },
      { title: 'Fits' },
    ],
    estimate.rows.map((row) => {
      const size = (bytes: number | undefined): string => (bytes === undefined ? '' : formatBytes(bytes));
      const { memory } = row;
      return [
        `${row.policy}${row.policy === estimate.policy ? ' (default)' : ''}`,
        `${row.contextLength}`,
        ...(caches.size > 1 ? [row.kvCache ?? ''] : []),
        size(memory?.weights),
        size(memory?.activations),
        size(memory?.cache),
        size(memory?.total),
        memoriesText(row),
        fitText(row),
      ];
    }),
  );
}

/** A 32-bit memory. */
const MOST_BYTES = 2 ** 32;

function memoriesText({ memory }: MemoryRow): string {
  if (!memory) return '';
  const fullest = Math.max(...memory.memories) / MOST_BYTES;
  return `${memory.memories.length}, ${(fullest * 100).toFixed(0)} % full`;
}

const texts = { fits: 'yes', tight: 'if others leave it', exceeds: 'no', unsupported: 'not supported' } as const;

const fitText = ({ fits }: MemoryRow): string => texts[fits];

const jsonOf = (estimate: MemoryEstimate): object => ({
  name: estimate.name,
  kind: estimate.kind,
  architecture: estimate.modelType,
  parameters: estimate.parameters,
  file_bytes: estimate.fileBytes,
  default_policy: estimate.policy,
  default_context: estimate.contextLength,
  threads: estimate.threads,
  memory_bytes: estimate.memoryBytes,
  unused_bytes: estimate.unusedBytes ?? null,
  process_bytes: estimate.processBytes,
  rows: estimate.rows.map(({ policy, contextLength, kvCache, memory, fits, reason }) => ({
    policy,
    context: contextLength,
    kv_cache: kvCache ?? null,
    weight_bytes: memory?.weights ?? null,
    activation_bytes: memory?.activations ?? null,
    cache_bytes: memory?.cache ?? null,
    most_cache_bytes: memory?.mostCache ?? null,
    staging_bytes: memory?.staging ?? null,
    total_bytes: memory?.total ?? null,
    memories: memory?.memories ?? null,
    fits,
    reason: reason ?? null,
  })),
});
