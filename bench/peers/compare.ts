/**
 * Lanewise beside node-llama-cpp, same shapes, storage and thread count, taking turns:
 * `npm run bench:peers -- [--json FILE] [--only gpt2,gemma3-1b] [--storage q8_0,f32] [--threads 2] [--repeat 3]
 * [--prompt-tokens 512] [--decode-tokens 64]`.
 *
 * A token is decoded in two ways: evaluated into the cache without logits (the engine alone; the output matrix, 30 % of
 * Gemma 3 1B's bytes, is left out), and generated greedily, as users see it. Like is set against like, and a row of the
 * JSON has the way that is less kind to Lanewise; the table shows both. Quote only ratios of one run.
 */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import type { Rate, Roofs } from '../../src/backend/wasm/roof.ts';
import { measureMachine } from '../../src/node.ts';
import { renderTable } from '../../src/profile/table.ts';
import { makeModel } from '../make-model.ts';
import { isShapeName, modelShape, type ShapeName, shapeNames } from '../shapes.ts';
import type { GgufStorage } from './gguf-writer.ts';
import { makeGguf } from './make-gguf.ts';
import { Side, type Turn, type Way } from './side.ts';

interface Row {
  readonly shape: ShapeName;
  readonly storage: GgufStorage;
  readonly phase: 'prefill' | 'decode';
  /** Decode: the way with the lower ratio. */
  readonly way?: Way;
  /** Per token, medians. */
  readonly lanewise_ms: number;
  readonly peer_ms: number;
  /** peer_ms / lanewise_ms: above 1 Lanewise is faster. */
  readonly ratio: number;
  /** Decode: share of the memory's read rate; prefill: share of the best tile's rate. */
  readonly of_roof: number | null;
}

interface Settings {
  readonly threads: number;
  readonly repeat: number;
  readonly promptTokens: number;
  readonly decodeTokens: number;
}

const storages: readonly GgufStorage[] = ['f32', 'f16', 'q8_0', 'q4_0'];
const cache = path.join(tmpdir(), 'lanewise-bench-models');

function readArguments() {
  const { values } = parseArgs({
    options: {
      json: { type: 'string' },
      only: { type: 'string', default: 'gpt2,gemma3-1b' },
      storage: { type: 'string', default: 'q8_0,f32' },
      threads: { type: 'string', default: '2' },
      repeat: { type: 'string', default: '3' },
      'prompt-tokens': { type: 'string', default: '512' },
      'decode-tokens': { type: 'string', default: '64' },
    },
  });
  const shapes = values.only.split(',');
  const chosen = values.storage.split(',');
  const settings: Settings = {
    threads: Number(values.threads),
    repeat: Number(values.repeat),
    promptTokens: Number(values['prompt-tokens']),
    decodeTokens: Number(values['decode-tokens']),
  };
  if (!shapes.every(isShapeName)) throw new Error(`--only takes ${shapeNames.join(', ')}`);
  if (!chosen.every(isStorage)) throw new Error(`--storage takes ${storages.join(', ')}`);
  if (!Object.values(settings).every((n) => Number.isInteger(n) && n > 0)) throw new Error('counts must be above 0');
  return { shapes, chosen, settings, json: values.json };
}

const isStorage = (name: string): name is GgufStorage => (storages as readonly string[]).includes(name);

/** A folder for Lanewise; quantized models are made from it while loading. */
async function lanewiseModel(shape: ShapeName, storage: GgufStorage): Promise<string> {
  const dtype = storage === 'f32' ? 'F32' : storage === 'f16' ? 'F16' : undefined;
  const folder = path.join(cache, `${shape}-${dtype ?? 'published'}`);
  if (existsSync(path.join(folder, 'model.safetensors'))) return folder;
  console.error(`writing ${folder}`);
  await makeModel(modelShape(shape, dtype), folder);
  return folder;
}

async function peerModel(shape: ShapeName, storage: GgufStorage): Promise<string> {
  const file = path.join(cache, `${shape}-${storage}.gguf`);
  if (existsSync(file)) return file;
  console.error(`writing ${file}`);
  mkdirSync(cache, { recursive: true });
  await makeGguf(shape, storage, file);
  return file;
}

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1]!;

const names = ['Lanewise', 'peer'];

const ways = ['evaluate', 'generate'] as const;

const describe = ({ prefillMs, decodeMs }: Turn): string =>
  `prefill ${prefillMs.toFixed(0)} ms, ${ways.map((way) => `${way} ${median(decodeMs[way]).toFixed(2)} ms`).join(', ')}`;

/** Median milliseconds per token. */
type Summary = Readonly<Record<'prefill' | Way, number>>;

