/**
 * Products with float weights: out[t][r] = sum over k of x[t][k] * w[r][k], rising k, multiply then add, one f32
 * accumulator per output. Weights are widened exactly as they are loaded:
 *
 *   f32    as they are
 *   bf16   the upper half of an f32: << 16
 *   f16    sign, exponent and mantissa shifted into f32's place and times 2^112, which sets the exponent right, also of
 *          subnormal values; infinities and NaN do not survive, and weights have none
 *
 * One line of a group holds column k of 16 rows: it is multiplied by a splat of x[t][k], and there are no sums over lanes.
 */
import type { FloatStorage } from '../quant/storage.ts';
import {
  add,
  and,
  constant,
  type Func,
  f32,
  hoistedConstant,
  type I32,
  i32,
  type Local,
  type Module,
  repeat,
  type Statement,
  subtract,
  type V128,
  v,
  when,
} from '../wasm/assembler.ts';
import { LANES } from './layout.ts';
import type { Panel } from './matmul.ts';
import { bitsOf } from './record.ts';
import { panelFunc, rowFunc, type TileShape, TURN_BYTES, unpacker } from './tile.ts';

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

/** Adds `row_STORAGE` to the module. */
export function floatRow(module: Module, storage: FloatStorage): Func {
  const { f, x, w, out, steps, groups } = rowFunc(module, storage);
  const sums = f.array('v128', LANES / 4);
  const [group, pointer] = [f.local('i32'), f.local('i32')];
  const perTurn = TURN_BYTES / (LANES * bytesOf[storage]);
  const walk = columnWalk(f, storage, { sums: [sums], place: w, pointers: [pointer], turns: [perTurn, 4, 1] });
  return f.emit(
    group.set(constant(0)),
    repeat(
      group,
      1,
      groups.get,
      pointer.set(x.get),
      ...sums.map((s) => s.set(f32.splatConstant(0))),
      ...walk(steps.get, 0),
      ...sums.map((s, c) => v.store(out.get, s.get, c * 16)),
      out.set(add(out.get, constant(LANES * 4))),
    ),
  );
}

/** Adds `panel_STORAGE` to the module. */
export const floatPanel = (module: Module, storage: FloatStorage, shape: TileShape): Panel => ({
  f: panelFunc(module, storage, shape, (f) => {
    const sums = Array.from({ length: shape.tokens }, () => f.array('v128', shape.lanes / 4));
    const each = (statement: (sum: Local<'v128'>, t: number, c: number) => Statement): Statement[] =>
      sums.flatMap((row, t) => row.map((sum, c) => statement(sum, t, c)));
    return ({ place, pointers, steps, lane, load, store }) => [
      ...each((sum, t, c) => sum.set(load(t, c))),
      ...columnWalk(f, storage, { sums, place, pointers, turns: [2, 1] })(steps, lane),
      ...each((sum, t, c) => store(t, c, sum.get)),
    ];
  }),
  bytes: { w: LANES * bytesOf[storage], x: 4 },
});

interface Walk {
  readonly sums: readonly (readonly Local<'v128'>[])[];
  /** Addresses of the weights and of the rows of x; they advance. */
  readonly place: Local<'i32'>;
  readonly pointers: readonly Local<'i32'>[];
  /** Columns per turn of loops that follow each other, falling powers of 2, at last 1. */
  readonly turns: readonly number[];
}

/** Adds the products of columns, for the lanes from `lane` on, to the sums. */
function columnWalk(f: Func, storage: FloatStorage, { sums, place, pointers, turns }: Walk) {
  const lineBytes = LANES * bytesOf[storage];
  const weights = f.array('v128', sums[0]!.length);
  const [activation, i] = [f.local('v128'), f.local('i32')];
  const widen = widener(f, storage);
  const column = (u: number, lane: number): Statement[] => [
    ...weights.map((l, c) => l.set(widen(place.get, u * lineBytes + (lane + c * 4) * bytesOf[storage]))),
    ...sums.flatMap((row, t) => [
      activation.set(v.load32splat(pointers[t]!.get, u * 4)),
      ...row.map((s, c) => s.set(f32.madd(activation.get, weights[c]!.get, s.get))),
    ]),
  ];
  const walk = (count: I32, turn: number, lane: number): Statement =>
    when(count, [
      i.set(constant(0)),
      repeat(
        i,
        turn,
        count,
        ...Array.from({ length: turn }, (_, u) => column(u, lane)).flat(),
        place.set(add(place.get, constant(turn * lineBytes))),
        ...pointers.map((p) => p.set(add(p.get, constant(turn * 4)))),
      ),
    ]);
  return (steps: I32, lane: number): Statement[] => {
    let left = steps;
    return turns.map((turn) => {
      const rest = and(left, constant(turn - 1));
      const walked = walk(subtract(left, rest), turn, lane);
      left = rest;
      return walked;
    });
  };
}

/** Adds `unpack_STORAGE(w, to, count)`: lines to f32. */
export function unpackLines(module: Module, storage: FloatStorage): Func {
  return unpacker(module, storage, { from: LANES * bytesOf[storage], to: LANES * 4 }, (f, w, to) => {
    const widen = widener(f, storage);
    const values = f.array('v128', LANES / 4);
    return [
      ...values.map((value, c) => value.set(widen(w, c * 4 * bytesOf[storage]))),
      ...values.map((value, c) => v.store(to, value.get, c * 16)),
    ];
  });
}
