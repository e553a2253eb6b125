/** Compares the rounds of one measurement: each policy against the first, turn by turn. */
import type { PhaseTimes } from '../node.ts';
import { bootstrapChange } from './bootstrap.ts';
import type { PolicyTimes } from './policies.ts';
import { type Change, median, type Spread, spreadOf, type Verdict, verdictOf } from './statistics.ts';

/** A change counts if its whole interval is beyond this: another placement in memory can make as much. */
export const SMALLEST_CHANGE = 0.01;

export interface RoundMetric {
  /** Milliseconds of each turn. */
  readonly turns: readonly number[];
  readonly spread: Spread;
  /** Against the first round; undefined for that itself. */
  readonly change?: Change;
  readonly verdict?: Verdict;
}

export const metricNames = ['decode', 'prefill', 'projection'] as const;
export type MetricName = (typeof metricNames)[number];

export interface Round {
  readonly times: PolicyTimes;
  /** Bytes of all weights. */
  readonly weightBytes: number;
  readonly metrics: Readonly<Record<MetricName, RoundMetric>>;
  /** Medians over the turns, of the prefill and of the first decode steps. */
  readonly steps: readonly PhaseTimes[];
}

/** @param rows that took turns, in the order of the rounds */
export function compareRounds(rows: readonly PolicyTimes[]): Round[] {
  const samples = rows.map(
    (row): Record<MetricName, number[]> => ({
      decode: row.turns.map((turn) => median(turn.decodeMs)),
      prefill: row.turns.map((turn) => turn.prefillMs),
      projection: row.turns.map((turn) => median(turn.projectionMs)),
    }),
  );
  return rows.map((row, index) => {
    const metric = (name: MetricName): RoundMetric => {
      const turns = samples[index]![name];
      const own = { turns, spread: spreadOf(turns) };
      if (index === 0) return own;
      const change = bootstrapChange(samples[0]![name], turns);
      return { ...own, change, verdict: verdictOf(change, SMALLEST_CHANGE) };
    };
    return {
      times: row,
      weightBytes: row.model.description.plan.weights.reduce((sum, { bytes }) => sum + bytes, 0),
      metrics: { decode: metric('decode'), prefill: metric('prefill'), projection: metric('projection') },
      steps: medianSteps(row),
    };
  });
}

function medianSteps({ turns }: PolicyTimes): PhaseTimes[] {
  return turns[0]!.phases.map((_, step) => {
    const middle = (name: keyof PhaseTimes): number => median(turns.map(({ phases }) => phases[step]![name]));
    return {
      embedding: middle('embedding'),
      layers: middle('layers'),
      norm: middle('norm'),
      projection: middle('projection'),
      total: middle('total'),
    };
  });
}

/** The change of a round's decode against another round's. */
export function decodeChange(round: Round, other: Round): { readonly change: Change; readonly verdict: Verdict } {
  const change = bootstrapChange(other.metrics.decode.turns, round.metrics.decode.turns);
  return { change, verdict: verdictOf(change, SMALLEST_CHANGE) };
}

/** Whether a round is slower than the first by more than the threshold, in a prefill or in decode. */
export const hasRegression = ({ metrics }: Round, threshold: number): boolean =>
  (['decode', 'prefill'] as const).some((name) => {
    const { change, verdict } = metrics[name];
    return verdict === 'regression' && change!.ratio > 1 + threshold;
  });
