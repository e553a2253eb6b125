/** Recent times of forwards by number of rows, as they are neither linear nor constant. */

/** Times kept per number of rows. Their median is used, so that single slow ones do not matter. */
const RECENT = 7;
/** A number of rows counts as known from this many times on: fewer may all have been disturbed. */
const ENOUGH = 3;
/** Assumed extra time per row beyond the largest known number, as a share: low, so that larger numbers are tried. */
const UNKNOWN_ROW = 0.02;

interface Times {
  readonly recent: number[];
  median: number;
  /** Sequence number of the last record. */
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

  /** Number of records since the last one for this number of rows; Infinity if there was none. */
  since(rows: number): number {
    const times = this.#times.get(rows);
    return times ? this.#count - 1 - times.last : Number.POSITIVE_INFINITY;
  }

  /**
   * Estimated milliseconds: between two known numbers of rows linearly interpolated. For a number with too few times, the
   * estimate is at most the one from known numbers. Undefined before the first record.
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

  /** Times of the nearest number of rows that has any. */
  #nearest(rows: number): Times | undefined {
    let best: number | undefined;
    for (const count of this.#times.keys())
      if (best === undefined || Math.abs(count - rows) < Math.abs(best - rows)) best = count;
    return best === undefined ? undefined : this.#times.get(best);
  }
}
