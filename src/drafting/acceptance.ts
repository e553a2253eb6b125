/** How often guesses were right, of late. */

/** Weight of what is known when a guess is added. */
const REQUEST_MEMORY = 0.93;
const ALL_MEMORY = 0.98;
/** Guesses of its own that weigh as much as what is known of all requests. */
const PRIOR_WEIGHT = 3;

/** Right guesses and all that could be right: those behind a wrong one tell nothing. */
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
