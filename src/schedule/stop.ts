/** Stop strings: found across pieces of text, never let through. */

export const MAX_STOPS = 64;
export const MAX_STOP_LENGTH = 4096;

/**
 * Lets text through until a stop string is complete. The stop that is complete first wins; of those complete at the same
 * character, the longest (which starts first). How the text is cut into pieces makes no difference, and only text that
 * may still become a stop is held back.
 */
export class StopMatcher {
  private readonly searches: readonly StopSearch[];
  private held = '';
  private found: string | undefined;

  /** @param stops non-empty strings (`validateGenerate` checks them) */
  constructor(stops: readonly string[]) {
    this.searches = stops.map((stop) => new StopSearch(stop));
  }

  /** Characters that are held back. */
  get heldLength(): number {
    return this.held.length;
  }

  /** Text that may be shown now; `stop` once a stop string is complete: nothing comes after it. */
  push(piece: string): { text: string; stop?: string } {
    if (this.found !== undefined) return { text: '', stop: this.found };
    const text = this.held + piece;
    for (let i = this.held.length; i < text.length; i++) {
      const unit = text.charCodeAt(i);
      let longest = '';
      for (const search of this.searches)
        if (search.advance(unit) && search.stop.length > longest.length) longest = search.stop;
      if (longest !== '') {
        this.found = longest;
        this.held = '';
        return { text: text.slice(0, i + 1 - longest.length), stop: longest };
      }
    }
    const hold = this.searches.reduce((most, search) => Math.max(most, search.matched), 0);
    this.held = text.slice(text.length - hold);
    return { text: text.slice(0, text.length - hold) };
  }

  /** What was held back and became no stop: the end of the text. */
  end(): string {
    const rest = this.held;
    this.held = '';
    return rest;
  }
}

/** One string searched for in a stream of UTF-16 units: Knuth, Morris, Pratt. */
class StopSearch {
  readonly stop: string;
  /** Length of the longest beginning of `stop` that the text ends in. */
  matched = 0;
  /** borders[n]: the longest proper beginning of stop[0..n) that it also ends in. */
  private readonly borders: Uint16Array;

  constructor(stop: string) {
    this.stop = stop;
    this.borders = new Uint16Array(stop.length + 1);
    for (let n = 1, border = 0; n < stop.length; n++) {
      while (border > 0 && stop[n] !== stop[border]) border = this.borders[border]!;
      if (stop[n] === stop[border]) border++;
      this.borders[n + 1] = border;
    }
  }

  /** @returns whether the stop is complete with this unit */
  advance(unit: number): boolean {
    while (this.matched > 0 && unit !== this.stop.charCodeAt(this.matched)) this.matched = this.borders[this.matched]!;
    if (unit === this.stop.charCodeAt(this.matched)) this.matched++;
    return this.matched === this.stop.length;
  }
}
