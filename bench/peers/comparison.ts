/** Measures one model file with both engines in turns. */

import { setTimeout as pause } from 'node:timers/promises';
import type { Rate, Roofs } from '../../src/backend/wasm/measuring/roof.ts';
import { median, type Spread, spreadOf } from '../../src/measure/statistics.ts';
import { measureMachine } from '../../src/node.ts';
import { isBlockStorage } from '../../src/quant/storage.ts';
import type { ShapeName } from '../shapes.ts';
import type { GgufStorage } from './gguf-writer.ts';
import { cachedGguf } from './make-gguf.ts';
import { type KvCache, Side, type Task, type Way, ways } from './side.ts';

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
  /** How tokens are decoded on both sides. Prompts are always evaluated. */
  readonly way: Way;
  /** Milliseconds per token; for a batch per step of all sequences. */
  readonly lanewise: Spread;
  readonly peer: Spread;
  /** Median of the peer / median of Lanewise, same way: above 1 Lanewise is faster. */
  readonly ratio: number;
  /** The lower of the peer's two medians / median of Lanewise in this way. */
  readonly engine_ratio: number;
  /** Decode: share of the memory's read rate; prefill: share of the rate of the best tile. Median over turns. */
  readonly of_roof: number | null;
  /** Batch: tokens per second / those of one sequence of Lanewise. */
  readonly of_one: number | null;
  /** Decode: bytes read per second; prefill: multiplications and additions of the linear layers per second. */
  readonly rate: number | null;
}

export interface Comparison {
  readonly shape: ShapeName;
  readonly storage: GgufStorage;
  /** One entry per turn. */
  readonly roofs: readonly Roofs[];
  readonly rows: readonly PeerRow[];
}

type ByWay = Readonly<Record<Way, number[]>>;

/** Milliseconds of one side. */
interface Turn {
  /** The whole prompt. */
  prefillMs: number;
  /** Each token. */
  readonly decodeMs: ByWay;
  /** Each round of the batch, a token of every sequence. */
  readonly batchMs: ByWay;
}

type Name = 'Lanewise' | 'peer';
type Turns = Readonly<Record<Name, Turn>>;

/** Tokens that one side decodes before the other does. */
const STRETCH = 16;
/** Pause between sides: threads of the side that has just worked may still spin. */
const PAUSE_MS = 150;

/**
 * Both sides do the same task one after the other, in alternating order. The first token of a run is not counted: processor
 * caches still hold the other side's weights.
 */
async function takeTurn(sides: ReadonlyMap<Name, Side>, { decodeTokens, sequences }: Settings): Promise<Turns> {
  const none = (): Turn => ({
    prefillMs: Number.NaN,
    decodeMs: { evaluate: [], generate: [] },
    batchMs: { evaluate: [], generate: [] },
  });
  const turns: Turns = { Lanewise: none(), peer: none() };
  let order = [...sides];
  const both = async (task: Task, use: (turn: Turn, times: readonly number[]) => void): Promise<void> => {
    for (const [name, side] of order) {
      await pause(PAUSE_MS);
      use(turns[name], await side.ask(task));
    }
    order = order.toReversed();
  };
  const decode = async (times: 'decodeMs' | 'batchMs'): Promise<void> => {
    for (const way of ways) {
      for (let done = 0; done < decodeTokens; done += STRETCH) {
        const rounds = Math.min(STRETCH, decodeTokens - done) + 1;
        await both({ task: 'decode', way, rounds }, (turn, [, ...counted]) => turn[times][way].push(...counted));
      }
    }
  };
  await both({ task: 'prompt' }, (turn, [ms]) => {
    turn.prefillMs = ms!;
  });
  await decode('decodeMs');
  if (sequences > 0) {
    await both({ task: 'batch' }, () => {});
    await decode('batchMs');
  }
  return turns;
}

const describe = ({ prefillMs, decodeMs, batchMs }: Turn, sequences: number): string => {
  const parts = ways.map((way) => `${way} ${median(decodeMs[way]).toFixed(2)} ms`);
  if (sequences > 0)
    parts.push(...ways.map((way) => `${way} of ${sequences} sequences ${median(batchMs[way]).toFixed(2)} ms`));
  return `prefill ${prefillMs.toFixed(0)} ms, ${parts.join(', ')}`;
};

export async function compare(shape: ShapeName, storage: GgufStorage, settings: Settings): Promise<Comparison> {
  const { repeat, kvCache, ...common } = settings;
  const model = await cachedGguf(shape, storage);
  const turns = { Lanewise: [] as Turn[], peer: [] as Turn[] };
  // Measured in every turn: the speed of a shared machine changes within minutes.
  const roofs: Roofs[] = [];
  const sides = new Map<Name, Side>();
  try {
    sides.set(
      'Lanewise',
      await Side.start(new URL('./lanewise-side.ts', import.meta.url), { ...common, model, kvCache }),
    );
    sides.set('peer', await Side.start(new URL('./llama-side.mjs', import.meta.url), { ...common, model }));
    // The first turn of each is a warm-up.
    for (let n = 0; n <= repeat; n++) {
      const turn = await takeTurn(sides, settings);
      for (const name of sides.keys())
        console.error(`  turn ${n}, ${name}: ${describe(turn[name], settings.sequences)}`);
      if (n === 0) continue;
      for (const name of sides.keys()) turns[name].push(turn[name]);
      roofs.push(await ceilings(settings.threads));
    }
    const { bytesPerToken, operationsPerToken } = sides.get('Lanewise')!.introduction;
    const us = summarize(turns.Lanewise, settings);
    const them = summarize(turns.peer, settings);
    /** Rate of Lanewise, and its share of the machine's limit measured in the same turn. */
    const speed = (phase: PeerRow['phase'], way: Way): Pick<PeerRow, 'rate' | 'of_roof'> => {
      if (phase === 'batch') return { rate: null, of_roof: null };
      const tile = isBlockStorage(storage) ? 'q8' : 'f32';
      const [work, roof] =
        phase === 'decode' ? ([bytesPerToken![way], 'readAll'] as const) : ([operationsPerToken!, tile] as const);
      const rate = (summary: Summary): number => (work * 1000) / summary[phase][way].median;
      const shares = turns.Lanewise.map((turn, n) => rate(summarize([turn], settings)) / roofs[n]![roof].median);
      return { rate: rate(us), of_roof: median(shares) };
    };
    const row = (phase: PeerRow['phase'], way: Way): PeerRow => {
      const [lanewise, peer] = [us[phase][way], them[phase][way]];
      const engine = Math.min(...ways.map((other) => them[phase][other].median));
      return {
        shape,
        storage,
        phase,
        way,
        lanewise,
        peer,
        ratio: peer.median / lanewise.median,
        engine_ratio: engine / lanewise.median,
        ...speed(phase, way),
        of_one: phase === 'batch' ? (settings.sequences * us.decode[way].median) / lanewise.median : null,
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
  const roofs = await measureMachine(threads, { turns: 4 });
  const giga = ({ median }: Rate): string => (median / 1e9).toFixed(1);
  console.error(
    `  roofs, ${threads} threads: read ${giga(roofs.readAll)} GB/s, f32 ${giga(roofs.f32)} GFLOP/s, q8_0 ${giga(roofs.q8)} GOP/s`,
  );
  return roofs;
}
