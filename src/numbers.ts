/**
 * Elementary functions in double precision with the same bits on every machine, made of + - * / and the bits of doubles.
 * Math.exp, Math.sin and so on may differ between JavaScript engines, so nothing that affects a logit or the choice of a
 * token may use them.
 */

/** ln 2 in two parts: the first has 21 trailing zero bits, so that k * LN2_HIGH is exact for |k| < 2^20. */
const LN2_HIGH = 0.6931471803691238;
const LN2_LOW = 1.9082149292705877e-10;

/** 1.5 * 2^52: adding it to |x| < 2^51 rounds x to the nearest integer. */
const ROUND = 6755399441055744;

const bits = new DataView(new ArrayBuffer(8));

/** 2^k for -1022 <= k <= 1023. */
function powerOfTwo(k: number): number {
  bits.setInt32(0, (k + 1023) << 20);
  bits.setInt32(4, 0);
  return bits.getFloat64(0);
}

/** 2^k at index -k, for k from -1021 to 0, the range of a softmax: faster than `powerOfTwo`. */
const NEGATIVE_POWERS = Float64Array.from({ length: 1022 }, (_, i) => powerOfTwo(-i));

/** 1 / n! */
const FACTORIAL = [1];
for (let n = 1, f = 1; n <= 13; n++) FACTORIAL.push(1 / (f *= n));
const [, , C2, C3, C4, C5, C6, C7, C8, C9, C10, C11, C12, C13] = FACTORIAL as unknown as readonly [
  number,
  number,
  number,
  number,
  number,
  number,
  number,
  number,
  number,
  number,
  number,
  number,
  number,
  number,
];

/**
 * e^x within 1 ulp (2 where the result is subnormal): x = k ln 2 + r with |r| <= ln(2) / 2, the Taylor series of e^r to
 * r^13 (the rest is below 2^-57), times 2^k.
 */
export function exp(x: number): number {
  if (!(x > -745.2)) return x <= -745.2 ? 0 : Number.NaN;
  if (x > 709.8) return Number.POSITIVE_INFINITY;
  const k = x * Math.LOG2E + ROUND - ROUND;
  const r = x - k * LN2_HIGH - k * LN2_LOW;
  const r2 = r * r;
  const r4 = r2 * r2;
  const low = C2 + C3 * r + (C4 + C5 * r) * r2;
  const middle = C6 + C7 * r + (C8 + C9 * r) * r2;
  const high = C10 + C11 * r + (C12 + C13 * r) * r2;
  const e = 1 + (r + r2 * (low + r4 * (middle + r4 * high)));
  if (k <= 0 && k > -1022) return e * NEGATIVE_POWERS[-k]!;
  return k > 0 ? e * 2 * powerOfTwo(k - 1) : e * powerOfTwo(k + 64) * powerOfTwo(-64);
}

/** 2^k for k from -127 to 0 at index -k. */
const FLOAT_POWERS = Float32Array.from({ length: 128 }, (_, i) => powerOfTwo(-i));

/** The constants of `exponential` in src/kernels/math.ts, rounded to f32. */
const [F_LOG2E, F_LOWEST, F_LN2_HIGH, F_LN2_LOW] = f32s(Math.LOG2E, -87.3, -0.693359375, 2.1219444e-4);
const [F5, F4, F3, F2, F1, F0] = f32s(
  1.98756915e-4,
  1.3981999507e-3,
  8.3334519073e-3,
  4.1665795894e-2,
  1.6666665459e-1,
  5.0000001201e-1,
);
/** 1.5 * 2^23: adding it rounds to the nearest integer. */
const F_ROUND = 12582912;

function f32s(...values: readonly number[]): [number, number, number, number, number, number] {
  return values.map(Math.fround) as [number, number, number, number, number, number];
}

/**
 * e^x for x <= 0 in f32, with the bits that the kernels' `exponential` (src/kernels/math.ts) computes: each operation is
 * rounded to f32. Exactly 0 below -87.3 and exactly 1 at 0.
 *
 * @param x a value of f32
 */
export function expFloat(x: number): number {
  const f = Math.fround;
  if (!(x >= F_LOWEST)) return 0;
  const k = f(f(f(x * F_LOG2E) + F_ROUND) - F_ROUND);
  const high = f(f(k * F_LN2_HIGH) + x);
  const r = f(f(k * F_LN2_LOW) + high);
  const r2 = f(r * r);
  const upper = f(f(r * F5) + F4);
  const middle = f(f(r * F3) + F2);
  const lower = f(f(r * F1) + F0);
  const q = f(f(f(f(upper * r2) + middle) * r2) + lower);
  return f(f(f(f(q * r2) + r) + 1) * FLOAT_POWERS[-k]!);
}

