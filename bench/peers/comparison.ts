/** One model file, measured by both engines in turns. */
import { existsSync, mkdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Rate, Roofs } from '../../src/backend/wasm/roof.ts';
import { measureMachine } from '../../src/node.ts';
import { median, type Spread, spreadOf } from '../../src/profile/statistics.ts';
import { isBlockStorage } from '../../src/quant/storage.ts';
import type { ShapeName } from '../shapes.ts';
import type { GgufStorage } from './gguf-writer.ts';
import { makeGguf } from './make-gguf.ts';
import { type KvCache, Side, type Turn, type Way, ways } from './side.ts';

export interface Settings {
  readonly threads: number;
  readonly repeat: number;
  readonly promptTokens: number;
  readonly decodeTokens: number;
  readonly sequences: number;
  readonly kvCache?: KvCache;
}

export interface PeerRow {
  readonly shape: ShapeName;
  readonly storage: GgufStorage;
  readonly phase: 'prefill' | 'decode' | 'batch';
  /** Both sides do the same work. Prompts are evaluated. */
  readonly way: Way;
  /** Milliseconds per token; of a batch: of a round over its sequences. */
  readonly lanewise: Spread;
  readonly peer: Spread;
  /** Medians, peer over Lanewise, like for like: above 1 Lanewise is faster. */
  readonly ratio: number;
  /** The peer's engine time, the lower of its two medians, over the time of Lanewise in this way. */
  readonly engine_ratio: number;
  /** Decode: share of the memory's read rate; prefill: share of the rate of the best tile. */
  readonly of_roof: number | null;
  /** Batch: tokens per second over those of one sequence of Lanewise. */
  readonly of_one: number | null;
  /** Bytes that a token reads, and their rate: of one decoded sequence. */
  readonly gigabytes_per_second: number | null;
}

export interface Comparison {
  readonly shape: ShapeName;
  readonly storage: GgufStorage;
  readonly roofs: Roofs;
  readonly rows: readonly PeerRow[];
}

const cache = path.join(tmpdir(), 'lanewise-bench-models');

/** Both engines read the same file. */
async function modelFile(shape: ShapeName, storage: GgufStorage): Promise<string> {
  const file = path.join(cache, `${shape}-${storage}.gguf`);
  if (existsSync(file)) return file;
  console.error(`writing ${file}`);
  mkdirSync(cache, { recursive: true });
  await makeGguf(shape, storage, file);
  return file;
}

const describe = ({ prefillMs, decodeMs, batchMs }: Turn, sequences: number): string => {
  const parts = ways.map((way) => `${way} ${median(decodeMs[way]).toFixed(2)} ms`);
  if (sequences > 0)
    parts.push(...ways.map((way) => `${way} of ${sequences} sequences ${median(batchMs[way]).toFixed(2)} ms`));
  return `prefill ${prefillMs.toFixed(0)} ms, ${parts.join(', ')}`;
};

export async function compare(shape: ShapeName, storage: GgufStorage, settings: Settings): Promise<Comparison> {
  const roofs = await ceilings(settings.threads);
  const { repeat, kvCache, ...common } = settings;
  const model = await modelFile(shape, storage);
  const turns = { Lanewise: [] as Turn[], peer: [] as Turn[] };
  const sides = new Map<keyof typeof turns, Side>();
  try {
    sides.set(
      'Lanewise',
      await Side.start(new URL('./lanewise-side.ts', import.meta.url), { ...common, model, kvCache }),
    );
    sides.set('peer', await Side.start(new URL('./llama-side.mjs', import.meta.url), { ...common, model }));
    // The first turn of each is for caches and compilers.
    for (let n = 0; n <= repeat; n++) {
      for (const [name, side] of sides) {
        const turn = await side.turn();
        console.error(`  turn ${n}, ${name}: ${describe(turn, settings.sequences)}`);
        if (n > 0) turns[name].push(turn);
      }
    }
    const { bytesPerToken, operationsPerToken } = sides.get('Lanewise')!.introduction;
    const us = summarize(turns.Lanewise, settings);
    const them = summarize(turns.peer, settings);
    const peak = isBlockStorage(storage) ? roofs.q8 : roofs.f32;
    const row = (phase: PeerRow['phase'], way: Way): PeerRow => {
      const [lanewise, peer] = [us[phase][way], them[phase][way]];
      const engine = Math.min(...ways.map((other) => them[phase][other].median));
      const bytesPerSecond = phase === 'decode' ? bytesPerToken![way] / (lanewise.median / 1e3) : null;
      const prefillShare = operationsPerToken! / (lanewise.median / 1e3) / peak.median;
      return {
        shape,
        storage,
        phase,
        way,
        lanewise,
        peer,
        ratio: peer.median / lanewise.median,
        engine_ratio: engine / lanewise.median,
        of_roof:
          phase === 'prefill' ? prefillShare : bytesPerSecond === null ? null : bytesPerSecond / roofs.readAll.median,
        of_one: phase === 'batch' ? (settings.sequences * us.decode[way].median) / lanewise.median : null,
        gigabytes_per_second: bytesPerSecond === null ? null : bytesPerSecond / 1e9,
      };
    };
    const batch = settings.sequences > 0 ? ways.map((way) => row('batch', way)) : [];
    return {
      shape,
      storage,
      roofs,
      rows: [row('prefill', 'evaluate'), ...ways.map((way) => row('decode', way)), ...batch],
    };
  } finally {
    for (const side of sides.values()) side.stop();
  }
}

type Summary = Readonly<Record<PeerRow['phase'], Readonly<Record<Way, Spread>>>>;

function summarize(turns: readonly Turn[], { promptTokens, sequences }: Settings): Summary {
  const byWay = (samples: (way: Way) => readonly number[]): Record<Way, Spread> => ({
    evaluate: spreadOf(samples('evaluate')),
    generate: spreadOf(samples('generate')),
  });
  return {
    prefill: byWay(() => turns.map(({ prefillMs }) => prefillMs / promptTokens)),
    decode: byWay((way) => turns.flatMap(({ decodeMs }) => decodeMs[way])),
    batch: byWay((way) => (sequences > 0 ? turns.flatMap(({ batchMs }) => batchMs[way]) : [Number.NaN])),
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
