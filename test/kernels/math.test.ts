/** Elementary functions against double precision, over dense grids and extremes. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { exponential, type Formula, gelu, geluTanh, relu, sigmoid, silu, tanh } from '../../src/kernels/math.ts';
import { erfc, tanh as exactTanh, exp, expFloat } from '../../src/numbers.ts';
import { add, constant, type Func, type Module, repeat, v } from '../../src/wasm/assembler.ts';
import { Arena, assertSameBits } from './support.ts';

/** apply(x, out, end): the formula on [x, end), four values at a time. */
function applier(module: Module, formula: (f: Func) => Formula): void {
  const f = module.func('apply', ['i32', 'i32', 'i32']);
  const [x, out, end] = [f.param('i32', 0), f.param('i32', 1), f.param('i32', 2)];
  const values = f.array('v128', 2);
  const apply = formula(f);
  f.emit(
    repeat(
      x,
      32,
      end.get,
      ...values.flatMap((value, c) => [value.set(v.load(x.get, c * 16)), ...apply(value)]),
      ...values.map((value, c) => v.store(out.get, value.get, c * 16)),
      out.set(add(out.get, constant(32))),
    ),
  );
}

function evaluate(formula: (f: Func) => Formula, x: Float32Array): Float32Array {
  const [narrow, wide] = [false, true].map((width) => {
    const arena = new Arena(1 << 22);
    const { apply } = arena.compile((module) => applier(module, formula), width);
    const [from, to] = [arena.putF32(x), arena.take(x.byteLength)];
    apply!(from, to, from + x.byteLength);
    return arena.f32(to, x.length).slice();
  }) as [Float32Array, Float32Array];
  assertSameBits(wide, narrow, '256 and 128 bits');
  return narrow;
}

const COUNT = 1 << 16;
const grid = (from: number, to: number): Float32Array =>
  Float32Array.from({ length: COUNT }, (_, i) => from + ((to - from) * i) / COUNT);
/** Magnitudes from 1e-38 to `largest`, both signs. */
const decades = (largest: number): Float32Array =>
  Float32Array.from({ length: COUNT }, (_, i) => (i % 2 ? -1 : 1) * largest * 10 ** (-38 * (1 - i / COUNT)));

/** The largest |got - expected| / |expected| on a grid. */
function worst(formula: (f: Func) => Formula, x: Float32Array, expected: (x: number) => number): number {
  let largest = 0;
  evaluate(formula, x).forEach((got, i) => {
    const e = expected(x[i]!);
    if (got !== e) largest = Math.max(largest, Math.abs(got - e) / Math.abs(e));
  });
  return largest;
}

const definitions = {
  sigmoid: (x: number) => 1 / (1 + exp(-x)),
  silu: (x: number) => x / (1 + exp(-x)),
  geluTanh: (x: number) => x / (1 + exp(-2 * Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  gelu: (x: number) => (x * erfc(-x * Math.SQRT1_2)) / 2,
};

test('exp is right to 1.2e-7 from -87.3 to 88, exactly 1 at 0 and exactly 0 below', () => {
  const bound = 1.2e-7;
  for (const x of [grid(-87.3, 0), grid(0, 88), grid(-1e-3, 1e-3), decades(1)])
    assert.ok(worst(exponential, x, exp) <= bound);
  const x = Float32Array.of(0, -0, -87.4, -88, -1e3, -1e38, -Infinity, NaN);
  assert.deepEqual([...evaluate(exponential, x)], [1, 1, 0, 0, 0, 0, 0, NaN]);
});

test('tanh is right to 2e-7 everywhere, near 0 as well', () => {
  for (const x of [grid(-10, 10), grid(-0.7, 0.7)]) assert.ok(worst(tanh, x, exactTanh) <= 2e-7);
  // Below 1e-8 the definition itself is inaccurate.
  assert.deepEqual([...evaluate(tanh, Float32Array.of(1e-9, -1e-20, 1e-38, 0.25))].slice(0, 3), [
    ...Float32Array.of(1e-9, -1e-20, 1e-38),
  ]);
});

test('exp keeps NaN of any payload', () => {
  const x = new Float32Array(
    Uint32Array.of(0x7fc00001, 0xffc00001, 0x7fffffff, 0xffffffff, 0x7fc00100, 0x7fe00003, 0x7fc00002, 0xffc00080)
      .buffer,
  );
  assert.ok(evaluate(exponential, x).every(Number.isNaN));
});

test('sigmoid, silu: relative errors, both tails', () => {
  for (const x of [grid(-87, 0), grid(0, 87), grid(-4, 4), decades(1)]) {
    assert.ok(worst(sigmoid, x, definitions.sigmoid) <= 2e-7);
    assert.ok(worst(silu, x, definitions.silu) <= 2.5e-7);
  }
});

test('gelu, gelu_tanh: relative errors where the argument of exp is small, absolute ones beyond', () => {
  for (const [formula, definition, bound] of [
    [geluTanh, definitions.geluTanh, 1e-6],
    [gelu, definitions.gelu, 1.2e-6],
  ] as const) {
    for (const x of [grid(-3, 3), grid(3, 20), decades(1)]) assert.ok(worst(formula, x, definition) <= bound);
    const x = grid(-20, -3);
    for (const [i, got] of evaluate(formula, x).entries()) {
      assert.ok(Math.abs(got - definition(x[i]!)) <= bound * Math.abs(definition(-3)));
    }
  }
});

test('activations at the extremes: no overflow, signs of zero, NaN', () => {
  const x = Float32Array.of(0, -0, 1e38, -1e38, 1e20, -1e20, NaN, -100);
  for (const formula of [silu, gelu, geluTanh]) {
    assert.deepEqual([...evaluate(formula, x)], [0, -0, x[2], -0, x[4], -0, NaN, -0], formula.name);
  }
  assert.deepEqual([...evaluate(tanh, x)], [0, -0, 1, -1, 1, -1, NaN, -1]);
  assert.deepEqual([...evaluate(sigmoid, x)], [0.5, 0.5, 1, 0, 1, 0, NaN, 0]);
  assert.deepEqual([...evaluate(relu, x)], [0, 0, x[2], 0, x[4], 0, NaN, 0]);
});

test('expFloat has the bits of the exponential for x <= 0', () => {
  for (const x of [
    grid(-90, 0),
    grid(-1, 0),
    decades(80).map((value) => -Math.abs(value)),
    Float32Array.of(-0, 0, -Infinity, -87.3, -87.31, 0, 0, 0),
  ])
    assertSameBits(x.map(expFloat), evaluate(exponential, x), `from ${x[0]}`);
});
