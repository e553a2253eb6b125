/**
 * Elementary functions over vectors of f32, strict multiply-then-add: the same bits on every machine.
 *
 * `exponential(f)` and the other functions put their constants into locals of `f` once and return a formula: statements that
 * replace the value of a local by the function of it. NaN stays NaN everywhere. Errors are relative unless said
 * otherwise, the largest over the dense grids of test/kernels/math.test.ts.
 */
import { type Func, f32, hoistedConstant, i32, type Local, type Statement, type V128, v } from '../wasm/assembler.ts';
import { bitsOf } from './record.ts';

/** Replaces the value of a local by a function of it. */
export type Formula = (x: Local<'v128'>) => readonly Statement[];

const held = (f: Func, value: number): V128 => hoistedConstant(f, bitsOf(value)).get;

/** ((c[0] x + c[1]) x + ...) x + c[n]. */
const horner = (coefficients: readonly V128[], x: V128): V128 =>
  coefficients.slice(1).reduce((sum, c) => f32.madd(sum, x, c), coefficients[0]!);

/** Interleaves the statements of several formulas, so that their dependency chains overlap. */
export const interleaved = (...chains: readonly (readonly Statement[])[]): Statement[] =>
  chains[0]!.flatMap((_, i) => chains.map((chain) => chain[i]!));

/**
 * e^x for x <= 88, error below 1.2e-7; exactly 0 below -87.3 and exactly 1 at 0.
 *
 * x = n ln 2 + r with |r| <= ln 2 / 2, e^x = 2^n (1 + (r + r^2 q(r))), q as in the Cephes library (S. Moshier), summed up
 * by Estrin's scheme. Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits; 127 more, and a shift makes
 * them the exponent of 2^n.
 */
export function exponential(f: Func): Formula {
  const scaled = scaledExponential(f, 0);
  const lowest = held(f, LOWEST_EXPONENT);
  return (x) => {
    const below = f.local('v128');
    return [below.set(f32.lt(x.get, lowest)), ...scaled(x), x.set(v.andNot(x.get, below.get))];
  };
}

const LOWEST_EXPONENT = -87.3;

/** The same times 2^power (0 <= power <= 126), for x <= 0; 2^power e^-87.3 below -87.3. */
export function scaledExponential(f: Func, power: number): Formula {
  const [log2e, magic, lowest, one] = [Math.LOG2E, 1.5 * 2 ** 23 + 127 + power, LOWEST_EXPONENT, 1].map((value) =>
    held(f, value),
  ) as V128[];
  const [ln2High, ln2Low] = [held(f, -0.693359375), held(f, 2.1219444e-4)];
  const [c5, c4, c3, c2, c1, c0] = [
    1.98756915e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1,
  ].map((c) => held(f, c)) as V128[];
  return (x) => {
    const [n, square] = [f.local('v128'), f.local('v128')];
    const [high, middle, low] = [f.local('v128'), f.local('v128'), f.local('v128')];
    return [
      // pmax keeps its first operand when that is NaN, as max does, and is one instruction.
      x.set(f32.pmax(x.get, lowest!)),
      n.set(f32.madd(x.get, log2e!, magic!)),
      low.set(f32.sub(n.get, magic!)),
      x.set(f32.madd(low.get, ln2High, x.get)),
      x.set(f32.madd(low.get, ln2Low, x.get)),
      square.set(f32.mul(x.get, x.get)),
      high.set(f32.madd(x.get, c5!, c4!)),
      middle.set(f32.madd(x.get, c3!, c2!)),
      low.set(f32.madd(x.get, c1!, c0!)),
      high.set(f32.madd(high.get, square.get, middle.get)),
      high.set(f32.madd(high.get, square.get, low.get)),
      x.set(f32.madd(high.get, square.get, x.get)),
      x.set(f32.mul(f32.add(x.get, one!), i32.shl(n.get, 23))),
    ];
  };
}

/** 1 / (1 + e^-x), error below 2e-7 for x >= -87.3, exactly 0 below. From e^-|x|, which cannot overflow. */
export function sigmoid(f: Func): Formula {
  const exp = exponential(f);
  const [one, sign, zero] = [1, -0, 0].map((value) => held(f, value)) as V128[];
  return (x) => {
    const negative = f.local('v128');
    return [
      negative.set(f32.lt(x.get, zero!)),
      x.set(v.or(x.get, sign!)),
      ...exp(x),
      x.set(f32.div(v.bitselect(x.get, one!, negative.get), f32.add(x.get, one!))),
    ];
  };
}

/** x / (1 + e^-x), error below 2.5e-7 for x >= -87.3, exactly 0 below. */
export function silu(f: Func): Formula {
  const gate = sigmoid(f);
  return (x) => {
    const x0 = f.local('v128');
    return [x0.set(x.get), ...gate(x), x.set(f32.mul(x0.get, x.get))];
  };
}

