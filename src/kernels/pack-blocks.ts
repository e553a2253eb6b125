/**
 * Quantizes pieces of 16 rows into lane-interleaved blocks of q8_0 and q4_0 (layout.ts).
 *
 *   rows      the file has a row's columns side by side: blocks become codes row by row, in scratch; then the codes of
 *             16 rows are transposed in the layout's units of 2 or 4 bytes
 *   columns   the file has a column's rows side by side: lanes are rows from the start
 */

import type { FloatStorage } from '../quant/storage.ts';
import {
  add,
  and,
  call,
  constant,
  divideUnsigned,
  type Func,
  f32,
  f32Abs,
  hoistedConstant,
  i8,
  i16,
  i32,
  type Local,
  loadF32,
  type Module,
  multiply,
  or,
  repeat,
  type Statement,
  shiftLeft,
  store16,
  storeF32,
  trailingZeros,
  type V128,
  v,
  when,
} from '../wasm/assembler.ts';
import { sourceBytes, widenedLoad } from './convert.ts';
import { BLOCK, LANES, stepBytes } from './layout.ts';
import { type BlockTarget, nibbles, quantizer } from './quantizer.ts';
import { acrossLanes, transpose } from './transpose.ts';

/** Largest number of columns of `quantizeRows`. */
export const ROW_COLUMNS = 256;

const ROW_BLOCKS = ROW_COLUMNS / BLOCK;

/** Offsets in the scratch area. */
const area = {
  /** Values as f32: one row, or 32 lines of 16 rows. */
  values: 0,
  /** Per block of a row four candidates, one of which is the largest value (q8_0: magnitude), and four for the smallest. */
  largest: 2048,
  smallest: 2048 + 16 * ROW_BLOCKS,
  /** Per block of a row. */
  inverses: 2560,
  extremes: 2624,
  /** Per block 16 f16, one per row. */
  scales: 3072,
  /** 16 rows of codes, to 8192. */
  codes: 4096,
};

/** The scales come first in a block. */
const SCALE_BYTES = 2 * LANES;

/**
 * Adds `name(from, stride, columns, to)`: takes 16 rows that are `stride` bytes apart, `columns` values each (a multiple
 * of 32, at most ROW_COLUMNS), and writes their blocks.
 */
export function quantizeRows(module: Module, name: string, type: FloatStorage, target: BlockTarget): Func {
  const signed = target.storage === 'q4_0';
  const rowBytes = signed ? ROW_COLUMNS / 2 : ROW_COLUMNS;
  const widen = widenRow(module, `${name}_widen`, type, signed);
  const f = module.func(name, ['i32', 'i32', 'i32', 'i32']);
  const [from, stride, columns, to] = [f.param('i32', 0), f.param('i32', 1), f.param('i32', 2), f.param('i32', 3)];
  const [row, values, block] = [f.local('i32'), f.local('i32'), f.local('i32')];
  const [end, codes, rowCodes] = [f.local('i32'), f.local('i32'), f.local('i32')];
  const by = f.local('v128');
  const q = quantizer(f, target);
  const decide = signed ? signedExtremes(f) : largestMagnitudes(f);

  const scaleFourBlocks = (first: number): Statement[] => [
    ...q.scales(decide(first)),
    v.store(module.scratch, q.inverse.get, area.inverses + 4 * first),
    ...[0, 1, 2, 3].map((i) =>
      store16(
        add(module.scratch, shiftLeft(row.get, constant(1))),
        i32.lane(q.half.get, i),
        area.scales + (first + i) * SCALE_BYTES,
      ),
    ),
  ];
  /** 16 codes from the values at `index` and on. */
  const sixteen = (index: number): V128 => {
    const four = (i: number): V128 => q.codes(v.load(values.get, 4 * (index + i)), by.get);
    return i8.narrowI16u(i16.narrowI32s(four(0), four(4)), i16.narrowI32s(four(8), four(12)));
  };
  const codeBlock = signed
    ? [v.store(codes.get, nibbles(f)(sixteen(0), sixteen(16)), area.codes)]
    : [v.store(codes.get, sixteen(0), area.codes), v.store(codes.get, sixteen(16), area.codes + 16)];

  f.emit(
    rowCodes.set(module.scratch),
    repeat(
      row,
      1,
      constant(LANES),
      call(widen, from.get, columns.get),
      ...Array.from({ length: ROW_BLOCKS / 4 }, (_, i) => scaleFourBlocks(4 * i)).flat(),
      values.set(module.scratch),
      block.set(module.scratch),
      end.set(add(values.get, shiftLeft(columns.get, constant(2)))),
      codes.set(rowCodes.get),
      repeat(
        values,
        4 * BLOCK,
        end.get,
        by.set(v.load32splat(block.get, area.inverses)),
        ...codeBlock,
        block.set(add(block.get, constant(4))),
        codes.set(add(codes.get, constant(rowBytes / ROW_BLOCKS))),
      ),
      from.set(add(from.get, stride.get)),
      rowCodes.set(add(rowCodes.get, constant(rowBytes))),
    ),
    ...interleaveCodes(f, target, rowBytes, columns, to),
  );
  return f;
}

