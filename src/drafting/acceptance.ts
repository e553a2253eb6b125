/** Estimates how often draft tokens are accepted, from recent ones. */

/** Factor of earlier counts when a token is added: per request, and over all requests. */
const REQUEST_MEMORY = 0.93;
const ALL_MEMORY = 0.98;
/** The acceptance over all requests weighs as much as this many draft tokens of the request itself. */
const PRIOR_WEIGHT = 3;

/** Accepted draft tokens and all that were checked. Tokens after a rejected one are not counted. */
export interface Counts {
  right: number;
  tried: number;
}

export const chanceOf = (own: Counts, all: Counts): number =>
  (own.right + (PRIOR_WEIGHT * all.right) / all.tried) / (own.tried + PRIOR_WEIGHT);

function add(counts: Counts, right: boolean, memory: number): void {
  counts.right = counts.right * memory + (right ? 1 : 0);
  counts.tried = counts.tried * memory + 1;
}

export function addGuess(own: Counts, all: Counts, right: boolean): void {
  add(own, right, REQUEST_MEMORY);
  add(all, right, ALL_MEMORY);
}
