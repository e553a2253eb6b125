/** Decides between the fastest plan by single measurements and fixed policies, by running them in turns. */
import { type Change, median, pairedChange } from '../measure/statistics.ts';
import { type Budget, speedCost } from './budget.ts';
import { policyPicks } from './policies.ts';
import { type Candidate, type Choices, type Picks, pickedOf } from './unit.ts';

/** A policy that ran in turns with the plan. */
export interface Rival {
  readonly name: string;
  /** Medians in milliseconds of a decode step. */
  readonly ms: number;
  readonly planMs: number;
  /** Time of the plan by time of the policy, with its 95 % interval. */
  readonly change: Change;
}

export interface Settled {
  readonly picks: Picks;
  readonly rivals: readonly Rival[];
  /** The policy that was taken instead, because the plan was not faster. */
  readonly instead?: string | undefined;
}

/** Policies that run against the plan: those with the least predicted time. */
const RIVALS = 2;

/** @param run times plans in turns: by plan, then by turn */
export async function settle(
  picks: Picks,
  choices: readonly Choices[],
  policies: readonly string[],
  budget: Budget,
  fixedBytes: number,
  run: (plans: readonly Picks[]) => Promise<readonly (readonly number[])[]>,
): Promise<Settled> {
  const sum = (some: Picks, of: (candidate: Candidate) => number): number =>
    pickedOf(choices, some).reduce((total, candidate) => total + of(candidate), 0);
  const loss = (some: Picks): number => sum(some, (candidate) => candidate.loss);
  const allowed = (some: Picks): boolean => {
    if (budget.kind !== 'speed') return false;
    const bytes = fixedBytes + sum(some, (candidate) => candidate.bytes);
    return (
      bytes <= (budget.bytes ?? Number.POSITIVE_INFINITY) && loss(some) <= (budget.loss ?? Number.POSITIVE_INFINITY)
    );
  };
  const rivals = policies
    .flatMap((name) => {
      const own = policyPicks(name, choices);
      return own && allowed(own) && own.some((pick, i) => pick !== picks[i]) ? [{ name, picks: own }] : [];
    })
    .sort((a, b) => sum(a.picks, speedCost) - sum(b.picks, speedCost))
    .slice(0, RIVALS);
  if (rivals.length === 0) return { picks, rivals: [] };
  const [own, ...others] = await run([picks, ...rivals.map((rival) => rival.picks)]);
  const results = rivals.map(({ name }, i): Rival => {
    const change = pairedChange(others[i]!, own!);
    return { name, ms: median(others[i]!), planMs: median(own!), change };
  });
  const best = results
    .map(({ change }) => change.ratio)
    .reduce((most, ratio, i, all) => (ratio > all[most]! ? i : most), 0);
  const { change, name } = results[best]!;
  const rival = rivals[best]!.picks;
  return change.ratio <= 1 ? { picks, rivals: results } : { picks: rival, rivals: results, instead: name };
}