/** Adds `name(from, columns)`: one row as f32 into scratch, with the candidates of each block. */
function widenRow(module: Module, name: string, type: FloatStorage, signed: boolean): Func {
  const f = module.func(name, ['i32', 'i32']);
  const [from, columns] = [f.param('i32', 0), f.param('i32', 1)];
  const [values, end, block] = [f.local('i32'), f.local('i32'), f.local('i32')];
  const load = widenedLoad(f, type);
  const magnitude = hoistedConstant(f, 0x7fffffff).get;
  const x = f.array('v128', BLOCK / 4);
  const [largest, smallest] = [f.local('v128'), f.local('v128')];
  const reduced = (combine: (a: V128, b: V128) => V128, of: (value: V128) => V128): V128 =>
    x.map((value) => of(value.get)).reduce(combine);
  const self = (value: V128): V128 => value;
  f.emit(
    values.set(module.scratch),
    block.set(module.scratch),
    end.set(add(values.get, shiftLeft(columns.get, constant(2)))),
    repeat(
      values,
      4 * BLOCK,
      end.get,
      ...x.map((value, i) => value.set(load(from.get, 4 * i))),
      ...x.map((value, i) => v.store(values.get, value.get, area.values + 16 * i)),
      ...(signed
        ? [
            largest.set(reduced(f32.pmax, self)),
            smallest.set(reduced(f32.pmin, self)),
            v.store(block.get, smallest.get, area.smallest),
          ]
        : // Magnitudes have the order of their bits as integers.
          [largest.set(reduced(i32.maxS, (value) => v.and(value, magnitude)))]),
      v.store(block.get, largest.get, area.largest),
      from.set(add(from.get, constant(BLOCK * sourceBytes[type]))),
      block.set(add(block.get, constant(16))),
    ),
  );
  return f;
}

/** The largest magnitudes of four blocks of a row. */
function largestMagnitudes(f: Func): (first: number) => V128 {
  const candidates = f.array('v128', 4);
  const reduce = acrossLanes(f, candidates, i32.maxS);
  return (first) => [...loadCandidates(f, candidates, area.largest + 16 * first), ...reduce];
}

const loadCandidates = (f: Func, candidates: readonly Local<'v128'>[], offset: number): Statement =>
  candidates.flatMap((c, i) => c.set(v.load(f.module.scratch, offset + 16 * i)));

/** The same with the sign of the first value that has the largest magnitude. */
function signedExtremes(f: Func): (first: number) => V128 {
  const { scratch } = f.module;
  const firstOf = firstExtreme(f.module, `${f.name}_first`);
  const candidates = f.array('v128', 4);
  const [largest, below, extremes] = [f.local('v128'), f.local('v128'), f.local('v128')];
  const zero = hoistedConstant(f, 0).get;
  const [greatest, least] = [acrossLanes(f, candidates, f32.pmax), acrossLanes(f, candidates, f32.pmin)];
  const bothSigns = v.and(f32.eq(largest.get, below.get), f32.ne(largest.get, zero));
  return (first) => [
    ...loadCandidates(f, candidates, area.largest + 16 * first),
    ...largest.set(greatest),
    ...loadCandidates(f, candidates, area.smallest + 16 * first),
    ...extremes.set(least),
    ...below.set(f32.neg(extremes.get)),
    ...extremes.set(v.bitselect(largest.get, extremes.get, f32.gt(largest.get, below.get))),
    ...when(v.anyTrue(bothSigns), [
      v.store(scratch, extremes.get, area.extremes),
      ...[0, 1, 2, 3].map((i) => {
        const values = add(scratch, constant(area.values + 4 * BLOCK * (first + i)));
        const at = area.extremes + 4 * i;
        return storeF32(scratch, call<'f32'>(firstOf, values, loadF32(scratch, at)), at);
      }),
      extremes.set(v.load(scratch, area.extremes)),
    ]),
    // For zeros the result is +0.
    ...v.and(extremes.get, f32.ne(extremes.get, zero)),
  ];
}

/** Adds `name(values, extreme)`: the first of 32 values with the magnitude of `extreme`. */
function firstExtreme(module: Module, name: string): Func {
  const f = module.func(name, ['i32', 'f32'], 'f32');
  const [values, extreme] = [f.param('i32', 0), f.param('f32', 1)];
  const magnitude = f.local('v128');
  const matches = Array.from({ length: BLOCK / 4 }, (_, i) =>
    shiftLeft(i32.bitmask(f32.eq(f32.abs(v.load(values.get, 16 * i)), magnitude.get)), constant(4 * i)),
  ).reduce(or);
  // NaN matches nothing: 32 trailing zeros.
  const index = and(trailingZeros(matches), constant(BLOCK - 1));
  return f.emit(magnitude.set(f32.splat(f32Abs(extreme.get))), loadF32(add(values.get, multiply(index, constant(4)))));
}

