/**
 * What a draw is, in plain arithmetic: every backend gives the same id, whatever its threads.
 *
 * Let z be the logits of the row, those in `changed` replaced, without the tokens that `mask` leaves out, and M the largest
 * of them. The weight of a token is the integer nearest to 2^30 e^((z - M) / temperature), computed in f32 (`tokenWeight`).
 * Integers add up exactly in any order. Tokens are ordered by (logit falling, id rising) and cut in this order:
 *
 *   topK   keeps the first K tokens
 *   topP   keeps the shortest beginning that has topP of the weight that topK left
 *   minP   keeps tokens of at least minP times the largest weight
 *
 * The weights that are left lie end to end by rising id; the token on which `uniform` of their sum falls is the result.
 */
import { expFloat } from '../numbers.ts';
import type { Draw } from './backend.ts';
import { Selection } from './selection.ts';

/** Weight of the most probable token. */
export const UNIT = 2 ** 30;

/** Temperatures beyond make no difference: all weights are equal, or only those of the largest logits are left. */
const MOST_TEMPERATURE = 2 ** 100;

/** What (z - M) is multiplied by, in f32. */
export function inverseTemperature(temperature: number): number {
  const held = Math.fround(Math.min(Math.max(temperature, 1 / MOST_TEMPERATURE), MOST_TEMPERATURE));
  return Math.fround(1 / held);
}

/** Below this, (z - M) / temperature has no weight: ln 2^-31, and a little more for the rounding of f32. */
export const LEAST_EXPONENT = -21.6;

/** Weight of a token whose logit is `logit`; -Infinity has none. */
export function tokenWeight(logit: number, largest: number, inverse: number): number {
  const { fround } = Math;
  return Math.trunc(fround(expFloat(fround(fround(logit - largest) * inverse)) * UNIT + 0.5));
}

/** The smallest weight that minP keeps. */
export const leastWeight = (minP: number): number => Math.ceil(minP * UNIT);

/** Whether a token may come. */
export const allowedBy = (mask: Uint32Array, id: number): boolean => ((mask[id >>> 5]! >>> (id & 31)) & 1) === 1;

/** Index of the largest logit among those that may come, the lowest on a tie; -1 where there is none above -Infinity. */
export function largestAllowed(logits: Float32Array, mask: Uint32Array | undefined): number {
  let [best, value] = [-1, Number.NEGATIVE_INFINITY];
  for (let id = 0; id < logits.length; id++) {
    if (logits[id]! > value && (mask === undefined || allowedBy(mask, id))) [best, value] = [id, logits[id]!];
  }
  return best;
}

/**
 * The id of a draw, or -1 where no token is left.
 *
 * @param row [vocab]; not changed
 * @param selection arrays to work in
 */
export function drawFrom(row: Float32Array, draw: Omit<Draw, 'row'>, selection = new Selection()): number {
  const logits = draw.changed ? replaced(row, draw.changed) : row;
  const { mask, temperature, topK, topP, minP, uniform } = draw;
  const best = largestAllowed(logits, mask);
  if (best < 0 || temperature === 0) return best;
  const largest = logits[best]!;
  const inverse = inverseTemperature(temperature);
  const floor = largest + LEAST_EXPONENT / inverse;
  selection.load(logits, mask, (logit) => tokenWeight(logit, largest, inverse), floor);
  return drawCandidates(selection, { topK, topP, minP, uniform });
}

/** @param candidates all tokens that the cuts can leave, with their weights */
export function drawCandidates(
  candidates: Selection,
  { topK, topP, minP, uniform }: Pick<Draw, 'topK' | 'topP' | 'minP' | 'uniform'>,
): number {
  if (topK > 0) candidates.keepLargest(topK);
  if (topP < 1) candidates.keepMass(topP * candidates.totalMass);
  if (minP > 0) candidates.keepWeightsFrom(leastWeight(minP));
  return candidates.draw(uniform);
}

function replaced(row: Float32Array, { ids, logits }: NonNullable<Draw['changed']>): Float32Array {
  const copy = row.slice();
  for (let i = 0; i < ids.length; i++) copy[ids[i]!] = logits[i]!;
  return copy;
}
