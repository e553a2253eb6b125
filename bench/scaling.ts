/**
 * Measures the speedup by threads: `node bench/scaling.ts [--json FILE] [--only gpt2,gemma3-1b] [--threads 2] [--repeat
 * 5]`.
 *
 * Prompts of 512 tokens in Q8_0 with one thread and with several, in turns, compared with the speedup of the machine's
 * memory reads and tile loops.
 */
import { writeFileSync } from 'node:fs';
import { renderTable } from '../src/cli/table.ts';
import { median, pairedChange, type Spread, spreadOf } from '../src/measure/statistics.ts';
import { load, type Model, measureMachine } from '../src/node.ts';
import { argumentsOf, countOf, namesOf } from './arguments.ts';
import { cachedGguf } from './peers/make-gguf.ts';
import { type ShapeName, shapeNames } from './shapes.ts';

export interface ScalingReport {
  readonly threads: number;
  readonly models: readonly {
    readonly shape: ShapeName;
    /** Milliseconds of a prefill with one thread and with all. */
    readonly one: Spread;
    readonly all: Spread;
    /** Median over turns of the ratio one / all, and its confidence interval. */
    readonly speedup: number;
    readonly low: number;
    readonly high: number;
  }[];
  /** Rates of all threads / rates of one. */
  readonly machine: { readonly read: number; readonly f32: number; readonly q8: number };
}

const PROMPT = 512;

async function prefill(model: Model): Promise<number> {
  const sequence = model.sequence();
  const ids = Array.from({ length: PROMPT }, (_, i) => 300 + ((i * 37) % 5000));
  const start = performance.now();
  for (let at = 0; at < PROMPT; at += model.maxRows)
    await model.step([{ sequence, tokens: ids.slice(at, at + model.maxRows), wanted: false }]);
  const ms = performance.now() - start;
  sequence.dispose();
  return ms;
}

async function measure(shape: ShapeName, threads: number, repeat: number): Promise<ScalingReport['models'][number]> {
  const file = await cachedGguf(shape, 'q8_0');
  const models: Model[] = [];
  try {
    for (const count of [1, threads])
      models.push(await load(file, { inline: true, threads: count, contextLength: PROMPT }));
    const samples: [number[], number[]] = [[], []];
    for (let turn = 0; turn <= repeat; turn++) {
      for (const [i, model] of models.entries()) {
        const ms = await prefill(model);
        if (turn > 0) samples[i]!.push(ms);
      }
    }
    const [one, all] = samples;
    const { ratio: speedup, low, high } = pairedChange(all, one);
    return { shape, one: spreadOf(one), all: spreadOf(all), speedup, low, high };
  } finally {
    for (const model of models) await model.dispose();
  }
}

/** Measures the machine's rates with one thread and with all, in turns. */
async function scalingOfMachine(threads: number): Promise<ScalingReport['machine']> {
  const ratios = { read: [] as number[], f32: [] as number[], q8: [] as number[] };
  for (let turn = 0; turn < 3; turn++) {
    const [one, all] = [await measureMachine(1), await measureMachine(threads)];
    ratios.read.push(all.readAll.median / all.readOne.median);
    ratios.f32.push(all.f32.median / one.f32.median);
    ratios.q8.push(all.q8.median / one.q8.median);
  }
  return { read: median(ratios.read), f32: median(ratios.f32), q8: median(ratios.q8) };
}

const { values } = argumentsOf({
  options: {
    json: { type: 'string' },
    only: { type: 'string', default: 'gpt2,gemma3-1b' },
    threads: { type: 'string', default: '2' },
    repeat: { type: 'string', default: '5' },
  },
});
const shapes = namesOf('--only', values.only, shapeNames);
const threads = countOf('--threads', values.threads);
const repeat = countOf('--repeat', values.repeat);
const models: ScalingReport['models'][number][] = [];
for (const shape of shapes) models.push(await measure(shape, threads, repeat));
const machine = await scalingOfMachine(threads);
const report: ScalingReport = { threads, models, machine };
if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(report, null, 2)}\n`);
const right = (title: string) => ({ title, align: 'right' as const });
console.log(
  renderTable(
    [{ title: 'What' }, right('1 thread'), right(`${threads} threads`), right('Ratio')],
    [
      ...models.map(({ shape, one, all, speedup, low, high }) => [
        `${shape}, prompt of ${PROMPT}`,
        `${one.median.toFixed(0)} ms`,
        `${all.median.toFixed(0)} ms`,
        `${speedup.toFixed(2)} (${low.toFixed(2)} - ${high.toFixed(2)})`,
      ]),
      ...Object.entries(machine).map(([name, ratio]) => [`machine: ${name}`, '', '', ratio.toFixed(2)]),
    ],
  ),
);
