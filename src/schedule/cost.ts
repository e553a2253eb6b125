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
    const { n, x, xx, y, xy } = this.#sums;
    if (n === 0) return undefined;
    const spread = n * xx - x * x;
    const slope = spread > 1e-6 * n * xx ? (n * xy - x * y) / spread : 0;
    // If sizes are equal, or make no difference, the time per row is an upper bound of the cost of a row.
    if (!(slope > 0)) return (ms * x) / Math.max(y, 1e-9);
    const base = Math.max(0, (y - slope * x) / n);
    return base === 0 ? (ms * x) / y : (ms - base) / slope;
  }
}
