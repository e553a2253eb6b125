/** Compares the times of two runs and tells noise from change, row by row. */
import { LanewiseError } from '../errors.ts';
import type { SavedBench, SavedRow, Subject } from './saved.ts';
import { type Change, median, pairedChange, type Spread, spreadOf, unpairedChange, verdictOf } from './statistics.ts';

/** Fewest turns with which a confidence of 95 % can be reached. */
export const FEWEST_TURNS = 6;

export interface ComparedRow {
  readonly policy: string;
  readonly work: 'prefill' | 'decode';
  /** Milliseconds; those of a saved run are scaled to the machine's present speed. */
  readonly before: Spread;
  readonly now: Spread;
  /** now / before: above 1 is slower. */
  readonly change: Change;
  readonly verdict: string;
  /** Slower by more than the threshold, with 95 % confidence. */
  readonly failed: boolean;
}

/** @param threshold largest increase that passes; 0.05: 5 % */
function comparedRow(
  name: Pick<ComparedRow, 'policy' | 'work'>,
  samples: { readonly before: readonly number[]; readonly now: readonly number[]; readonly change: Change },
  threshold: number,
): ComparedRow {
  const { before, now, change } = samples;
  const found = verdictOf(change);
  const failed = found === 'regression' && change.ratio > 1 + threshold;
  const percent = `${Math.round(threshold * 1000) / 10} %`;
  const words = { regression: `slower, within ${percent}`, gain: 'faster', noise: 'no change' };
  return {
    ...name,
    before: spreadOf(before),
    now: spreadOf(now),
    change,
    verdict: failed ? `slower by more than ${percent}` : words[found],
    failed,
  };
}

/** Milliseconds of each turn of one policy. */
export type TurnTimes = Readonly<Record<ComparedRow['work'], readonly number[]>>;

/** Compares two sides that took turns, pair by pair. */
export function comparePairs(policy: string, before: TurnTimes, now: TurnTimes, threshold: number): ComparedRow[] {
  return (['prefill', 'decode'] as const).map((work) => {
    const change = pairedChange(before[work], now[work]);
    return comparedRow({ policy, work }, { before: before[work], now: now[work], change }, threshold);
  });
}

/**
 * Compares with a saved run. The speed of the machine may have changed since, so times are scaled by the rate measured in
 * the same turn: of memory reads for decode, of tile loops for prefill.
 */
export function compareSaved(before: SavedBench, now: SavedBench, threshold: number): ComparedRow[] {
  return now.rows.flatMap((row) => {
    const old = before.rows.find(({ policy }) => policy === row.policy)!;
    return (['prefill', 'decode'] as const).map((work) => {
      const roof = work === 'decode' ? 'read' : row.tile;
      // Scaled to a machine whose rate is the present median.
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

/** @throws LanewiseError if the two runs did not do the same work */
export function checkComparable(file: string, before: SavedBench, now: Omit<SavedBench, 'roofs' | 'rows'>): void {
  const differing = (what: string, old: unknown, present: unknown): void => {
    if (JSON.stringify(old) !== JSON.stringify(present))
      throw new LanewiseError(
        'NotComparable',
        `${file}: measured with ${what} ${describe(old)}, now ${describe(present)}`,
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
