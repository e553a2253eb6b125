/**
 * Products with float weights: out[t][r] = sum over k of x[t][k] * w[r][k], rising k, multiply then add, one f32
 * accumulator per output. Weights are widened exactly as they are loaded:
 *
 *   f32    as they are
 *   bf16   the upper half of an f32: << 16
 *   f16    sign, exponent and mantissa shifted into f32's place and times 2^112, which sets the exponent right, also of
 *          subnormal values; infinities and NaN do not survive, and weights have none
 *
 * One line of a group holds column k of 16 rows, so one splat of x[t][k] multiplies it and no lane is ever summed with
 * its neighbour.
 */
import {
  add,
  and,
  constant,
  type Func,
  f32,
  hoistedConstant,
  type I32,
  i32,
  type Module,
  multiply,
  repeat,
  type Statement,
  subtract,
  type V128,
  v,
  when,
} from '../wasm/assembler.ts';
import { LANES } from './layout.ts';
import { bitsOf } from './record.ts';
import { type TileShape, tileFunc } from './tile.ts';

export type FloatStorage = 'f32' | 'f16' | 'bf16';

const bytesOf: Record<FloatStorage, number> = { f32: 4, f16: 2, bf16: 2 };
/** Keeps the sign and the shifted exponent and mantissa of a sign-extended f16. */
const HALF_MASK = 0x8fffffff;

/** Loads four weights at address + offset as f32. */
export function widener(f: Func, storage: FloatStorage): (address: I32, offset: number) => V128 {
  if (storage === 'f32') return v.load;
  if (storage === 'bf16') return (address, offset) => i32.shl(v.load16x4s(address, offset), 16);
  const [mask, factor] = [hoistedConstant(f, HALF_MASK), hoistedConstant(f, bitsOf(2 ** 112))];
  return (address, offset) => f32.mul(v.and(i32.shl(v.load16x4s(address, offset), 13), mask.get), factor.get);
}

/** Adds `matmul_STORAGE_TOKENS` to the module. */
export function floatTile(module: Module, storage: FloatStorage, { tokens, lanes }: TileShape): Func {
  const { f, x, xStride, w, out, outStride, steps, groups } = tileFunc(module, `matmul_${storage}_${tokens}`);
  const columns = lanes / 4;
  const lineBytes = LANES * bytesOf[storage];
  const sums = Array.from({ length: tokens }, () => f.array('v128', columns));
  const weights = f.array('v128', columns);
  const activation = f.local('v128');
  const [group, i, line] = [f.local('i32'), f.local('i32'), f.local('i32')];
  const [pointers, outs] = [f.array('i32', tokens), f.array('i32', tokens)];
  const widen = widener(f, storage);
  const unroll = tokens === 1 ? 4 : 2;

  const column = (u: number, pass: number): Statement[] => [
    ...weights.map((l, c) => l.set(widen(line.get, u * lineBytes + (pass * lanes + c * 4) * bytesOf[storage]))),
    ...sums.flatMap((row, t) => [
      activation.set(v.load32splat(pointers[t]!.get, u * 4)),
      ...row.map((s, c) => s.set(f32.madd(activation.get, weights[c]!.get, s.get))),
    ]),
  ];
  const walk = (count: I32, turn: number, pass: number): Statement =>
    when(count, [
      i.set(constant(0)),
      repeat(
        i,
        turn,
        count,
        ...Array.from({ length: turn }, (_, u) => column(u, pass)).flat(),
        line.set(add(line.get, constant(turn * lineBytes))),
        ...pointers.map((p) => p.set(add(p.get, constant(turn * 4)))),
      ),
    ]);
  const rest = and(steps.get, constant(unroll - 1));
  const onePass = (pass: number): Statement[] => [
    line.set(w.get),
    ...pointers.map((p, t) => p.set(add(x.get, multiply(xStride.get, constant(t))))),
    ...sums.flat().map((s) => s.set(f32.splatConstant(0))),
    walk(subtract(steps.get, rest), unroll, pass),
    walk(rest, 1, pass),
    ...sums.flatMap((row, t) => row.map((s, c) => v.store(outs[t]!.get, s.get, pass * lanes * 4 + c * 16))),
  ];
  return f.emit(
    ...outs.map((p, t) => p.set(add(out.get, multiply(outStride.get, constant(t))))),
    group.set(constant(0)),
    repeat(
      group,
      1,
      groups.get,
      ...Array.from({ length: LANES / lanes }, (_, pass) => onePass(pass)).flat(),
      w.set(line.get),
      ...outs.map((p) => p.set(add(p.get, constant(LANES * 4)))),
    ),
  );
}
