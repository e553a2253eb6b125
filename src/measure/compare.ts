/** Noise or change: times of two runs, row by row. */
import { LanewiseError } from '../errors.ts';
import type { SavedBench, SavedRow, Subject } from './saved.ts';
import { type Change, median, pairedChange, type Spread, spreadOf, unpairedChange, verdictOf } from './statistics.ts';

/** Fewer turns tell nothing with a confidence of 95 %. */
export const FEWEST_TURNS = 6;

export interface ComparedRow {
  readonly policy: string;
  readonly work: 'prefill' | 'decode';
  /** Milliseconds; of a saved run as they would be at the present speed of the machine. */
  readonly before: Spread;
  readonly now: Spread;
  /** Now over before: above 1 is slower. */
  readonly change: Change;
  readonly verdict: string;
  /** Slower, surely, and by more than the threshold. */
  readonly failed: boolean;
}

/** @param threshold 0.05: 5 % */
function comparedRow(
  name: Pick<ComparedRow, 'policy' | 'work'>,
  samples: { readonly before: readonly number[]; readonly now: readonly number[]; readonly change: Change },
  threshold: number,
): ComparedRow {
  const { before, now, change } = samples;
  const sure = verdictOf(change);
  const failed = sure === 'slower' && change.ratio > 1 + threshold;
  const percent = `${Math.round(threshold * 1000) / 10} %`;
  const within = sure === 'slower' && !failed ? `slower, within ${percent}` : sure;
  return {
    ...name,
    before: spreadOf(before),
    now: spreadOf(now),
    change,
    verdict: failed ? `slower by more than ${percent}` : within,
    failed,
  };
}

/** Milliseconds of the turns of one policy. */
export type TurnTimes = Readonly<Record<ComparedRow['work'], readonly number[]>>;

/** Two that took turns: pairs. */
export function comparePairs(policy: string, before: TurnTimes, now: TurnTimes, threshold: number): ComparedRow[] {
  return (['prefill', 'decode'] as const).map((work) => {
    const change = pairedChange(before[work], now[work]);
    return comparedRow({ policy, work }, { before: before[work], now: now[work], change }, threshold);
  });
}

/**
 * A run of another time: the machine may be slower or faster by now, so that times are set against its rates in the same
 * turn, memory reads for decoding, tile loops for prompts.
 */
export function compareSaved(before: SavedBench, now: SavedBench, threshold: number): ComparedRow[] {
  return now.rows.flatMap((row) => {
    const old = before.rows.find(({ policy }) => policy === row.policy)!;
    return (['prefill', 'decode'] as const).map((work) => {
      const roof = work === 'decode' ? 'read' : row.tile;
      // Milliseconds of a machine whose roof is the median of now.
      const rate = median(now.roofs.map((turn) => turn[roof]));
      const normal = (saved: SavedBench, { prefill_ms, decode_ms }: SavedRow): number[] =>
        (work === 'decode' ? decode_ms : prefill_ms).map((ms, turn) => (ms * saved.roofs[turn]![roof]) / rate);
      const [was, is] = [normal(before, old), normal(now, row)];
      return comparedRow(
        { policy: row.policy, work },
        { before: was, now: is, change: unpairedChange(was, is) },
        threshold,
      );
    });
  });
}

/** @throws LanewiseError in one line if the two did not do the same work */
export function checkComparable(file: string, before: SavedBench, now: Omit<SavedBench, 'roofs' | 'rows'>): void {
  const differing = (what: string, old: unknown, present: unknown): void => {
    if (JSON.stringify(old) !== JSON.stringify(present))
      throw new LanewiseError(
        'NotComparable',
        `${file}: measured with ${what} ${describe(old)}, this is ${describe(present)}`,
      );
  };
  for (const key of Object.keys(now.subject) as (keyof Subject)[])
    differing(`another model: ${key.replace('_', ' ')}`, before.subject?.[key], now.subject[key]);
  differing('prompt tokens', before.work.prompt, now.work.prompt);
  differing('decode tokens', before.work.decode, now.work.decode);
  differing('threads', before.threads, now.threads);
  differing('vector bits', before.vector_bits, now.vector_bits);
  differing('key/value cache', before.kv_cache, now.kv_cache);
}

const describe = (value: unknown): string => (value === undefined ? 'nothing' : String(value));