/**
 * x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) = x sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3)): without the
 * cancellation of 1 + tanh. The rounding of the sigmoid's argument u costs |u| 2^-23: error below 1e-6 for x >= -3.
 */
export function geluTanh(f: Func): Formula {
  const gate = sigmoid(f);
  const linear = held(f, Math.sqrt(8 / Math.PI));
  const cubic = held(f, Math.sqrt(8 / Math.PI) * 0.044715);
  return (x) => {
    const x0 = f.local('v128');
    return [
      x0.set(x.get),
      x.set(f32.mul(x.get, f32.madd(f32.mul(x.get, x.get), cubic, linear))),
      ...gate(x),
      x.set(f32.mul(x0.get, x.get)),
    ];
  };
}

/** Coefficients of t^9 .. t^1 in P below. */
const complementaryError = [
  -0.13055997679367976, 0.49090472667956975, -0.5240180939844422, 0.5620701692434976, -0.10529628156299704,
  0.21982314795842875, 0.14697781472344698, 0.17092396985335154, 0.16917450375841006,
];

/**
 * x Phi(x) with Phi(x) = erfc(-x / sqrt 2) / 2, which keeps its digits where 1 + erf(x / sqrt 2) loses them. With
 * z = |x| / sqrt 2 and t = 1 / (1 + 0.3 z): erfc(z) = e^(-z^2) P(t), P of degree 9 without a constant, interpolated at
 * Chebyshev nodes for z in [0, 9.6] to 2.4e-8. The rounding of z^2 costs z^2 2^-23: error below 1.2e-6 for x >= -3.
 */
export function gelu(f: Func): Formula {
  const exp = exponential(f);
  const [one, slope, minusHalf, zero] = [1, 0.3 * Math.SQRT1_2, -0.5, 0].map((value) => held(f, value)) as V128[];
  const halfP = complementaryError.map((c) => held(f, c / 2));
  // t^9, t^7 .. t and t^8 .. t^2: two shorter chains.
  const [odd, even] = [0, 1].map((parity) => halfP.filter((_, i) => i % 2 === parity)) as [V128[], V128[]];
  return (x) => {
    const [x0, t, square, half] = [f.local('v128'), f.local('v128'), f.local('v128'), f.local('v128')];
    return [
      x0.set(x.get),
      t.set(f32.div(one!, f32.madd(f32.abs(x.get), slope!, one!))),
      x.set(f32.mul(f32.mul(x.get, x.get), minusHalf!)),
      ...exp(x),
      square.set(f32.mul(t.get, t.get)),
      half.set(f32.madd(horner(even, square.get), t.get, horner(odd, square.get))),
      half.set(f32.mul(f32.mul(half.get, t.get), x.get)),
      x.set(f32.mul(x0.get, v.bitselect(half.get, f32.sub(one!, half.get), f32.lt(x0.get, zero!)))),
    ];
  };
}

/**
 * tanh x, error below 2e-7: as in the Cephes library (S. Moshier) x + x^3 P(x^2) for |x| < 0.625, where the other way would
 * lose digits, else (1 - e^-2|x|) / (1 + e^-2|x|) with the sign of x.
 */
export function tanh(f: Func): Formula {
  const exp = exponential(f);
  const [one, minusTwo, sign, border] = [1, -2, -0, 0.625].map((value) => held(f, value)) as V128[];
  const p = [-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 0.133314422036, -0.333332819422].map((c) =>
    held(f, c),
  );
  return (x) => {
    const [x0, size, square, near] = [f.local('v128'), f.local('v128'), f.local('v128'), f.local('v128')];
    return [
      x0.set(x.get),
      size.set(f32.abs(x.get)),
      square.set(f32.mul(x.get, x.get)),
      near.set(f32.madd(f32.mul(horner(p, square.get), square.get), size.get, size.get)),
      x.set(f32.mul(size.get, minusTwo!)),
      ...exp(x),
      x.set(f32.div(f32.sub(one!, x.get), f32.add(one!, x.get))),
      x.set(v.bitselect(near.get, x.get, f32.lt(size.get, border!))),
      x.set(v.or(x.get, v.and(x0.get, sign!))),
    ];
  };
}

/** cap tanh(x / cap): scores and logits stay within the cap. */
export function softcap(f: Func, cap: Local<'v128'>): Formula {
  const bend = tanh(f);
  return (x) => [x.set(f32.div(x.get, cap.get)), ...bend(x), x.set(f32.mul(x.get, cap.get))];
}

export function relu(f: Func): Formula {
  const zero = held(f, 0);
  return (x) => [x.set(f32.max(x.get, zero))];
}
