/**
 * The search for good scales: weighted least squares over candidates. A candidate scale rounds the values to codes; for
 * these codes the best scale (and minimum) has a closed form; the candidate with the least weighted squared error wins.
 * The method is that of ggml's k-quants (https://github.com/ggml-org/llama.cpp/pull/1684); the code and the candidates are
 * our own, so the bytes are not those of llama.cpp.
 */

export interface Line {
  readonly scale: number;
  /** Subtracted, never negative. */
  readonly minimum: number;
}

/** Candidates: the number of steps in the values' span, from below `most` to above it. */
const CANDIDATES = 21;
const STEP = 0.1;

/**
 * scale * q - minimum near the values, for codes q = 0 .. most. Large values weigh more.
 * @param values `count` of them from `start` on
 */
export function fitLine(values: Float32Array, start: number, count: number, most: number): Line {
  let [least, largest, squares] = [0, 0, 0];
  for (let i = start; i < start + count; i++) {
    least = Math.min(least, values[i]!);
    largest = Math.max(largest, values[i]!);
    squares += values[i]! ** 2;
  }
  if (largest === least) return { scale: 0, minimum: 0 };
  const typical = Math.sqrt(squares / count);
  let best: Line = { scale: (largest - least) / most, minimum: -least };
  let bestError = Number.POSITIVE_INFINITY;
  for (let n = 0; n < CANDIDATES; n++) {
    const inverse = (most + STEP * (n - (CANDIDATES - 1) / 2)) / (largest - least);
    // Sums of weights w: w, w x, w q, w q^2, w q x, w x^2.
    let [sw, sx, sq, sqq, sqx, sxx] = [0, 0, 0, 0, 0, 0];
    for (let i = start; i < start + count; i++) {
      const x = values[i]!;
      const q = clamp(Math.round(inverse * (x - least)), 0, most);
      const w = typical + Math.abs(x);
      sw += w;
      sx += w * x;
      sq += w * q;
      sqq += w * q * q;
      sqx += w * q * x;
      sxx += w * x * x;
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

/** A scale of either sign such that scale * q is near the values, for codes q = -half .. half - 1. Squares are weights. */
export function fitScale(values: Float32Array, start: number, count: number, half: number): number {
  let extreme = 0;
  for (let i = start; i < start + count; i++) if (Math.abs(values[i]!) > Math.abs(extreme)) extreme = values[i]!;
  if (extreme === 0) return 0;
  let [best, most] = [extreme / -half, 0];
  for (let n = 0; n < CANDIDATES; n++) {
    const inverse = -(half + STEP * (n - (CANDIDATES - 1) / 2)) / extreme;
    let [sqx, sqq] = [0, 0];
    for (let i = start; i < start + count; i++) {
      const x = values[i]!;
      const q = clamp(Math.round(inverse * x), -half, half - 1);
      sqx += x * x * q * x;
      sqq += x * x * q * q;
    }
    // The error is a constant minus sqx^2 / sqq.
    if (sqq > 0 && sqx * sqx > most * sqq) [best, most] = [sqx / sqq, (sqx * sqx) / sqq];
  }
  return best;
}

export const clamp = (x: number, least: number, most: number): number => Math.max(least, Math.min(most, x));
