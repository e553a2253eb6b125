/**
 * Compares Lanewise with node-llama-cpp: same file and thread count, taking turns:
 * `npm run bench:peers -- [--json FILE] [--only gpt2,gemma3-1b] [--storage q8_0,f32] [--threads 2] [--repeat 3]
 * [--prompt-tokens 512] [--decode-tokens 64] [--sequences 8] [--kv-cache f16]`.
 *
 * A token is decoded in two ways: evaluated into the KV cache without logits (without the output matrix, which is 30 %
 * of Gemma 3 1B's bytes), and generated greedily. `Ratio` compares the same way of both engines; `Of engine time`
 * compares the lower of the peer's two medians with the time of Lanewise in this row, even if Lanewise does more work.
 * The peer's KV cache is f16; --kv-cache sets that of Lanewise. Quote only ratios of one run.
 */
import { writeFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { type Column, renderTable } from '../../src/cli/table.ts';
import type { Spread } from '../../src/measure/statistics.ts';
import { argumentsOf, countOf, namesOf } from '../arguments.ts';
import { shapeNames } from '../shapes.ts';
import { type Comparison, compare, type PeerRow, type Settings } from './comparison.ts';
import { ggufStorages } from './gguf-writer.ts';
import { kvCaches } from './side.ts';

/** The content of the file of --json. */
export interface PeerReport {
  readonly settings: Settings;
  readonly comparisons: readonly Comparison[];
  /** `gpt2 q8_0: error` */
  readonly failures: readonly string[];
}

function readArguments() {
  const { values } = argumentsOf({
    options: {
      json: { type: 'string' },
      only: { type: 'string', default: 'gpt2,gemma3-1b' },
      storage: { type: 'string', default: 'q8_0,f32' },
      threads: { type: 'string', default: '2' },
      repeat: { type: 'string', default: '3' },
      'prompt-tokens': { type: 'string', default: '512' },
      'decode-tokens': { type: 'string', default: '64' },
      sequences: { type: 'string', default: '8' },
      'kv-cache': { type: 'string' },
    },
  });
  const cache = values['kv-cache'];
  const settings: Settings = {
    threads: countOf('--threads', values.threads),
    repeat: countOf('--repeat', values.repeat),
    promptTokens: countOf('--prompt-tokens', values['prompt-tokens']),
    decodeTokens: countOf('--decode-tokens', values['decode-tokens']),
    sequences: countOf('--sequences', values.sequences, 0),
    kvCache: cache === undefined ? undefined : namesOf('--kv-cache', cache, kvCaches)[0],
  };
  return {
    shapes: namesOf('--only', values.only, shapeNames),
    storages: namesOf('--storage', values.storage, ggufStorages),
    settings,
    json: values.json,
  };
}

const columns: readonly Column[] = [
  ...['Shape', 'Storage', 'Work'].map((title) => ({ title })),
  ...['Lanewise ms', 'Peer ms', 'Ratio', 'Of engine time', 'Of roof', 'Of one sequence'].map((title) => ({
    title,
    align: 'right' as const,
  })),
];

const milliseconds = ({ median, low, high }: Spread): string =>
  `${median.toFixed(2)} (${low.toFixed(2)} - ${high.toFixed(2)})`;
const times = (ratio: number | null): string => (ratio === null ? '' : `${ratio.toFixed(2)}x`);

const cells = (row: PeerRow): string[] => [
  row.shape,
  row.storage,
  row.phase === 'prefill' ? row.phase : `${row.phase}, ${row.way}`,
  milliseconds(row.lanewise),
  milliseconds(row.peer),
  times(row.ratio),
  row.phase === 'prefill' ? '' : times(row.engine_ratio),
  row.of_roof === null ? '' : `${(row.of_roof * 100).toFixed(0)}%`,
  times(row.of_one),
];

async function main(): Promise<void> {
  const { shapes, storages, settings, json } = readArguments();
  const load = loadavg()[0]!;
  if (load > 0.5) console.error(`other work is running (load ${load.toFixed(1)}): these times will say little`);
  const comparisons: Comparison[] = [];
  const failures: string[] = [];
  for (const shape of shapes) {
    for (const storage of storages) {
      try {
        comparisons.push(await compare(shape, storage, settings));
      } catch (error) {
        failures.push(`${shape} ${storage}: ${(error as Error).message}`);
        console.error(`error: ${failures.at(-1)}`);
      }
      const report: PeerReport = { settings, comparisons, failures };
      if (json !== undefined) writeFileSync(json, `${JSON.stringify(report, null, 2)}\n`);
    }
  }
  const { threads, promptTokens, decodeTokens, sequences, repeat } = settings;
  console.log(`${threads} threads, ${promptTokens} prompt tokens, ${decodeTokens} decoded, ${repeat} turns;`);
  console.log(`ms per token, of a batch per round of its ${sequences} sequences: median (quartiles)\n`);
  console.log(
    renderTable(
      columns,
      comparisons.flatMap(({ rows }) => rows.map(cells)),
    ),
  );
  if (failures.length > 0) process.exitCode = 1;
}

await main();
