/** What a template may spend: steps, characters, memory. A rendering is synchronous, so that one budget at a time counts. */

/** A fault while rendering; the interpreter knows where. */
export class Fault extends Error {}

export interface Limits {
  /** Statements, expressions and items looked at. */
  readonly steps: number;
  /** Characters of any text made on the way, and of the result. */
  readonly characters: number;
}

/** Parts of a list or a number that a template makes may take so many bytes, roughly. */
const LARGEST_ITEMS = 2_000_000;
const CHARACTERS_PER_STEP = 16;
const ITEMS_PER_STEP = 1;

let limits: Limits = { steps: Number.POSITIVE_INFINITY, characters: Number.POSITIVE_INFINITY };
let spent = 0;

/** Does work within limits of its own. */
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

/** Takes work into account. @throws Fault beyond the limit */
export function spend(steps: number): void {
  spent += steps;
  if (spent > limits.steps) throw new Fault(`expected at most ${limits.steps} steps: an endless template?`);
}

/** Accounts for looking at items. @throws Fault */
export function spendItems(items: number): void {
  if (items > LARGEST_ITEMS) throw new Fault(`expected values of at most ${LARGEST_ITEMS} parts`);
  spend(items / ITEMS_PER_STEP);
}

/** Accounts for looking at, or making, a text. @throws Fault */
export function spendCharacters(characters: number): void {
  checkLength(characters);
  spend(characters / CHARACTERS_PER_STEP);
}

/** @throws Fault */
export function checkLength(characters: number): void {
  if (!(characters <= limits.characters)) throw new Fault(`expected texts of at most ${limits.characters} characters`);
}
