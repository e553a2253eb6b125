/** Fixed storage policies, as rows beside a plan. */
import { decide, parsePolicy } from '../models/policy.ts';
import { type Storage, storageLayout } from '../quant/storage.ts';
import type { Choices, Picks, Unit } from './unit.ts';

/** Policies that a plan is compared with. */
export const fixedPolicies: readonly string[] = [
  'none',
  'q8_0',
  'q8_0:min-dim=1024',
  ...(Object.keys(storageLayout) as Storage[]).filter((type) => type !== 'f32' && type !== 'q8_0'),
];

const bitsOf = (storage: Storage): number => storageLayout[storage].bytes / storageLayout[storage].block;

/** The storage of a unit by a policy: of several weights in one tensor the largest. */
function storageBy(policy: string, { matrices, weights }: Unit): Storage {
  const parsed = parsePolicy(policy);
  // A table that is the output head too is stored as the head.
  const tied = weights.includes('output');
  return matrices
    .map(
      ({ name, role, shape, stored }) => decide(parsed, { name, role: tied ? 'output' : role, shape, stored }).storage,
    )
    .reduce((most, storage) => (bitsOf(storage) > bitsOf(most) ? storage : most));
}

/** What a policy chooses among the candidates; undefined if it chooses a storage that is no candidate. */
export function policyPicks(policy: string, choices: readonly Choices[]): Picks | undefined {
  const picks = choices.map(({ unit, candidates }) => {
    const storage = storageBy(policy, unit);
    return candidates.findIndex(({ type }) => type === storage);
  });
  return picks.every((pick) => pick >= 0) ? picks : undefined;
}
