/** The errors of columns already quantized, carried into columns that are not. Sixteen rows of a weight are lanes. */
import {
  add,
  constant,
  doWhile,
  type Func,
  f32,
  i8,
  i16,
  i32,
  type Local,
  lessUnsigned,
  type Module,
  multiply,
  repeat,
  type Statement,
  shiftLeft,
  subtract,
  type V128,
  v,
  when,
} from '../../wasm/assembler.ts';
import { PANEL_ROW } from './products.ts';

/** Bytes of one column of sixteen rows. */
export const COLUMN = 64;
/** Columns of a block whose scale is chosen at once. */
export const MOST_BLOCK = 32;
/** Bytes of a row of the square of factors of a block. */
const SQUARE_ROW = 4 * MOST_BLOCK;

/** Vectors of sixteen lanes. */
export type Lanes = readonly Local<'v128'>[];

/** Offsets in the scratch area. */
export const area = {
  /** Targets of the columns of a super-block. */
  targets: 0,
  /** Factors among the columns of a block. */
  square: 256 * COLUMN,
  /** Errors of the columns of a block while scales are tried. */
  errors: 256 * COLUMN + MOST_BLOCK * SQUARE_ROW,
  /** Scales and losses: one vector of sixteen lanes each. */
  lanes: 256 * COLUMN + MOST_BLOCK * SQUARE_ROW + MOST_BLOCK * COLUMN,
  /** Ideal values of a block, and ideal errors of a super-block. */
  values: 32 * 1024,
  ideal: 48 * 1024,
} as const;

/** Vectors of sixteen lanes in `area.lanes`. */
export const lane = {
  scale: area.lanes,
  inverse: area.lanes + 64,
  minimum: area.lanes + 128,
  loss: area.lanes + 192,
  extreme: area.lanes + 256,
  end: area.lanes + 320,
} as const;

/**
 * Adds `gather(initial, out, errors, factors, panels, stride)`: for four columns k, out[k] = initial[k] + sum over j of
 * factors[k][j] * errors[j], for the columns j of `panels` panels, `stride` bytes apart.
 */
export function gatherFunction(module: Module): Func {
  const f = module.func('gather', ['i32', 'i32', 'i32', 'i32', 'i32', 'i32']);
  const [initial, out, errors, factors, panels, stride] = [0, 1, 2, 3, 4, 5].map((n) => f.param('i32', n)) as [
    Local<'i32'>,
    Local<'i32'>,
    Local<'i32'>,
    Local<'i32'>,
    Local<'i32'>,
    Local<'i32'>,
  ];
  const n = f.local('i32');
  const sums = f.array('v128', 16);
  const error = f.array('v128', 4);
  const splat = f.local('v128');
  const column = (j: number): Statement[] => [
    ...error.map((e, c) => e.set(v.load(errors.get, COLUMN * j + 16 * c))),
    ...[0, 1, 2, 3].flatMap((k) => [
      splat.set(v.load32splat(factors.get, PANEL_ROW * k + 4 * j)),
      ...error.map((e, c) => {
        const sum = sums[4 * k + c]!;
        return sum.set(f32.madd(splat.get, e.get, sum.get));
      }),
    ]),
  ];
  return f.emit(
    ...sums.map((sum, i) => sum.set(v.load(initial.get, 16 * i))),
    when(panels.get, [
      n.set(constant(0)),
      repeat(
        n,
        1,
        panels.get,
        ...Array.from({ length: 16 }, (_, j) => column(j)).flat(),
        errors.set(add(errors.get, constant(16 * COLUMN))),
        factors.set(add(factors.get, stride.get)),
      ),
    ]),
    ...sums.map((sum, i) => v.store(out.get, sum.get, 16 * i)),
  );
}

/** How a value becomes a code. Locals and constants belong to the function that `rounding` was called for. */
export interface Rounding {
  /** The value that a target is rounded to. */
  value(target: V128, lanes: number): V128;
  /** Its code, from 0 to 255, as f32. */
  code(target: V128, lanes: number): V128;
}

export type MakeRounding = (f: Func, scale: Lanes, inverse: Lanes, minimum: Lanes) => Rounding;

/**
 * Adds `NAME(weights, targets, importance, columns, codes)`: quantizes a block's columns, the last first, with the scales in
 * scratch, each target with the errors of the columns behind it; leaves the sum of importance * (target - value)^2 in
 * `lane.loss`.
 *
 *   ideal    values are not rounded: leaves them in area.values, and the extreme of each row in lane.extreme
 *   trial    leaves the loss only
 *   final    replaces the weights by their errors, and writes codes of one byte, 16 per column
 */
