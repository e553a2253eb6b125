/** Finds stop strings across pieces of text. */

export const MAX_STOPS = 64;
export const MAX_STOP_LENGTH = 4096;

/**
 * Releases text up to a stop string. The stop string that is completed first wins; of several completed at the same
 * character, the longest (which starts first). The result does not depend on how the text is cut into pieces. Only text
 * that may become part of a stop string is held back.
 */
export class StopMatcher {
  private readonly searches: readonly StopSearch[];
  private held = '';
  private found: string | undefined;

  /** @param stops non-empty strings (`validateGenerate` checks them) */
  constructor(stops: readonly string[]) {
    this.searches = stops.map((stop) => new StopSearch(stop));
  }

  /** Number of characters held back. */
  get heldLength(): number {
    return this.held.length;
  }

  /**
   * Adds a piece and returns the text that can be shown; `stop` once a stop string is complete, after which there is no
   * text.
   */
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

  /** The text held back, at the end of the text. */
  end(): string {
    const rest = this.held;
    this.held = '';
    return rest;
  }
}

/** Searches for one string in a stream of UTF-16 code units (Knuth-Morris-Pratt). */
class StopSearch {
  readonly stop: string;
  /** Length of the longest prefix of `stop` that is a suffix of the text. */
  matched = 0;
  /** borders[n]: length of the longest proper prefix of stop[0..n) that is also its suffix. */
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

  /** Adds a code unit. @returns whether the stop string is complete */
  advance(unit: number): boolean {
    while (this.matched > 0 && unit !== this.stop.charCodeAt(this.matched)) this.matched = this.borders[this.matched]!;
    if (unit === this.stop.charCodeAt(this.matched)) this.matched++;
    return this.matched === this.stop.length;
  }
}
