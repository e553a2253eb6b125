/** `lanewise doctor`: checks this machine, and shows what a load of a model decides. */
import type { Command } from 'commander';
import { LanewiseError } from '../errors.ts';
import {
  describeModel,
  diagnoseMachine,
  type Explanation,
  estimateMemory,
  type Finding,
  load,
  loadEncoder,
} from '../node.ts';
import { formatBytes } from '../profile/units.ts';
import { inWordsOfFlags, valueText } from './explain.ts';
import { type LoadFlags, loadOptions } from './generate.ts';
import { type ModelFlags, modelPath } from './models.ts';
import { renderTable } from './table.ts';
import { inFlags, print, reportingLoad } from './terminal.ts';

export interface DoctorFlags extends LoadFlags, ModelFlags {
  hub?: boolean;
  json?: boolean;
}

export function addDoctorCommand(command: Command, finish: (code: number) => void): void {
  command
    .option('--hub', 'also ask the hub for an answer')
    .option('--json', 'one JSON object')
    .action(async (model, flags) => finish(await doctorCommand(model, flags)));
}

/** @returns the exit code: 1 if there is a fault */
export async function doctorCommand(given: string | undefined, flags: DoctorFlags): Promise<number> {
  const named = given !== undefined || flags.safetensors !== undefined;
  // A load checks the kernels of its own storages.
  const machine = await diagnoseMachine({ hub: flags.hub, kernels: !named });
  const model = named ? await examine(await modelPath(given, flags), flags) : undefined;
  const findings = [...machine, ...(model ?? [])];
  const count = (status: Finding['status']): number => findings.filter((found) => found.status === status).length;
  const [faults, warnings] = [count('fault'), count('warning')];
  if (flags.json) await print(`${JSON.stringify({ faults, warnings, machine, model: model ?? null })}\n`);
  else {
    const summary = `${faults} ${faults === 1 ? 'fault' : 'faults'}, ${warnings} ${warnings === 1 ? 'warning' : 'warnings'}`;
    await print(`${renderFindings(machine)}\n${model ? `${renderFindings(model)}\n` : ''}${summary}\n`);
  }
  return faults > 0 ? 1 : 0;
}

const renderFindings = (findings: readonly Finding[]): string =>
  renderTable(
    ['Status', 'Key', 'Value', 'From', 'Why'].map((title) => ({ title })),
    findings.map(({ status, key, value, from, why, remedy }) => [
      status,
      key,
      valueText(value),
      from,
      [why, remedy].filter((text) => text !== undefined).join('; '),
    ]),
  );

/** Loads a model if it fits, computes one token or embedding, and tells what was decided. */
async function examine(path: string, flags: DoctorFlags): Promise<Finding[]> {
  const findings: Finding[] = [];
  const add = (status: Finding['status'], { key, value, from, why }: Explanation, remedy?: string): void => {
    findings.push({
      status,
      key,
      value,
      from,
      ...(why !== undefined && { why }),
      ...(remedy !== undefined && { remedy }),
    });
  };
  try {
    const { kind } = await describeModel(path);
    const options = await loadOptions(flags, new AbortController().signal);
    const { contextLength, quantize, kvCache, threads } = options;
    const estimate = await estimateMemory(path, {
      threads,
      policies: quantize === undefined ? undefined : [quantize],
      contexts: contextLength === undefined ? undefined : [contextLength],
      kvCaches: kind === 'encoder' || kvCache === undefined ? undefined : [kvCache],
    });
    const positions = contextLength ?? estimate.contextLength;
    const row = estimate.rows.find((candidate) => candidate.contextLength === positions)!;
    const total = row.memory?.total ?? null;
    const fit = {
      key: 'memory.total',
      value: total,
      from: 'plan',
      why: row.reason ?? `${formatBytes(total ?? 0)} with one context`,
    };
    if (row.fits === 'exceeds') {
      add('fault', fit, 'a smaller --context-length or another --quantize; lanewise fit MODEL lists sizes');
      return findings;
    }
    add(row.fits === 'fits' ? 'ok' : 'warning', fit);
    const warn = (text: string): void => add('warning', { key: 'model.warning', value: text, from: 'load' });
    const loading = reportingLoad(options);
    const reporting = { ...loading.options, onWarning: warn };
    if (kind === 'encoder') {
      await using encoder = await loadEncoder(path, reporting).finally(loading.end);
      for (const explanation of encoder.explain()) add('ok', inWordsOfFlags(explanation));
      const [{ embedding } = { embedding: [] }] = await encoder.embed([{ tokenIds: [0] }]);
      add('ok', { key: 'model.embedding', value: embedding.length, from: 'forward', why: 'values of an embedding' });
    } else {
      await using model = await load(path, reporting).finally(loading.end);
      for (const explanation of model.explain()) add('ok', inWordsOfFlags(explanation));
      const { tokenIds, timings } = await model.complete({ tokenIds: [0] }, { maxTokens: 1, temperature: 0 });
      const why = `the most probable token after token 0, in ${timings.prefillMs.toFixed(1)} ms`;
      add('ok', { key: 'model.token', value: tokenIds[0] ?? null, from: 'forward', why });
    }
  } catch (error) {
    if (!(error instanceof LanewiseError)) throw error;
    add('fault', { key: 'model.load', value: error.code, from: 'load', why: (inFlags(error) as Error).message });
  }
  return findings;
}
