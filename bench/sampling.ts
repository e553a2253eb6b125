/**
 * Milliseconds that choosing a token takes, for each row of logits, with logits where a forward leaves them:
 * `npm run bench:sampling -- [--vocab N] [--threads N] [--rounds N]
 * [--logits peaked|normal|uniform]`. Beside it, the definition in plain TypeScript.
 */
import { drawFrom } from '../src/backend/draw.ts';
import { Selection } from '../src/backend/selection.ts';
import { buildBackend } from '../src/backend/wasm/backend.ts';
import { chooseKernels } from '../src/backend/wasm/choosing/probe.ts';
import { nodeHost } from '../src/backend/wasm/threads/host-node.ts';
import { median } from '../src/measure/statistics.ts';
import { sampleRows } from '../src/sampling/sample-rows.ts';
import { Sampler } from '../src/sampling/sampler.ts';
import { type SamplingOptions, validateSampling } from '../src/sampling/sampling-options.ts';
import { argumentsOf, countOf } from './arguments.ts';
import { logitsTable } from './logits-table.ts';

const { values } = argumentsOf({
  options: {
    vocab: { type: 'string' },
    threads: { type: 'string' },
    rounds: { type: 'string' },
    logits: { type: 'string' },
  },
});
const vocab = countOf('--vocab', values.vocab ?? '262144', 64);
const threads = countOf('--threads', values.threads ?? '2');
const rounds = countOf('--rounds', values.rounds ?? '300');
const BATCH = 8;

let state = 1;
const uniform = (): number => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return (state + 0.5) / 2 ** 32;
};
const normal = (): number => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
/** Kinds of logits. `peaked` falls off like those of a trained model: most tokens far below a few. */
const kinds: Readonly<Record<string, () => number>> = {
  peaked: () => -8 + 3 * normal() + (uniform() < 1e-4 ? 12 * uniform() : 0),
  normal,
  uniform,
};

const history = Array.from({ length: 4096 }, () => Math.floor(uniform() * vocab));
const constraint = {
  // Three tokens in four.
  allowed: (mask: Uint32Array) => void mask.fill(0x77777777),
  accept() {},
};
const cases: Readonly<Record<string, SamplingOptions>> = {
  greedy: { temperature: 0 },
  temperature: {},
  'top-p 0.9': { topP: 0.9 },
  'top-k 40, top-p 0.95': { topK: 40, topP: 0.95 },
  'top-k 1000': { topK: 1000 },
  'min-p 0.05': { minP: 0.05 },
  'top-p, penalty over 4k': { topP: 0.9, repetitionPenalty: 1.1 },
  'top-p, constraint': { topP: 0.9, constraint },
  'top-p, logprobs 20': { topP: 0.9, logprobs: 20 },
};

function open(kind: () => number): ReturnType<typeof buildBackend> {
  const host = nodeHost();
  const rows = { maxRows: BATCH, maxWanted: BATCH };
  return buildBackend({
    ...logitsTable(vocab, kind),
    ...rows,
    host,
    threads,
    choice: chooseKernels(host),
    allThreads: true,
  });
}

console.log(`${vocab} tokens, ${threads} threads, ${rounds} rounds: ms per row, median (best)\n`);
console.log('| Logits | Options | one row | rows of 8 | plain, one thread |');
console.log('|---|---|---:|---:|---:|');
for (const [kind, draw] of Object.entries(kinds)) {
  if (values.logits !== undefined && values.logits !== kind) continue;
  const backend = await open(draw);
  const tokens = Int32Array.from({ length: BATCH }, (_, i) => i);
  for (const [name, options] of Object.entries(cases)) {
    const samplers = Array.from(tokens, (seed) => new Sampler(validateSampling({ ...options, seed }), history));
    const times: Record<number, number[]> = { 1: [], [BATCH]: [] };
    await backend.cache.ensure(BATCH);
    const results = await backend.forward({
      tokens,
      positions: new Int32Array(BATCH),
      sequences: tokens,
      pages: Array.from(tokens, (row) => Int32Array.of(row)),
      wanted: tokens,
    });
    for (let round = 0; round < rounds; round++) {
      for (const count of [1, BATCH]) {
        const rows = samplers.slice(0, count).map((sampler, row) => ({ row, sampler }));
        const start = performance.now();
        await sampleRows(results, rows);
        times[count]!.push((performance.now() - start) / count);
      }
    }
    const plain: number[] = [];
    const selection = new Selection();
    const row = results.output(0).slice();
    const settings = validateSampling(options);
    for (let round = 0; round < Math.min(rounds, 20); round++) {
      const { temperature, topK, topP, minP } = settings;
      const start = performance.now();
      drawFrom(row, { temperature, topK, topP, minP, uniform: 0.5 }, selection);
      plain.push(performance.now() - start);
    }
    const show = (list: readonly number[]): string => `${median(list).toFixed(3)} (${Math.min(...list).toFixed(3)})`;
    console.log(`| ${kind} | ${name} | ${show(times[1]!)} | ${show(times[BATCH]!)} | ${show(plain)} |`);
  }
  await backend.dispose();
}
