/** Limits of a rendering: steps, characters, memory. Rendering is synchronous, so there is one budget at a time. */

/** An error while rendering. The interpreter adds line and column. */
export class Fault extends Error {}

export interface Limits {
  /** Statements, expressions and items processed. */
  readonly steps: number;
  /** Characters of the result, and of any intermediate text. */
  readonly characters: number;
}

/** Most items of a list that a template makes. */
const LARGEST_ITEMS = 2_000_000;
const CHARACTERS_PER_STEP = 16;
const ITEMS_PER_STEP = 1;

let limits: Limits = { steps: Number.POSITIVE_INFINITY, characters: Number.POSITIVE_INFINITY };
let spent = 0;

/** Runs `work` with its own limits. */
export function within<T>(own: Limits, work: () => T): T {
  const before = { limits, spent };
  limits = own;
  spent = 0;
  try {
    return work();
  } finally {
    ({ limits, spent } = before);
  }
}

/** Accounts for steps. @throws Fault beyond the limit */
export function spend(steps: number): void {
  spent += steps;
  if (spent > limits.steps) throw new Fault(`expected at most ${limits.steps} steps: does the template ever end?`);
}

/** Accounts for processing items. @throws Fault */
export function spendItems(items: number): void {
  if (items > LARGEST_ITEMS) throw new Fault(`expected values of at most ${LARGEST_ITEMS} parts`);
  spend(items / ITEMS_PER_STEP);
}

/** Accounts for reading or making a text. @throws Fault */
export function spendCharacters(characters: number): void {
  checkLength(characters);
  spend(characters / CHARACTERS_PER_STEP);
}

/** @throws Fault */
export function checkLength(characters: number): void {
  if (!(characters <= limits.characters)) throw new Fault(`expected texts of at most ${limits.characters} characters`);
}