/** Writes the codes and scales of 16 rows from scratch to the layout at `to`. */
function interleaveCodes(
  f: Func,
  { storage, q8 }: BlockTarget,
  rowBytes: number,
  columns: Local<'i32'>,
  to: Local<'i32'>,
): Statement[] {
  const unit = storage === 'q8_0' ? q8.neighbours : 4;
  const blockBytes = rowBytes / ROW_BLOCKS;
  const square = 16 / unit;
  const [codes, scales, end] = [f.local('i32'), f.local('i32'), f.local('i32')];
  const rows = f.array('v128', square);
  const transposed = transpose(f, rows);
  const squareAt = (row: number, at: number): Statement[] => [
    ...rows.map((local, i) => local.set(v.load(codes.get, area.codes + (row + i) * rowBytes + at))),
    ...transposed.statements,
    ...transposed.columns.map((column, i) =>
      v.store(to.get, column.get, SCALE_BYTES + (at / unit + i) * LANES * unit + row * unit),
    ),
  ];
  const squares: Statement[] = [];
  for (let row = 0; row < LANES; row += square)
    for (let at = 0; at < blockBytes; at += 16) squares.push(...squareAt(row, at));
  return [
    codes.set(f.module.scratch),
    scales.set(f.module.scratch),
    end.set(add(codes.get, multiply(divideUnsigned(columns.get, constant(BLOCK)), constant(blockBytes)))),
    repeat(
      codes,
      blockBytes,
      end.get,
      v.store(to.get, v.load(scales.get, area.scales)),
      v.store(to.get, v.load(scales.get, area.scales + 16), 16),
      ...squares,
      scales.set(add(scales.get, constant(SCALE_BYTES))),
      to.set(add(to.get, constant(stepBytes(storage)))),
    ),
  ];
}

/**
 * Adds `name(from, stride, columns, to)`: takes 32 lines (`columns` is 32) of 16 rows each, `stride` bytes apart, and writes
 * one block.
 */
export function quantizeColumns(module: Module, name: string, type: FloatStorage, target: BlockTarget): Func {
  const signed = target.storage === 'q4_0';
  const f = module.func(name, ['i32', 'i32', 'i32', 'i32']);
  const [from, stride, to] = [f.param('i32', 0), f.param('i32', 1), f.param('i32', 3)];
  const [values, end] = [f.local('i32'), f.local('i32')];
  const load = widenedLoad(f, type);
  const magnitude = hoistedConstant(f, 0x7fffffff).get;
  const x = f.local('v128');
  const [extremes, inverses, halves] = [f.array('v128', 4), f.array('v128', 4), f.array('v128', 4)];
  const q = quantizer(f, target);
  const pair = nibbles(f);
  const quarters = [0, 1, 2, 3];

  const include = (extreme: Local<'v128'>): Statement =>
    extreme.set(
      signed
        ? v.bitselect(x.get, extreme.get, f32.gt(f32.abs(x.get), f32.abs(extreme.get)))
        : i32.maxS(extreme.get, v.and(x.get, magnitude)),
    );
  /** Codes of four rows in i32 lanes; `column` counts from the loop's position. */
  const code = (column: number, quarter: number): V128 =>
    q.codes(v.load(values.get, 64 * column + 16 * quarter), inverses[quarter]!.get);
  /** Neighbours along k, from `column` and on, side by side in each lane. */
  const joined = (column: number, count: number, quarter: number): V128 =>
    Array.from({ length: count }, (_, i) => i32.shl(code(column + i, quarter), 8 * i)).reduce(v.or);
  /** A line of the block holds `span` neighbours of each row (q4_0: and those 16 columns on). */
  const span = signed ? 4 : target.q8.neighbours;
  const line =
    span === 2
      ? [0, 2].map((c) => i16.narrowI32u(joined(0, 2, c), joined(0, 2, c + 1)))
      : quarters.map((c) => (signed ? pair(joined(0, 4, c), joined(16, 4, c)) : joined(0, 4, c)));

  f.emit(
    ...extremes.map((extreme) => extreme.set(v.bytes(0))),
    values.set(module.scratch),
    end.set(add(values.get, constant(64 * BLOCK))),
    repeat(
      values,
      64,
      end.get,
      ...extremes.flatMap((extreme, c) => [
        x.set(load(from.get, 4 * c)),
        v.store(values.get, x.get, area.values + 16 * c),
        include(extreme),
      ]),
      from.set(add(from.get, stride.get)),
    ),
    ...quarters.flatMap((c) => [
      ...q.scales(extremes[c]!.get),
      halves[c]!.set(q.half.get),
      inverses[c]!.set(q.inverse.get),
    ]),
    v.store(to.get, i16.narrowI32u(halves[0]!.get, halves[1]!.get)),
    v.store(to.get, i16.narrowI32u(halves[2]!.get, halves[3]!.get), 16),
    values.set(module.scratch),
    end.set(add(values.get, constant(64 * (signed ? BLOCK / 2 : BLOCK)))),
    repeat(
      values,
      64 * span,
      end.get,
      ...line.map((part, i) => v.store(to.get, part, SCALE_BYTES + 16 * i)),
      to.set(add(to.get, constant(LANES * span))),
    ),
  );
  return f;
}
