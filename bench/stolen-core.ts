/**
 * Measures decode with fewer free cores than threads:
 * `node bench/stolen-core.ts [--json FILE] [--threads 1,2,3,4] [--seconds 3]`.
 *
 * GPT-2's shape in Q8_0 with several thread counts, on a quiet machine and next to a process that keeps one core busy.
 * The engine has one second to adapt; then the counts take turns. None should be more than 10 % slower than one thread:
 * `ratio` is milliseconds per token / those of one thread in the same conditions.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import path from 'node:path';
import { renderTable } from '../src/cli/table.ts';
import { load, type Model } from '../src/node.ts';
import { argumentsOf, countOf, countsOf } from './arguments.ts';
import { makeModel } from './make-model.ts';
import { modelShape } from './shapes.ts';

const conditions = ['quiet', 'one core stolen', 'given back'] as const;

interface Row {
  readonly conditions: (typeof conditions)[number];
  readonly threads: number;
  /** Mean milliseconds per token in the first second, and after it. Means, so that every wait counts. */
  readonly first_second_ms: number;
  readonly ms: number;
  /** `ms` / that of one thread in the same conditions. */
  readonly ratio: number;
}

const NOTICE_MS = 1000;
const TURNS = 3;
const PROMPT = 16;
/** Tokens after which the text starts again, so that all contexts have the same lengths. */
const LENGTH = 64;

async function gpt2(): Promise<string> {
  const folder = path.join(tmpdir(), 'lanewise-bench-models', 'gpt2-published');
  if (!existsSync(path.join(folder, 'model.safetensors'))) {
    console.error(`writing ${folder}`);
    await makeModel(modelShape('gpt2'), folder);
  }
  return folder;
}

/** Decodes for `milliseconds` and returns the time of each token. */
async function decode(model: Model, milliseconds: number): Promise<number[]> {
  const sequence = model.sequence();
  await model.step([{ sequence, tokens: Array.from({ length: PROMPT }, (_, i) => 300 + i), wanted: false }]);
  const samples: number[] = [];
  for (const end = performance.now() + milliseconds; performance.now() < end; ) {
    if (sequence.length === PROMPT + LENGTH) sequence.truncate(PROMPT);
    const start = performance.now();
    await model.step([{ sequence, tokens: [samples.length % 1000], wanted: true }]);
    samples.push(performance.now() - start);
  }
  sequence.dispose();
  return samples;
}

const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;

/** Starts a process that keeps one core busy, in its own session: Linux shares cores between sessions first. */
const thief = (): ChildProcess => spawn(process.execPath, ['-e', 'for (;;);'], { stdio: 'ignore', detached: true });

async function measure(models: ReadonlyMap<number, Model>, milliseconds: number): Promise<Row[]> {
  const rows: Row[] = [];
  for (const name of conditions) {
    const other = name === 'one core stolen' ? thief() : undefined;
    try {
      const first = new Map<number, number>();
      const samples = new Map([...models.keys()].map((threads) => [threads, [] as number[]]));
      for (const [threads, model] of models) first.set(threads, mean(await decode(model, NOTICE_MS)));
      for (let turn = 0; turn < TURNS; turn++) {
        for (const [threads, model] of models)
          samples.get(threads)!.push(...(await decode(model, milliseconds / TURNS)));
      }
      const one = mean(samples.get(1)!);
      for (const [threads, values] of samples) {
        const ms = mean(values);
        rows.push({ conditions: name, threads, first_second_ms: first.get(threads)!, ms, ratio: ms / one });
      }
    } finally {
      other?.kill();
    }
  }
  return rows;
}

const { values } = argumentsOf({
  options: {
    json: { type: 'string' },
    threads: { type: 'string', default: '1,2,3,4' },
    seconds: { type: 'string', default: '3' },
  },
});
const counts = new Set([1, ...countsOf('--threads', values.threads)]);
const seconds = countOf('--seconds', values.seconds);
const folder = await gpt2();
const models = new Map<number, Model>();
for (const threads of counts)
  models.set(threads, await load(folder, { inline: true, threads, quantize: 'q8_0:min-dim=1' }));
const rows = await measure(models, seconds * 1000);
for (const model of models.values()) await model.dispose();
if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(rows, null, 2)}\n`);
const titles = ['Threads', 'First second ms/token', 'Then ms/token', 'Of one thread'];
console.log(`${availableParallelism()} cores\n`);
console.log(
  renderTable(
    [{ title: 'Conditions' }, ...titles.map((title) => ({ title, align: 'right' as const }))],
    rows.map((row) => [
      row.conditions,
      `${row.threads}`,
      row.first_second_ms.toFixed(2),
      row.ms.toFixed(2),
      row.ratio.toFixed(2),
    ]),
  ),
);
