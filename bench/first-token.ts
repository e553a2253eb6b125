/**
 * Measures the time to the first token: `node bench/first-token.ts [--json FILE] [--only NAME,...] [--repeat 5]`.
 *
 * Each sample is a process `lanewise generate MODEL --prompt ... --max-tokens 1`, from start to end; the models take
 * turns. After a warm-up turn the files are in the page cache, if they fit, and the JavaScript in Node's compile cache.
 * The times that the process reports for loading and prefill are listed apart; `rest_ms` is everything else: start of
 * Node, imports, header, tokenizer, kernels with their check, threads. The sources are run, not the compiled package,
 * which takes about 50 ms less because its types are already removed.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { renderTable } from '../src/cli/table.ts';
import { type Spread, spreadOf } from '../src/measure/statistics.ts';
import { quantizeModel } from '../src/node.ts';
import { argumentsOf, countOf, refuse } from './arguments.ts';
import { makeModel } from './make-model.ts';
import { benchModels, modelShape } from './shapes.ts';

export interface FirstTokenRow {
  readonly model: string;
  /** Median time of the whole process. */
  readonly seconds: number;
  readonly goal: number;
  /** Time of the whole process. */
  readonly ms: Spread;
  readonly load_ms: Spread;
  readonly prompt_ms: Spread;
  readonly rest_ms: Spread;
}

interface Candidate {
  readonly name: string;
  readonly args: readonly string[];
  /** Seconds. */
  readonly goal: number;
  /** Writes the model if it does not exist. */
  prepare?(): Promise<void>;
}

const main = path.join(import.meta.dirname, '../src/cli/lanewise.ts');
const published = path.join(benchModels, 'gemma3-1b-published');
const quantized = path.join(benchModels, 'gemma3-1b-q8_0.gguf');

async function makePublished(): Promise<void> {
  if (!existsSync(path.join(published, 'model.safetensors'))) await makeModel(modelShape('gemma3-1b'), published);
}

const candidates: readonly Candidate[] = [
  { name: 'embedded', args: [], goal: 0.4 },
  { name: 'gemma3-1b BF16 to Q8_0', args: [published, '--quantize', 'q8_0'], goal: 2.5, prepare: makePublished },
  {
    name: 'gemma3-1b Q8_0 GGUF',
    args: [quantized],
    goal: 2.5,
    async prepare() {
      if (existsSync(quantized)) return;
      await makePublished();
      await quantizeModel(published, quantized, { to: 'q8_0' });
    },
  },
];

interface Sample {
  readonly whole: number;
  readonly load: number;
  readonly prompt: number;
}

function sample({ args }: Candidate): Sample {
  const options = ['--prompt', 'Once upon a time', '--max-tokens', '1', '--temperature', '0', '--json', '--timings'];
  const start = performance.now();
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, 'generate', ...args, ...options], {
    encoding: 'utf8',
  });
  const whole = performance.now() - start;
  const [, load] = /^loaded .*? in (\d+) ms/m.exec(stderr) ?? [];
  if (status !== 0 || load === undefined) throw new Error(`generate failed: ${stderr}`);
  const { timings } = JSON.parse(stdout) as { timings: { prefill_ms: number } };
  return { whole, load: Number(load), prompt: timings.prefill_ms };
}

function rowOf({ name, goal }: Candidate, samples: readonly Sample[]): FirstTokenRow {
  const spread = (of: (sample: Sample) => number): Spread => spreadOf(samples.map(of));
  const ms = spread(({ whole }) => whole);
  return {
    model: name,
    seconds: ms.median / 1000,
    goal,
    ms,
    load_ms: spread(({ load }) => load),
    prompt_ms: spread(({ prompt }) => prompt),
    rest_ms: spread(({ whole, load, prompt }) => whole - load - prompt),
  };
}

const { values } = argumentsOf({
  options: { json: { type: 'string' }, only: { type: 'string' }, repeat: { type: 'string', default: '5' } },
});
const only = values.only?.split(',');
const runs = candidates
  .filter(({ name }) => only === undefined || only.some((start) => name.startsWith(start)))
  .map((candidate) => ({ candidate, samples: [] as Sample[] }));
if (runs.length === 0) refuse(`--only takes ${candidates.map(({ name }) => name).join(', ')}, or how they begin`);
const repeat = countOf('--repeat', values.repeat);
for (const { candidate } of runs) await candidate.prepare?.();
const starts: number[] = [];
for (let turn = 0; turn <= repeat; turn++) {
  const start = performance.now();
  execFileSync(process.execPath, ['-e', '0']);
  if (turn > 0) starts.push(performance.now() - start);
  for (const { candidate, samples } of runs) {
    const taken = sample(candidate);
    if (turn > 0) samples.push(taken);
  }
}
const rows = runs.map(({ candidate, samples }) => rowOf(candidate, samples));
if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(rows, null, 2)}\n`);
const ms = ({ median, low, high }: Spread): string => `${median.toFixed(0)} (${low.toFixed(0)} - ${high.toFixed(0)})`;
console.log(
  renderTable(
    [
      { title: 'Model' },
      ...['First token ms', 'Load', 'Prompt', 'Rest', 'Goal'].map((title) => ({ title, align: 'right' as const })),
    ],
    rows.map(({ model, goal, ...row }) => [
      model,
      ms(row.ms),
      ms(row.load_ms),
      ms(row.prompt_ms),
      ms(row.rest_ms),
      (goal * 1000).toFixed(0),
    ]),
  ),
);
console.log(`Starting Node alone: ${ms(spreadOf(starts))} ms`);
