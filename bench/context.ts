/**
 * Measures how a long context slows decode: the time of a step after 64, 2048 and 8192 tokens, compared with the slowdown
 * expected from the bytes read. A step reads matrices, keys and values; at the read rate of the short step, its time would
 * grow by the ratio of the bytes.
 *
 *   node bench/context.ts MODEL [--quantize q8_0] [--kv-cache f32,f16,q8_0] [--depths 64,2048,8192] [--threads 1,2]
 *                               [--steps 24] [--json]
 */

import { renderTable } from '../src/cli/table.ts';
import type { Model } from '../src/engine/model.ts';
import { load } from '../src/node.ts';
import { kvStorages } from '../src/quant/kv-cache.ts';
import { argumentsOf, countOf, countsOf, namesOf } from './arguments.ts';

const { values: flags, positionals } = argumentsOf({
  allowPositionals: true,
  options: {
    quantize: { type: 'string', default: 'q8_0' },
    'kv-cache': { type: 'string', default: 'f32,f16,q8_0' },
    depths: { type: 'string', default: '64,2048,8192' },
    threads: { type: 'string', default: '' },
    steps: { type: 'string', default: '24' },
    json: { type: 'boolean', default: false },
  },
});
const depths = countsOf('--depths', flags.depths);
const threadCounts = flags.threads ? countsOf('--threads', flags.threads) : [undefined];
const kvCaches = namesOf('--kv-cache', flags['kv-cache'], kvStorages);
const steps = countOf('--steps', flags.steps);

interface Row {
  readonly kvCache: string;
  readonly threads: number;
  readonly depth: number;
  readonly decodeMs: number;
  readonly gigabytesPerSecond: number;
  readonly cacheBytes: number;
  /** Relative to the first depth: measured, expected from bytes, and measured / expected. */
  readonly slowdown: number;
  readonly explained: number;
  readonly ratio: number;
}

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1]!;

/** Decodes sequences of all depths in one model, in turns. */
async function measure(model: Model, kvCache: string): Promise<Row[]> {
  const { vocab } = model.description.config;
  const token = (i: number): number => (7 + i * 37) % vocab;
  const runs = depths.map((depth) => ({ depth, sequence: model.sequence(depth + steps), ms: [] as number[] }));
  for (const { depth, sequence } of runs) {
    for (let at = 0; at < depth; at += model.maxRows) {
      const tokens = Array.from({ length: Math.min(model.maxRows, depth - at) }, (_, i) => token(at + i));
      await model.step([{ sequence, tokens, wanted: false }]);
    }
  }
  for (let i = 0; i < steps; i++) {
    for (const { sequence, ms } of runs) {
      const start = performance.now();
      await model.step([{ sequence, tokens: [token(i)], wanted: true }]);
      ms.push(performance.now() - start);
    }
  }
  const { cache } = model.memory();
  const used = runs.reduce((sum, { depth }) => sum + depth + steps, 0);
  const bytes = (depth: number): number => model.decodeBytes(depth + steps / 2);
  const first = { ms: median(runs[0]!.ms), bytes: bytes(runs[0]!.depth) };
  const rows = runs.map(({ depth, ms }): Row => {
    const decodeMs = median(ms);
    const [slowdown, explained] = [decodeMs / first.ms, bytes(depth) / first.bytes];
    return {
      kvCache,
      threads: model.threads,
      depth,
      decodeMs,
      gigabytesPerSecond: bytes(depth) / decodeMs / 1e6,
      cacheBytes: (cache * depth) / used,
      slowdown,
      explained,
      ratio: slowdown / explained,
    };
  });
  for (const { sequence } of runs) sequence.dispose();
  return rows;
}

const rows: Row[] = [];
for (const threads of threadCounts) {
  for (const kvCache of kvCaches) {
    const contextLength = Math.max(...depths) + steps;
    await using model = await load(positionals[0], {
      inline: true,
      quantize: flags.quantize,
      kvCache,
      threads,
      contextLength,
    });
    rows.push(...(await measure(model, kvCache)));
  }
}
if (flags.json) console.log(JSON.stringify(rows));
else {
  const right = (title: string) => ({ title, align: 'right' as const });
  console.log(
    renderTable(
      [
        { title: 'Cache' },
        ...['Threads', 'Depth', 'Decode ms', 'GB/s', 'Cache MB', 'Slowdown', 'Explained', 'Ratio'].map(right),
      ],
      rows.map((row) => [
        row.kvCache,
        `${row.threads}`,
        `${row.depth}`,
        row.decodeMs.toFixed(2),
        row.gigabytesPerSecond.toFixed(1),
        (row.cacheBytes / 1e6).toFixed(0),
        row.slowdown.toFixed(2),
        row.explained.toFixed(2),
        row.ratio.toFixed(2),
      ]),
    ),
  );
}
