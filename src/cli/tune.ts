/** `lanewise tune`: measures a model and chooses the storage of each weight for a budget. */
import { stat } from 'node:fs/promises';
import { basename } from 'node:path';
import { OptionError } from '../errors.ts';
import { describeMachine, machineRows } from '../measure/machine.ts';
import { describeModel, formatStoragePlan, locate, writeAtomically } from '../node.ts';
import { formatBytes } from '../profile/units.ts';
import { renderHtml } from '../report/html.ts';
import type { Report } from '../report/report.ts';
import { type Budget, CHUNK_WEIGHT, type SizeLimit } from '../tune/budget.ts';
import { type TunedModel, tuneModel } from '../tune/measuring/tune-node.ts';
import { summaryOf } from '../tune/plan-file.ts';
import { tuneReport } from '../tune/report.ts';
import type { Stage, Totals } from '../tune/tune.ts';
import { checkWritable, readText } from './files.ts';
import { modelPath } from './models.ts';
import { createProgress } from './progress.ts';
import { renderTable } from './table.ts';
import {
  bytesOf,
  commandLine,
  inFlags,
  type MachineFlags,
  machineOptions,
  numberOf,
  print,
  say,
  UsageError,
} from './terminal.ts';

export interface TuneFlags extends MachineFlags {
  safetensors?: string;
  revision?: string;
  budget?: string;
  output: string;
  calibrate?: string;
  tokens?: string;
  samples?: string;
  times?: boolean;
  fresh?: boolean;
  force?: boolean;
  html?: string;
  quantized?: string;
  json?: boolean;
}

const stageNames: Readonly<Record<Stage, string>> = {
  errors: 'errors of the weights',
  times: 'times of the kernels',
  samples: 'losses of single layers',
  calibration: 'what calibration leaves of the errors',
  check: 'loss of the plan',
  race: 'the plan beside fixed policies',
};

export async function tuneCommand(positional: string | undefined, flags: TuneFlags): Promise<number> {
  const interrupt = new AbortController();
  process.once('SIGINT', () => interrupt.abort(new UsageError('interrupted')));
  let progress: ReturnType<typeof createProgress> | undefined;
  let running: Stage | undefined;
  const onProgress = (stage: Stage, done: number, total: number): void => {
    if (stage !== running) {
      progress?.end();
      progress = createProgress(process.stderr, stageNames[stage], { unit: 'measurements' });
      running = stage;
    }
    progress!.update(done, total);
  };
  try {
    const { output } = flags;
    if (!flags.force && (await stat(output).catch(() => undefined)))
      throw new UsageError(`${output} already exists: give another name, or --force to replace it`);
    await checkWritable(`--output ${output}`, output);
    if (flags.html !== undefined) await checkWritable(`--html ${flags.html}`, flags.html);
    if (flags.quantized !== undefined) await checkGguf(flags.quantized, flags.force ?? false);
    const path = await modelPath(positional, flags);
    const { kind } = await describeModel(path);
    const budgetText = flags.budget ?? (kind === 'encoder' ? 'distance=0.001' : 'kl=0.05');
    const budget = parseBudget(budgetText);
    if (budget.kind === 'speed' && flags.times === false)
      throw new UsageError('--no-times is not for the budget speed, which times decide');
    const text =
      flags.calibrate === undefined
        ? undefined
        : { text: await readText('--calibrate', flags.calibrate), name: basename(flags.calibrate) };
    const tuned = await tuneModel(await locate(path), {
      budget,
      budgetText,
      cache: cacheOf(output),
      quantized: flags.quantized,
      timed: flags.times !== false,
      fresh: flags.fresh,
      text,
      tokens: countOf('--tokens', flags.tokens, 512, 1),
      samples: countOf('--samples', flags.samples, 24, 0),
      ...machineOptions(flags),
      onProgress,
      onWarning: (warning) => say(`warning: ${warning}`),
      signal: interrupt.signal,
    });
    progress?.end();
    await writeText(output, formatStoragePlan(tuned.plan));
    if (flags.html !== undefined) await writeText(flags.html, renderHtml(reportOf(tuned, path, budgetText)));
    if (flags.json) await print(`${JSON.stringify({ output, ...jsonOf(tuned), ...tuned.plan })}\n`);
    else await print(tableOf(tuned));
    sayResult(tuned, output, budgetText);
    return 0;
  } catch (error) {
    if (interrupt.signal.aborted) {
      say(`interrupted; the same command continues from ${cacheOf(flags.output)}`);
      return 130;
    }
    throw inFlags(error);
  } finally {
    progress?.end();
  }
}

const writeText = (file: string, text: string): Promise<void> =>
  writeAtomically(file, async (handle) => handle.writeFile(text));

const reportOf = ({ tuned, lossName, text, machine }: TunedModel, path: string, budget: string): Report =>
  tuneReport({
    tuned,
    model: basename(path),
    budget,
    lossName,
    text,
    command: commandLine(),
    machine: [...machineRows(describeMachine(), machine)],
  });

/** @throws UsageError */
async function checkGguf(file: string, force: boolean): Promise<void> {
  if (!file.endsWith('.gguf')) throw new OptionError('--quantized', 'a name that ends in .gguf', file);
  if (!force && (await stat(file).catch(() => undefined)))
    throw new UsageError(`${file} already exists: give another name, or --force to replace it`);
  await checkWritable(`--quantized ${file}`, file);
}

/** The file of measurements beside a plan: `plan.json` has `plan.measured.json`. */
const cacheOf = (output: string): string => `${output.replace(/\.json$/, '')}.measured.json`;

