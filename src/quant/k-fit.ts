/**
 * Searches for good scales of the K types by weighted least squares. A candidate scale rounds the values to codes; for
 * these codes the best scale (and minimum) has a closed form; the candidate with the least weighted squared error wins.
 * The method is that of ggml's k-quants (https://github.com/ggml-org/llama.cpp/pull/1684); the code and the candidates are
 * our own, so the bytes are not those of llama.cpp.
 */

export interface Line {
  readonly scale: number;
  /** Subtracted, never negative. */
  readonly minimum: number;
}

/** A candidate divides the span of the values into a number of steps from a little below `most` to a little above. */
const CANDIDATES = 21;
const STEP = 0.1;
const candidate = (most: number, n: number): number => most + STEP * (n - (CANDIDATES - 1) / 2);

/** Most values per fit. Distances from the least value and weights are the same for all candidates of a fit. */
const MOST_VALUES = 32;
const distances = new Float64Array(MOST_VALUES);
const weights = new Float64Array(MOST_VALUES);
const weighted = new Float64Array(MOST_VALUES);

/**
 * Fits scale * q - minimum to the values, for codes q = 0 .. most. Large values have larger weights.
 * @param values `count` of them from `start` on, at most 32
 */
export function fitLine(values: Float32Array, start: number, count: number, most: number): Line {
  let [least, largest, squares] = [0, 0, 0];
  for (let i = start; i < start + count; i++) {
    const x = values[i]!;
    if (x < least) least = x;
    if (x > largest) largest = x;
    squares += x * x;
  }
  if (largest === least) return { scale: 0, minimum: 0 };
  const typical = Math.sqrt(squares / count);
  // Sums of w, w x and w x^2, with weights w.
  let [sw, sx, sxx] = [0, 0, 0];
  for (let i = 0; i < count; i++) {
    const x = values[start + i]!;
    const w = typical + Math.abs(x);
    distances[i] = x - least;
    weights[i] = w;
    weighted[i] = w * x;
    sw += w;
    sx += w * x;
    sxx += w * x * x;
  }
  let best: Line = { scale: (largest - least) / most, minimum: -least };
  let bestError = Number.POSITIVE_INFINITY;
  for (let n = 0; n < CANDIDATES; n++) {
    const inverse = candidate(most, n) / (largest - least);
    // Sums of w q, w q^2 and w q x.
    let [sq, sqq, sqx] = [0, 0, 0];
    for (let i = 0; i < count; i++) {
      const steps = (inverse * distances[i]! + 0.5) | 0;
      const q = Math.min(most, steps);
      const wq = weights[i]! * q;
      sq += wq;
      sqq += wq * q;
      sqx += weighted[i]! * q;
    }
    const determinant = sw * sqq - sq * sq;
    if (!(determinant > 0)) continue;
    let scale = (sw * sqx - sx * sq) / determinant;
    let minimum = (sq * sqx - sqq * sx) / determinant;
    if (minimum < 0) [scale, minimum] = [sqx / sqq, 0];
    const error =
      sxx + scale * scale * sqq + minimum * minimum * sw - 2 * (scale * sqx - minimum * sx + scale * minimum * sq);
    if (scale > 0 && error < bestError) [best, bestError] = [{ scale, minimum }, error];
  }
  return best;
}

/**
 * Fits scale * q, with a scale of either sign, to the values, for codes q = -half .. half - 1. A value's weight is its
 * square.
 * @param values `count` of them from `start` on, at most 32
 */
export function fitScale(values: Float32Array, start: number, count: number, half: number): number {
  let extreme = 0;
  for (let i = start; i < start + count; i++) if (Math.abs(values[i]!) > Math.abs(extreme)) extreme = values[i]!;
  if (extreme === 0) return 0;
  for (let i = 0; i < count; i++) {
    const x = values[start + i]!;
    weights[i] = x * x;
    weighted[i] = x * x * x;
  }
  let [best, most] = [extreme / -half, 0];
  for (let n = 0; n < CANDIDATES; n++) {
    const inverse = -candidate(half, n) / extreme;
    let [sqx, sqq] = [0, 0];
    for (let i = 0; i < count; i++) {
      // Adding half + 0.5 makes the sum positive, so that truncation rounds to nearest.
      const steps = ((inverse * values[start + i]! + half + 0.5) | 0) - half;
      const q = Math.min(half - 1, steps);
      sqx += weighted[i]! * q;
      sqq += weights[i]! * q * q;
    }
    // The squared error is a constant minus sqx^2 / sqq.
    if (sqq > 0 && sqx * sqx > most * sqq) [best, most] = [sqx / sqq, (sqx * sqx) / sqq];
  }
  return best;
}

export const clamp = (x: number, least: number, most: number): number => Math.max(least, Math.min(most, x));
