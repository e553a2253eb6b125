/** `lanewise bench rounds`: a report of storage policies on this machine, with verdicts. */
import { basename } from 'node:path';
import { OptionError } from '../errors.ts';
import { checkComparable, compareSaved, FEWEST_TURNS } from '../measure/compare.ts';
import { describeMachine } from '../measure/machine.ts';
import { header, type Measured, measurePolicies, middle, ratesOf, savedRow } from '../measure/policies.ts';
import { compareRounds, hasRegression, metricNames, type Round } from '../measure/rounds.ts';
import { readBench, type SavedBench, writeBench } from '../measure/saved.ts';
import type { Work } from '../measure/turn.ts';
import { describeModel, embeddedModel } from '../node.ts';
import { renderHtml } from '../report/html.ts';
import { renderMarkdown } from '../report/markdown.ts';
import { COMPARED_TURNS, checkContext, count, loadOptions } from './bench.ts';
import { type CommandMaker, kvCache, modelArgument, revision, safetensors, withMachine } from './command-flags.ts';
import { checkWritable, writeText } from './files.ts';
import { linearLayers, type ModelFlags, modelLine, modelName, modelPath } from './models.ts';
import { createProgress } from './progress.ts';
import { fastestOf, type RoundsData, roundsReport, summaryOf } from './rounds-report.ts';
import { policyOrPlan, splitPolicies } from './storage-flags.ts';
import { commandLine, inFlags, type MachineFlags, numberOf, print, say, UsageError } from './terminal.ts';

export interface RoundsFlags extends MachineFlags, ModelFlags {
  policies?: string;
  promptTokens?: string;
  decodeTokens?: string;
  steps?: string;
  repeat?: string;
  kvCache?: string;
  output?: string;
  html?: string;
  json?: boolean;
  save?: string;
  against?: string;
  threshold?: string;
}

export function addRoundsCommand(command: CommandMaker, finish: (code: number) => void): void {
  withMachine(
    command(
      'rounds',
      'Report on storage policies: affected layers, times per step, changes against the first policy with verdicts.',
      [
        'lanewise bench rounds ./gpt2 --policies none,q8_0,q8_0:min-dim=1024',
        'lanewise bench rounds ./gpt2 --policies none,q8_0,plan.json --html rounds.html --output rounds.md',
        'lanewise bench rounds ./gpt2 --save before.json',
        'lanewise bench rounds ./gpt2 --against before.json --threshold 3',
      ],
    ),
  )
    .argument('[model]', modelArgument)
    .option(...safetensors)
    .option(...revision)
    .option(
      '--policies <list>',
      'the rounds, separated by commas, or by semicolons if policies have overrides; plan.json: a plan (default: none,q8_0,q8_0:min-dim=1024)',
    )
    .option('--prompt-tokens <n>', 'default: 512, or as many as the context holds')
    .option('--decode-tokens <n>', 'default: 64')
    .option('--steps <n>', 'decode steps in the table of each round (default: 9)')
    .option('--repeat <n>', `turns, at least ${FEWEST_TURNS} (default: ${COMPARED_TURNS})`)
    .option(...kvCache)
    .option('--output <file>', 'write the report as Markdown to a file, not to stdout')
    .option('--html <file>', 'also as one page with charts, which works without a network')
    .option('--json', 'one JSON object instead of Markdown')
    .option('--save <file>', 'save the times of every turn, as lanewise bench --save does')
    .option('--against <file>', 'also compare with a file of --save; its policies are the default')
    .option(
      '--threshold <percent>',
      'exit code 1 if a round is slower by more than this, with 95 % confidence: than in the file of --against (default: 5), or without it than the first round (default: never)',
    )
    .action(async (model, flags) => finish(await roundsCommand(model, flags)));
}

