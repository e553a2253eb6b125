/** What a forward of so many rows takes on this machine: a line through the recent ones. */

/** Weight of what is known when a forward is added: some twenty recent ones count. */
const MEMORY = 0.95;

export class StepCost {
  /** Weighted sums over forwards: of 1, rows, rows squared, milliseconds, rows times milliseconds. */
  readonly #sums = { n: 0, x: 0, xx: 0, y: 0, xy: 0 };

  record(rows: number, ms: number): void {
    const sums = this.#sums;
    for (const [key, value] of Object.entries({ n: 1, x: rows, xx: rows * rows, y: ms, xy: rows * ms }))
      sums[key as keyof typeof sums] = sums[key as keyof typeof sums] * MEMORY + value;
  }

  /** Rows that a forward may have to take at most `ms`; undefined while nothing is known. May be less than 1. */
  rowsWithin(ms: number): number | undefined {
    const { n, x, xx, y, xy } = this.#sums;
    if (n === 0) return undefined;
    const spread = n * xx - x * x;
    const slope = spread > 1e-6 * n * xx ? (n * xy - x * y) / spread : 0;
    // Forwards of one size, or of sizes that make no difference, say what a row costs at most.
    if (!(slope > 0)) return (ms * x) / Math.max(y, 1e-9);
    const base = Math.max(0, (y - slope * x) / n);
    return base === 0 ? (ms * x) / y : (ms - base) / slope;
  }
}
