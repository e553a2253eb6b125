/** Measures how far rows of two models are apart. */

export interface Difference {
  /** Relative error of all rows together: |a - b| / |a|, with Euclidean norms. */
  readonly error: number;
  /** The largest relative error of a row. */
  readonly worst: number;
  /** Cosine of all rows together. */
  readonly cosine: number;
  /** Position of the first row whose relative error exceeds the tolerance; undefined if none does. */
  readonly first?: number | undefined;
  /** Position of the first row that differs at all. */
  readonly differs?: number | undefined;
}

/** Sums in f64. */
export class DifferenceMeter {
  readonly #tolerance: number;
  #squaresA = 0;
  #squaresB = 0;
  #squaresApart = 0;
  #products = 0;
  #worst = 0;
  #first: number | undefined;
  #differs: number | undefined;

  constructor(tolerance: number) {
    this.#tolerance = tolerance;
  }

  /** @param start position of the first of `count` rows */
  add(a: Float32Array, b: Float32Array, start: number, count: number): void {
    const width = a.length / count;
    for (let row = 0; row < count; row++) {
      let [squaresA, squaresB, apart, products] = [0, 0, 0, 0];
      for (let i = row * width; i < (row + 1) * width; i++) {
        const [x, y] = [a[i]!, b[i]!];
        squaresA += x * x;
        squaresB += y * y;
        apart += (x - y) * (x - y);
        products += x * y;
      }
      this.#squaresA += squaresA;
      this.#squaresB += squaresB;
      this.#squaresApart += apart;
      this.#products += products;
      const error = ratio(apart, squaresA);
      this.#worst = Math.max(this.#worst, error);
      // NaN is beyond every tolerance.
      if (!(error <= this.#tolerance)) this.#first ??= start + row;
      if (error !== 0) this.#differs ??= start + row;
    }
  }

  difference(): Difference {
    return {
      error: ratio(this.#squaresApart, this.#squaresA),
      worst: this.#worst,
      cosine: this.#squaresApart === 0 ? 1 : this.#products / Math.sqrt(this.#squaresA * this.#squaresB),
      first: this.#first,
      differs: this.#differs,
    };
  }
}

/** |d| / |a| of sums of squares; 0 for equal rows, even if they are zeros. */
const ratio = (apart: number, squares: number): number => (apart === 0 ? 0 : Math.sqrt(apart / squares));