export function blockFunction(
  module: Module,
  name: string,
  purpose: 'ideal' | 'trial' | 'final',
  make: MakeRounding,
): Func {
  const f = module.func(name, ['i32', 'i32', 'i32', 'i32', 'i32']);
  const [weights, targets, importance, columns, codes] = [0, 1, 2, 3, 4].map((n) => f.param('i32', n)) as [
    Local<'i32'>,
    Local<'i32'>,
    Local<'i32'>,
    Local<'i32'>,
    Local<'i32'>,
  ];
  const [k, at, end, factor] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
  const [target, loss, error, extreme] = [
    f.array('v128', 4),
    f.array('v128', 4),
    f.array('v128', 4),
    f.array('v128', 4),
  ];
  const [scale, inverse, minimum] = [f.array('v128', 4), f.array('v128', 4), f.array('v128', 4)];
  const splat = f.local('v128');
  const { scratch } = module;
  const rounding = make(f, scale, inverse, minimum);
  const columnAt = (base: V128 | Local<'i32'>['get']): Local<'i32'>['get'] =>
    add(base as Local<'i32'>['get'], shiftLeft(k.get, constant(6)));
  const load = (from: number, to: Lanes): Statement[] => to.map((t, c) => t.set(v.load(scratch, from + 16 * c)));
  const ideal = purpose === 'ideal';
  f.emit(
    ...(ideal ? [] : [...load(lane.scale, scale), ...load(lane.inverse, inverse), ...load(lane.minimum, minimum)]),
    ...(ideal ? extreme : loss).map((l) => l.set(v.bytes(0))),
    k.set(columns.get),
    end.set(add(add(scratch, constant(area.errors)), shiftLeft(columns.get, constant(6)))),
    doWhile(
      k.get,
      k.set(subtract(k.get, constant(1))),
      at.set(columnAt(targets.get)),
      ...target.map((t, c) => t.set(v.load(at.get, 16 * c))),
      factor.set(add(scratch, multiply(k.get, constant(SQUARE_ROW + 4)))),
      at.set(add(columnAt(scratch), constant(area.errors + COLUMN))),
      when(lessUnsigned(at.get, end.get), [
        repeat(
          at,
          COLUMN,
          end.get,
          splat.set(v.load32splat(factor.get, area.square + 4)),
          ...target.map((t, c) => t.set(f32.madd(splat.get, v.load(at.get, 16 * c), t.get))),
          factor.set(add(factor.get, constant(4))),
        ),
      ]),
      at.set(columnAt(weights.get)),
      ...(ideal
        ? [
            ...target.map((t, c) => error[c]!.set(f32.sub(v.load(at.get, 16 * c), t.get))),
            at.set(columnAt(scratch)),
            ...target.map((t, c) => v.store(at.get, t.get, area.values + 16 * c)),
            ...target.map((t, c) =>
              extreme[c]!.set(v.bitselect(t.get, extreme[c]!.get, f32.gt(f32.abs(t.get), f32.abs(extreme[c]!.get)))),
            ),
          ]
        : [
            // The value, in `extreme`, which only `ideal` needs.
            ...target.map((t, c) => extreme[c]!.set(rounding.value(t.get, c))),
            ...target.map((_, c) => error[c]!.set(f32.sub(v.load(at.get, 16 * c), extreme[c]!.get))),
            ...(purpose === 'final'
              ? [
                  ...error.map((e, c) => v.store(at.get, e.get, 16 * c)),
                  v.store(
                    add(codes.get, shiftLeft(k.get, constant(4))),
                    bytesOf(target.map((t, c) => rounding.code(t.get, c))),
                  ),
                ]
              : []),
            splat.set(v.load32splat(add(importance.get, shiftLeft(k.get, constant(2))))),
            ...target.map((t, c) => t.set(f32.sub(t.get, extreme[c]!.get))),
            ...target.map((t, c) => loss[c]!.set(f32.madd(f32.mul(t.get, t.get), splat.get, loss[c]!.get))),
            at.set(columnAt(scratch)),
          ]),
      ...error.map((e, c) => v.store(at.get, e.get, area.errors + 16 * c)),
    ),
    ...(ideal ? extreme : loss).map((l, c) => v.store(scratch, l.get, (ideal ? lane.extreme : lane.loss) + 16 * c)),
  );
  return f;
}

/** Sixteen integers below 256, given as f32, as bytes. */
function bytesOf([a, b, c, d]: readonly V128[]): V128 {
  const pair = (x: V128, y: V128): V128 => i16.narrowI32s(i32.truncSat(x), i32.truncSat(y));
  return i8.narrowI16u(pair(a!, b!), pair(c!, d!));
}

/** Adds `square(factors, rows, stride)`: copies the factors among a block's columns, from the block's first row on. */
export function squareFunction(module: Module): Func {
  const f = module.func('square', ['i32', 'i32', 'i32']);
  const [from, rows, stride] = [f.param('i32', 0), f.param('i32', 1), f.param('i32', 2)];
  const [to, end] = [f.local('i32'), f.local('i32')];
  return f.emit(
    stride.set(add(from.get, stride.get)),
    to.set(module.scratch),
    end.set(add(to.get, multiply(rows.get, constant(SQUARE_ROW)))),
    repeat(
      to,
      SQUARE_ROW,
      end.get,
      ...[0, 16, 32, 48].flatMap((at) => [
        v.store(to.get, v.load(from.get, at), area.square + at),
        v.store(to.get, v.load(stride.get, at), area.square + 64 + at),
      ]),
      from.set(add(from.get, constant(PANEL_ROW))),
      stride.set(add(stride.get, constant(PANEL_ROW))),
    ),
  );
}
