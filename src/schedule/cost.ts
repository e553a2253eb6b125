/** Estimates the time of a forward from its number of rows: a line fitted to recent forwards. */

/** Factor of earlier forwards when one is added: about twenty recent ones matter. */
const MEMORY = 0.95;

export class StepCost {
  /** Weighted sums over forwards of 1, rows, rows^2, milliseconds, and rows * milliseconds. */
  readonly #sums = { n: 0, x: 0, xx: 0, y: 0, xy: 0 };

  record(rows: number, ms: number): void {
    const sums = this.#sums;
    for (const [key, value] of Object.entries({ n: 1, x: rows, xx: rows * rows, y: ms, xy: rows * ms }))
      sums[key as keyof typeof sums] = sums[key as keyof typeof sums] * MEMORY + value;
  }

  /** Most rows of a forward that takes at most `ms`; may be below 1. Undefined before the first forward. */
  rowsWithin(ms: number): number | undefined {
    const line = this.#line();
    return line && (ms - line.base) / line.slope;
  }

  /** Milliseconds of a forward of so many rows. Undefined before the first forward. */
  msOf(rows: number): number | undefined {
    const line = this.#line();
    return line && line.base + line.slope * rows;
  }

  /** Milliseconds of a forward without rows, and of each row. */
  #line(): { readonly base: number; readonly slope: number } | undefined {
    const { n, x, xx, y, xy } = this.#sums;
    if (n === 0) return undefined;
    const spread = n * xx - x * x;
    const slope = spread > 1e-6 * n * xx ? (n * xy - x * y) / spread : 0;
    const base = (y - slope * x) / n;
    // If sizes are equal, or make no difference, the time per row is an upper bound of the cost of a row.
    return slope > 0 && base > 0 ? { base, slope } : { base: 0, slope: Math.max(y, 1e-9) / x };
  }
}
