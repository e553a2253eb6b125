/** What a forward takes by its number of rows: neither a line nor steady, so recent times are kept for each number. */

/** Times kept for each number of rows; their median counts, so that a slow one among them changes nothing. */
const RECENT = 7;
/** Times that make one number of rows known: fewer may all have been disturbed. */
const ENOUGH = 3;
/** Extra time of a row more than any known, as a share of the whole: low, so that it is tried and then known. */
const UNKNOWN_ROW = 0.02;

interface Times {
  readonly recent: number[];
  median: number;
  /** When the last one was recorded. */
  last: number;
}

export class RowTimes {
  readonly #times = new Map<number, Times>();
  #count = 0;

  record(rows: number, ms: number): void {
    const times = this.#times.get(rows) ?? { recent: [], median: ms, last: 0 };
    this.#times.set(rows, times);
    times.recent.push(ms);
    if (times.recent.length > RECENT) times.recent.shift();
    times.median = [...times.recent].sort((a, b) => a - b)[(times.recent.length - 1) >> 1]!;
    times.last = this.#count++;
  }

  /** Times recorded since one of this number of rows; Infinity where there was none. */
  since(rows: number): number {
    const times = this.#times.get(rows);
    return times ? this.#count - 1 - times.last : Number.POSITIVE_INFINITY;
  }

  /**
   * Estimated milliseconds: between two known numbers of rows on the line through them. A number that is not known yet takes
   * no more than the known ones let expect. Undefined while nothing has been recorded.
   */
  ms(rows: number): number | undefined {
    const own = this.#times.get(rows);
    if (own && own.recent.length >= ENOUGH) return own.median;
    let below: number | undefined;
    let above: number | undefined;
    for (const [count, { recent }] of this.#times) {
      if (recent.length < ENOUGH) continue;
      if (count < rows) below = Math.max(below ?? 0, count);
      if (count > rows) above = Math.min(above ?? Number.POSITIVE_INFINITY, count);
    }
    const at = (known: number): number => this.#times.get(known)!.median;
    let expected = own?.median;
    if (below !== undefined && above !== undefined)
      expected = at(below) + ((at(above) - at(below)) * (rows - below)) / (above - below);
    else if (below !== undefined) expected = at(below) * (1 + UNKNOWN_ROW * (rows - below));
    else if (above !== undefined) expected = at(above);
    if (expected === undefined) return this.#nearest(rows)?.median;
    return Math.min(expected, own?.median ?? expected);
  }

  /** Of the numbers of rows of which anything has been recorded. */
  #nearest(rows: number): Times | undefined {
    let best: number | undefined;
    for (const count of this.#times.keys())
      if (best === undefined || Math.abs(count - rows) < Math.abs(best - rows)) best = count;
    return best === undefined ? undefined : this.#times.get(best);
  }
}