function summarize(turns: readonly Turn[], promptTokens: number): Summary {
  const decode = (way: Way): number => median(turns.flatMap((turn) => turn.decodeMs[way]));
  return {
    prefill: median(turns.map((turn) => turn.prefillMs)) / promptTokens,
    evaluate: decode('evaluate'),
    generate: decode('generate'),
  };
}

/** What one pair of models gave: the rows to be stored, and the ratios of both ways. */
interface Comparison {
  readonly rows: readonly Row[];
  readonly ratios: Readonly<Record<Way, number>>;
}

async function compare(shape: ShapeName, storage: GgufStorage, settings: Settings): Promise<Comparison> {
  const roofs = await ceilings(settings.threads);
  const { repeat, ...common } = settings;
  const quantized = storage === 'q8_0' || storage === 'q4_0';
  const folder = await lanewiseModel(shape, storage);
  const gguf = await peerModel(shape, storage);
  const turns: Turn[][] = [[], []];
  const sides: Side[] = [];
  try {
    const quantize = quantized ? storage : 'none';
    sides.push(
      await Side.start(new URL('./lanewise-side.ts', import.meta.url), { ...common, model: folder, quantize }),
    );
    sides.push(await Side.start(new URL('./llama-side.mjs', import.meta.url), { ...common, model: gguf }));
    // The first turn of each is for caches and compilers.
    for (let n = 0; n <= repeat; n++) {
      for (const [index, side] of sides.entries()) {
        const turn = await side.turn();
        console.error(`  turn ${n}, ${names[index]}: ${describe(turn)}`);
        if (n > 0) turns[index]!.push(turn);
      }
    }
  } finally {
    for (const side of sides) side.stop();
  }
  const us = summarize(turns[0]!, settings.promptTokens);
  const them = summarize(turns[1]!, settings.promptTokens);
  const { bytesPerToken, operationsPerToken = 0 } = sides[0]!.introduction;
  const peak = storage === 'f32' ? roofs.f32 : storage === 'q8_0' ? roofs.q8 : undefined;
  const ratio = (part: keyof Summary): number => them[part] / us[part];
  const way = ratio('evaluate') < ratio('generate') ? 'evaluate' : 'generate';
  const row = (phase: Row['phase'], part: keyof Summary, ofRoof: number | null): Row => ({
    shape,
    storage,
    phase,
    lanewise_ms: us[part],
    peer_ms: them[part],
    ratio: ratio(part),
    of_roof: ofRoof,
  });
  return {
    rows: [
      row('prefill', 'prefill', peak ? operationsPerToken / (us.prefill / 1e3) / peak.median : null),
      { ...row('decode', way, bytesPerToken![way] / (us[way] / 1e3) / roofs.readAll.median), way },
    ],
    ratios: { evaluate: ratio('evaluate'), generate: ratio('generate') },
  };
}

async function ceilings(threads: number): Promise<Roofs> {
  const roofs = await measureMachine(threads);
  const giga = ({ median }: Rate): string => (median / 1e9).toFixed(1);
  console.error(
    `${threads} threads: read ${giga(roofs.readAll)} GB/s, f32 ${giga(roofs.f32)} GFLOP/s, q8_0 ${giga(roofs.q8)} GOP/s`,
  );
  return roofs;
}

async function main(): Promise<void> {
  const { shapes, chosen, settings, json } = readArguments();
  const load = loadavg()[0]!;
  if (load > 0.5) console.error(`other work is running (load ${load.toFixed(1)}): these times will say little`);
  const comparisons: Comparison[] = [];
  for (const shape of shapes) {
    for (const storage of chosen) {
      comparisons.push(await compare(shape, storage, settings));
      const rows = comparisons.flatMap(({ rows }) => rows);
      if (json !== undefined) writeFileSync(json, `${JSON.stringify(rows, null, 2)}\n`);
    }
  }
  const { threads, promptTokens, decodeTokens, repeat } = settings;
  console.log(`${threads} threads, ${promptTokens} prompt tokens, ${decodeTokens} decoded, ${repeat} turns\n`);
  console.log(
    renderTable(
      [
        { title: 'Shape' },
        { title: 'Storage' },
        { title: 'Phase' },
        ...['Lanewise ms/token', 'Peer ms/token', 'Ratio', 'Of roof', 'Evaluating', 'Generating'].map((title) => ({
          title,
          align: 'right' as const,
        })),
      ],
      comparisons.flatMap(({ rows, ratios }) =>
        rows.map((row) => [
          row.shape,
          row.storage,
          row.phase,
          row.lanewise_ms.toFixed(3),
          row.peer_ms.toFixed(3),
          `${row.ratio.toFixed(2)}x`,
          row.of_roof === null ? '' : `${(row.of_roof * 100).toFixed(0)}%`,
          ...(row.way ? ways.map((way) => `${ratios[way].toFixed(2)}x`) : ['', '']),
        ]),
      ),
    ),
  );
}

await main();