/** @throws OptionError */
export function parseBudget(text: string): Budget {
  const fail = (): never => {
    throw new OptionError(
      '--budget',
      'size=157.5MB, kl=0.05, distance=0.001, speed, or speed,kl=0.05 or speed,size=157.5MB',
      text,
    );
  };
  const limits: Partial<SizeLimit> & { loss?: number } = {};
  const parts = text
    .toLowerCase()
    .split(',')
    .map((part) => part.trim());
  const fast = parts[0] === 'speed';
  for (const part of fast ? parts.slice(1) : parts) {
    const [, name, value] = /^(size|kl|distance)=(.+)$/.exec(part) ?? fail();
    if (name === 'size') Object.assign(limits, sizeLimit(value!));
    else limits.loss = Number(value);
    if (limits.loss !== undefined && !(limits.loss > 0)) fail();
  }
  const count = [limits.bytes, limits.loss].filter((limit) => limit !== undefined).length;
  if (parts.length !== count + (fast ? 1 : 0) || count > 1 || (count === 0 && !fast)) fail();
  if (fast) return { kind: 'speed', ...limits };
  if (limits.bytes === undefined) return { kind: 'loss', loss: limits.loss! };
  return { kind: 'size', bytes: limits.bytes, roundsTo: limits.roundsTo };
}

/** `157.5MB` is also the size of a file of 157.54 MB. A number of bytes is exact. @throws OptionError */
function sizeLimit(text: string): SizeLimit {
  const bytes = bytesOf('--budget size', text)!;
  const [, decimals = '', unit] = /^\s*\d+(?:\.(\d+))?\s*([a-z]*)\s*$/i.exec(text)!;
  if (!unit) return { bytes };
  return { bytes, roundsTo: bytes + bytesOf('--budget size', `0.${'0'.repeat(decimals.length)}5${unit}`)! - 1 };
}

function countOf(name: string, text: string | undefined, fallback: number, least: number): number {
  const value = numberOf(name, text) ?? fallback;
  if (!(Number.isInteger(value) && value >= least))
    throw new OptionError(name, `an integer of at least ${least}`, value);
  return value;
}

const jsonOf = ({ tuned, known, notWritable }: TunedModel): object => ({
  measurements_reused: known,
  ...(notWritable !== undefined && { not_writable: notWritable }),
  ...summaryOf(tuned),
  by_size: tuned.bySize,
  by_speed: tuned.bySpeed,
});

function tableOf({ tuned, lossName }: TunedModel): string {
  const rows = [tuned.plan, ...tuned.policies];
  const timed = rows.some(({ rowMs }) => rowMs > 0);
  const loss = (value: number | undefined): string => (value === undefined ? '' : value.toPrecision(3));
  const right = (title: string) => ({ title, align: 'right' as const });
  return renderTable(
    [
      { title: 'Storage' },
      right('File'),
      ...(timed ? [right('Row ms'), right('Chunk row ms')] : []),
      right(`${lossName}, predicted`),
      right('measured'),
    ],
    rows.map(({ name, bytes, rowMs, chunkRowMs, predictedLoss, measuredLoss }: Totals) => [
      name,
      formatBytes(bytes),
      ...(timed ? [rowMs.toFixed(3), chunkRowMs.toFixed(3)] : []),
      loss(predictedLoss),
      loss(measuredLoss),
    ]),
  );
}

function sayResult(
  { tuned, calibrated, notWritable, known, text, lossName }: TunedModel,
  output: string,
  budget: string,
): void {
  const { plan, prediction, solver, rivals, instead } = tuned;
  if (known > 0) say(`${known} measurements of an earlier run were used (--fresh: measure anew)`);
  if (notWritable !== undefined) say(`sizes are those in memory: ${notWritable}`);
  const { bytes, roundsTo } = parseBudget(budget) as Partial<SizeLimit>;
  if (bytes !== undefined && roundsTo !== undefined && plan.bytes > bytes)
    say(`no plan keeps ${bytes} bytes; this one has ${plan.bytes}, which rounds to the size that was given`);
  say(`budget ${budget}: ${solver}; speed counts a single row fully, a row of a chunk by ${CHUNK_WEIGHT}`);
  for (const { name, ms, planMs, change } of rivals)
    say(
      `in turns, a decode step: the fastest plan ${planMs.toFixed(2)} ms, ${name} ${ms.toFixed(2)} ms, ratio ${change.ratio.toFixed(3)} (${change.low.toFixed(3)} to ${change.high.toFixed(3)})`,
    );
  if (instead !== undefined) say(`no plan was faster than the policy ${instead}, so the plan has its storages`);
  if (plan.measuredLoss !== undefined) {
    const typical =
      prediction.typicalFactor === undefined
        ? ''
        : `, typical factor between layers ${prediction.typicalFactor.toFixed(2)}`;
    say(
      `${lossName} on ${text}: predicted ${plan.predictedLoss.toPrecision(3)} from ${prediction.samples} measured layers${typical}; measured ${plan.measuredLoss.toPrecision(3)}`,
    );
  }
  const { loss: limit } = parseBudget(budget) as { loss?: number };
  if (limit !== undefined && plan.measuredLoss !== undefined && plan.measuredLoss > limit)
    say(`warning: the measured loss is above ${limit}: ask for less, as predictions were too low`);
  const how = calibrated ? ' --calibrate FILE' : '';
  say(`wrote ${output}: quantize --to q8_0 --plan ${output}${how} writes ${formatBytes(plan.bytes)}`);
}