export async function roundsCommand(positional: string | undefined, flags: RoundsFlags): Promise<number> {
  try {
    const { output, html, json, save, against } = flags;
    for (const [name, file] of Object.entries({ output, html, save }))
      if (file !== undefined) await checkWritable(`--${name} ${file}`, file);
    const percent = numberOf('--threshold', flags.threshold) ?? 5;
    if (!(percent >= 0)) throw new OptionError('--threshold', 'a percentage from 0', percent);
    const before = against === undefined ? undefined : await readBench(against);
    const names = flags.policies === undefined && before ? before.rows.map(({ policy }) => policy) : undefined;
    const asked = names ?? splitPolicies(flags.policies ?? 'none,q8_0,q8_0:min-dim=1024');
    const policies = await Promise.all(asked.map(policyOrPlan));
    const path = await modelPath(positional, flags);
    const { work, steps } = workOf(flags, (await describeModel(path)).config.contextLength);
    const options = loadOptions(flags);
    const progress = createProgress(process.stderr, 'rounds', { unit: 'measurements' });
    let reloaded = false;
    const check = (model: Measured, policy: string): void => {
      checkContext(model, work);
      if (before) {
        checkComparable(against!, before, header(model, options, work));
        if (!before.rows.some((row) => row.policy === policy))
          throw new OptionError('--policies', `among those of ${against}`, policy);
      }
      say(`${policy}: ${modelLine(model.description)}, ${model.vectorBits}-bit kernels`);
    };
    const machine = describeMachine();
    const { rows, roofs } = await measurePolicies(path, policies, options, {
      ...{ work, kernels: false, phases: steps, reload: true, check },
      say(text) {
        reloaded = true;
        say(text);
      },
      progress: (done, total) => progress.update(done, total),
    }).finally(() => progress.end());
    const saved: SavedBench = { ...header(rows[0]!.model, options, work), roofs, rows: rows.map(savedRow) };
    if (save !== undefined) await writeBench(save, saved);
    const rounds = compareRounds(rows);
    const compared = before && compareSaved(before, saved, percent / 100);
    const data: RoundsData = {
      name: labelOf(positional, flags),
      format: path.endsWith('.gguf') ? 'GGUF' : 'SafeTensors',
      command: commandLine(),
      ...{ machine, work, kvCache: saved.kv_cache, reloaded, roofs, rounds },
      ...(compared ? { against: { file: against!, rows: compared } } : {}),
    };
    const report = roundsReport(data);
    if (html !== undefined) await writeText(html, renderHtml(report));
    if (output !== undefined) await writeText(output, renderMarkdown(report));
    if (json) await print(`${JSON.stringify(jsonOf(data))}\n`);
    else if (output === undefined) await print(renderMarkdown(report));
    const failed = compared
      ? compared.some((row) => row.failed)
      : flags.threshold !== undefined && rounds.some((round) => hasRegression(round, percent / 100));
    return failed ? 1 : 0;
  } catch (error) {
    throw inFlags(error);
  }
}

function workOf(flags: RoundsFlags, contextLength: number): { work: Work; steps: number } {
  const decode = count('--decode-tokens', flags.decodeTokens, 64);
  const work = {
    prompt: count('--prompt-tokens', flags.promptTokens, Math.max(1, Math.min(512, contextLength - decode))),
    decode,
    repeat: count('--repeat', flags.repeat, COMPARED_TURNS),
  };
  if (work.repeat < FEWEST_TURNS) throw new OptionError('--repeat', `at least ${FEWEST_TURNS}`, work.repeat);
  if (decode < 3) throw new OptionError('--decode-tokens', 'at least 3', decode);
  const steps = count('--steps', flags.steps, Math.min(9, Math.max(1, Math.floor(decode / 2))));
  // Steady times are those of the steps after the table's, three of four of which are not timed inside.
  if (steps + 2 > decode)
    throw new UsageError(`--steps must be at most --decode-tokens - 2 (${decode - 2}), got ${steps}`);
  return { work, steps };
}

/** The model's name in titles: an id of the hub in full, of a path the last part. */
function labelOf(positional: string | undefined, flags: RoundsFlags): string {
  const name = modelName(positional, flags);
  if (name === embeddedModel) return 'the embedded model';
  return /^[./~]/.test(name) ? basename(name) : name;
}

function jsonOf(data: RoundsData): object {
  const { command, machine, name, work, kvCache, reloaded, roofs, rounds, against } = data;
  const { threads, vectorBits, description } = rounds[0]!.times.model;
  return {
    ...{ command, model: name, model_type: description.modelType, parameters: description.parameters },
    machine: { ...machine, threads, vector_bits: vectorBits },
    roofs: { read: middle(roofs, 'read'), f32: middle(roofs, 'f32'), q8: middle(roofs, 'q8') },
    work,
    kv_cache: kvCache,
    reloaded,
    rounds: rounds.map((round, index) => ({
      policy: round.times.policy,
      summary: summaryOf(data, round, index),
      linear_layers: round.times.layers,
      quantized: round.times.quantized,
      weight_bytes: round.weightBytes,
      ...Object.fromEntries(metricNames.map((name) => [name, metricJson(round, name)])),
      prefill_tokens_per_second: (work.prompt / round.metrics.prefill.spread.median) * 1000,
      decode_gigabytes_per_second: ratesOf(round.times, roofs).decode / 1e9,
      steps: round.steps,
      layers: linearLayers(round.times.model.description),
    })),
    fastest: fastestOf(rounds)[0] ?? null,
    ...(against ? { against } : {}),
  };
}

const metricJson = ({ metrics }: Round, name: (typeof metricNames)[number]): object => {
  const { turns, spread, change, verdict } = metrics[name];
  return { turns_ms: turns, ...spread, ...(change ? { change, verdict } : {}) };
};