/** 2 / (2n + 3) */
const ATANH = Float64Array.from({ length: 11 }, (_, n) => 2 / (2 * n + 3));

/**
 * ln x within 1 ulp: x = 2^k (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)), s = f / (2 + f), z = s^2, and
 * ln(1 + f) = 2 atanh(s) = 2s + s R = f - s (f - R) with R = z (2/3 + z (2/5 + z (2/7 + ...))).
 */
export function log(x: number): number {
  if (!(x > 0)) return x === 0 ? Number.NEGATIVE_INFINITY : Number.NaN;
  if (x === Number.POSITIVE_INFINITY) return x;
  let k = 0;
  if (x < 2.2250738585072014e-308) {
    x *= 18014398509481984; // 2^54: out of the subnormal range
    k = -54;
  }
  bits.setFloat64(0, x);
  const high = bits.getInt32(0);
  // A mantissa above sqrt(2) (0x3ff6a09e...) belongs to the next power of two.
  const carry = ((high & 0xfffff) + 0x95f62) & 0x100000;
  k += (high >> 20) - 1023 + (carry >> 20);
  bits.setInt32(0, (high & 0xfffff) | (carry ^ 0x3ff00000));
  const f = bits.getFloat64(0) - 1;
  const s = f / (2 + f);
  const z = s * s;
  let series = 0;
  for (let n = ATANH.length - 1; n >= 0; n--) series = ATANH[n]! + z * series;
  return k * LN2_HIGH - (s * (f - z * series) - k * LN2_LOW - f);
}

/** x^y for x > 0, relative error below (2 + |y ln x|) 2^-52. */
export const pow = (x: number, y: number): number => exp(y * log(x));

/** pi / 2 in two parts: the first has 20 trailing zero bits, so that k * HALF_PI_HIGH is exact for |k| < 2^20. */
const HALF_PI_HIGH = 1.5707963267341256;
const HALF_PI_LOW = 6.077100506506192e-11;

/** 1 / n! with alternating signs for the series of sine (odd n) and cosine (even n), highest power first. */
const SINE = [17, 15, 13, 11, 9, 7, 5, 3].map((n) => (n % 4 === 1 ? 1 : -1) / factorial(n));
const COSINE = [16, 14, 12, 10, 8, 6, 4, 2].map((n) => (n % 4 === 0 ? 1 : -1) / factorial(n));

function factorial(n: number): number {
  return n < 2 ? 1 : n * factorial(n - 1);
}

/**
 * cos x and sin x within 3e-16 for |x| < 2^20: x = k pi/2 + r with |r| <= pi/4, the Taylor series of r (the rest is below
 * 2^-60), and the quadrant k mod 4.
 */
export function cosSin(x: number): [cos: number, sin: number] {
  const k = x * (2 / Math.PI) + ROUND - ROUND;
  const r = x - k * HALF_PI_HIGH - k * HALF_PI_LOW;
  const r2 = r * r;
  const cos = 1 + r2 * COSINE.reduce((sum, c) => sum * r2 + c, 0);
  const sin = r + r * r2 * SINE.reduce((sum, c) => sum * r2 + c, 0);
  switch (k & 3) {
    case 0:
      return [cos, sin];
    case 1:
      return [-sin, cos];
    case 2:
      return [-cos, -sin];
    default:
      return [sin, -cos];
  }
}

/** tanh x within 3e-16. */
export function tanh(x: number): number {
  const e = exp(-2 * Math.abs(x));
  const t = (1 - e) / (1 + e);
  return x < 0 ? -t : t;
}

/**
 * erfc x within 1e-15 (relative for x > 2). Below 2: 1 - erf x with erf x = 2/sqrt(pi) e^(-x^2) (x + 2x^3/3 + 4x^5/15 + ...)
 * (Abramowitz & Stegun 7.1.6); above: the continued fraction 7.1.14.
 */
export function erfc(x: number): number {
  const scale = exp(-x * x) / Math.sqrt(Math.PI);
  if (x < -2) return 2 - erfc(-x);
  if (x > 2) {
    let fraction = x;
    for (let n = 80; n >= 1; n--) fraction = x + n / 2 / fraction;
    return scale / fraction;
  }
  let [term, sum] = [2 * x, 2 * x];
  for (let n = 1; n < 60; n++) {
    term *= (2 * x * x) / (2 * n + 1);
    sum += term;
  }
  return 1 - scale * sum;
}
