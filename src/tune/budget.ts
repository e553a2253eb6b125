/** What a storage plan is to keep, and what it is to make least. */
import { Frontier, type Option, sumOf } from './solve.ts';
import type { Candidate, Choices, Picks } from './unit.ts';

export type Budget =
  /** The least loss in a file of this size. */
  | (SizeLimit & { readonly kind: 'size' })
  /** The smallest file with at most this loss. */
  | { readonly kind: 'loss'; readonly loss: number }
  /** The fastest model, if given with at most this size or loss. */
  | (Partial<SizeLimit> & { readonly kind: 'speed'; readonly loss?: number | undefined });

export interface SizeLimit {
  readonly bytes: number;
  /** The largest size that rounds to the one that was given: taken only if no plan keeps `bytes`. Default: `bytes`. */
  readonly roundsTo?: number | undefined;
}

/** Share of the time of a row in a chunk (prompts) in what `speed` makes least; the time of a single row (decoding) counts fully. */
export const CHUNK_WEIGHT = 0.1;
/** Candidates whose times differ by less are equally fast: the one with less loss is taken. */
const SAME_SPEED = 0.01;

export const speedCost = ({ rowMs = 0, chunkRowMs = 0 }: Pick<Candidate, 'rowMs' | 'chunkRowMs'>): number =>
  rowMs + CHUNK_WEIGHT * chunkRowMs;

export interface Solved {
  readonly picks: Picks;
  /** How it was found, in words. */
  readonly solver: string;
}

/** Why there is no solution. */
export interface Unsolvable {
  /** The least bytes or loss that can be reached. */
  readonly least: number;
}

/** @param fixedBytes of the file besides the units */
export function solve(choices: readonly Choices[], fixedBytes: number, budget: Budget): Solved | Unsolvable {
  const options = (cost: keyof Cost, weight: keyof Cost): Option[][] =>
    choices.map(({ candidates }) =>
      candidates.map((candidate) => ({ cost: costs[cost](candidate), weight: costs[weight](candidate) })),
    );
  if (budget.kind === 'speed' && budget.bytes === undefined && budget.loss === undefined)
    return { picks: choices.map(fastest), solver: 'the fastest storage of each unit' };
  if (budget.kind === 'size' || (budget.kind === 'speed' && budget.bytes !== undefined)) {
    const units = options(budget.kind === 'size' ? 'loss' : 'speed', 'bytes');
    const { bytes, roundsTo = bytes } = budget as SizeLimit;
    const frontier = new Frontier(units, roundsTo - fixedBytes);
    const found = frontier.within(bytes - fixedBytes) ?? frontier.within(roundsTo - fixedBytes);
    return found
      ? { picks: found.picks, solver: solverOf(frontier, 'bytes') }
      : { least: frontier.leastWeight + fixedBytes };
  }
  const weight = budget.kind === 'loss' ? 'bytes' : 'speed';
  const units = options('loss', weight);
  const frontier = new Frontier(units);
  const found = frontier.reaching(budget.loss!);
  if (found) return { picks: found.picks, solver: solverOf(frontier, weight === 'bytes' ? 'bytes' : 'milliseconds') };
  const least = sumOf(
    units,
    units.map((some) => some.reduce((best, { cost }, i) => (cost < some[best]!.cost ? i : best), 0)),
  );
  return { least: least.cost };
}

const costs = {
  bytes: ({ bytes }: Candidate): number => bytes,
  loss: ({ loss }: Candidate): number => loss,
  speed: speedCost,
} as const;
type Cost = typeof costs;

const solverOf = ({ exact }: Frontier, what: string): string =>
  exact
    ? `exact dynamic programming over ${what}`
    : `dynamic programming over ${what} on a grid, rounded up, then greedy filling`;

function fastest({ candidates }: Choices): number {
  const times = candidates.map(speedCost);
  const least = Math.min(...times);
  const same = [...candidates.keys()].filter((i) => times[i]! <= least * (1 + SAME_SPEED));
  return same.reduce((best, i) => {
    const [a, b] = [candidates[best]!, candidates[i]!];
    return b.loss < a.loss || (b.loss === a.loss && b.bytes < a.bytes) ? i : best;
  });
}
