/** Loops shared by step kernels: over the rows or columns of a thread, over spans of values, sums over lanes. */
import {
  add,
  and,
  constant,
  divideUnsigned,
  doWhile,
  type F32,
  type Func,
  f32Add,
  type I32,
  type Local,
  lessUnsigned,
  loadF32,
  loadI32,
  type Module,
  multiply,
  notEqual,
  repeat,
  type Statement,
  shiftRight,
  smaller,
  storeF32,
  subtract,
  type V128,
  v,
  when,
} from '../wasm/assembler.ts';
import type { RecordLayout } from './record.ts';

/** Values per line of a row buffer: rows are padded to whole lines of 64 bytes. */
export const LINE = 16;

/** Columns are divided among threads in multiples of a quantization block. */
const COLUMNS = 32;

/** A step kernel under construction. */
export interface StepKernel<Name extends string> {
  readonly f: Func;
  /** The argument of that name. */
  word(name: Name): I32;
  /** Sets a new local to the argument of that name. */
  argument(name: Name): Local<'i32'>;
  /** Rows of this thread; for column-wise kernels its columns. */
  readonly first: Local<'i32'>;
  readonly end: Local<'i32'>;
}

/** Starts `name(record, thread, threads)`, row-wise: the thread's rows are T * thread / threads and on. */
export const rowWise = <Name extends string>(
  module: Module,
  name: string,
  layout: RecordLayout<Name | 'rows'>,
): StepKernel<Name | 'rows'> =>
  shared(module, name, layout, (word, n, threads) => divideUnsigned(multiply(loadI32(word('rows')), n), threads));

/** Starts `name(record, thread, threads)`, column-wise: the thread takes `columnShare` of all rows. */
export const columnWise = <Name extends string>(
  module: Module,
  name: string,
  layout: RecordLayout<Name | 'rows' | 'width'>,
): StepKernel<Name | 'rows' | 'width'> =>
  shared(module, name, layout, (word, n, threads) => columnShare(word('width'), n, threads));

/**
 * First column of thread n, the same for every column-wise step and for products. Steps between two products then need no
 * barrier in front.
 */
export function columnShare(width: I32, n: I32, threads: I32): I32 {
  const blocks = divideUnsigned(add(width, constant(COLUMNS - 1)), constant(COLUMNS));
  const padded = multiply(divideUnsigned(add(width, constant(LINE - 1)), constant(LINE)), constant(LINE));
  return smaller(padded, multiply(divideUnsigned(multiply(blocks, n), threads), constant(COLUMNS)));
}

function shared<Name extends string>(
  module: Module,
  name: string,
  layout: RecordLayout<Name>,
  boundary: (word: (argument: Name) => I32, n: I32, threads: I32) => I32,
): StepKernel<Name> {
  const f = module.func(name, ['i32', 'i32', 'i32']);
  const [record, thread, threads] = [f.param('i32', 0), f.param('i32', 1), f.param('i32', 2)];
  const [first, end] = [f.local('i32'), f.local('i32')];
  const word = (argument: Name): I32 => layout.load(record, argument);
  f.emit(
    first.set(boundary(word, thread.get, threads.get)),
    end.set(boundary(word, add(thread.get, constant(1)), threads.get)),
  );
  return {
    f,
    word,
    argument(argument) {
      const local = f.local('i32');
      f.emit(local.set(word(argument)));
      return local;
    },
    first,
    end,
  };
}

/** For each of the thread's rows; `row` is the local it is counted in. */
export const eachRow = ({ first, end }: StepKernel<string>, ...body: readonly Statement[]): Statement =>
  when(lessUnsigned(first.get, end.get), [repeat(first, 1, end.get, ...body)]);

/**
 * For each line of the thread's rows, including padding; for elementwise formulas. The pointers start at row 0 of their
 * buffers and advance.
 */
export function eachLine(
  { f, first, end }: StepKernel<string>,
  width: I32,
  pointers: readonly Local<'i32'>[],
  body: readonly Statement[],
): Statement[] {
  const [stride, n, lines] = [f.local('i32'), f.local('i32'), f.local('i32')];
  return [
    stride.set(strideOf(width)),
    lines.set(shiftRight(multiply(subtract(end.get, first.get), stride.get), constant(6))),
    ...pointers.map((p) => p.set(add(p.get, multiply(first.get, stride.get)))),
    when(lines.get, [
      n.set(constant(0)),
      repeat(n, 1, lines.get, ...body, ...pointers.map((p) => p.set(add(p.get, constant(LINE * 4))))),
    ]),
  ];
}

/** For each line of the thread's columns, in all rows. The pointers start at row 0 of their buffers and advance. */
export function eachLineOfColumns(
  { f, first, end, word }: StepKernel<'rows' | 'width'>,
  pointers: readonly Local<'i32'>[],
  body: readonly Statement[],
): Statement[] {
  const [row, rows, line] = [f.local('i32'), f.local('i32'), f.local('i32')];
  const [lines, skipped] = [f.local('i32'), f.local('i32')];
  const advance = (bytes: I32): Statement[] => pointers.map((p) => p.set(add(p.get, bytes)));
  return [
    rows.set(loadI32(word('rows'))),
    lines.set(divideUnsigned(subtract(end.get, first.get), constant(LINE))),
    skipped.set(subtract(strideOf(word('width')), multiply(lines.get, constant(LINE * 4)))),
    ...advance(multiply(first.get, constant(4))),
    when(and(notEqual(rows.get, constant(0)), notEqual(lines.get, constant(0))), [
      row.set(constant(0)),
      repeat(
        row,
        1,
        rows.get,
        line.set(constant(0)),
        repeat(line, 1, lines.get, ...body, ...advance(constant(LINE * 4))),
        ...advance(skipped.get),
      ),
    ]),
  ];
}

/** Bytes per row: `width` values padded to whole lines. */
export const strideOf = (width: I32): I32 =>
  multiply(divideUnsigned(add(width, constant(LINE - 1)), constant(LINE)), constant(LINE * 4));

/**
 * Loops over `count` values: `wide` for every 16, then `single` for each of the rest. The pointers advance, so that every
 * address is pointer + constant offset.
 */
export function span(
  f: Func,
  count: I32,
  pointers: readonly Local<'i32'>[],
  wide: readonly Statement[],
  single: readonly Statement[],
): Statement[] {
  const left = f.local('i32');
  const advance = (bytes: number): Statement[] => pointers.map((p) => p.set(add(p.get, constant(bytes))));
  const turn = (values: number, body: readonly Statement[]): Statement => {
    const more = lessUnsigned(constant(values - 1), left.get);
    const step = [...body, ...advance(4 * values), left.set(subtract(left.get, constant(values)))];
    return when(more, [doWhile(more, ...step)]);
  };
  return [left.set(count), turn(LINE, wide), turn(1, single)];
}

/** The four vectors of a line. Each is computed into a local before the first store, so that V8 can pair them. */
export function line(f: Func): Local<'v128'>[] {
  return f.array('v128', LINE / 4);
}

/** Stores the vectors side by side. */
export const storeLine = (to: Local<'i32'>, values: readonly Local<'v128'>[]): Statement[] =>
  values.map((value, c) => v.store(to.get, value.get, c * 16));

/** out = value(c) for the four vectors of a line; through locals `values`. */
export const computeLine = (
  to: Local<'i32'>,
  values: readonly Local<'v128'>[],
  value: (c: number) => V128,
): Statement[] => [...values.map((local, c) => local.set(value(c))), ...storeLine(to, values)];

/** Copies `count` values. */
export function copyValues(f: Func, count: I32, from: Local<'i32'>, to: Local<'i32'>): Statement[] {
  const values = line(f);
  return span(
    f,
    count,
    [from, to],
    computeLine(to, values, (c) => v.load(from.get, c * 16)),
    [storeF32(to.get, loadF32(from.get))],
  );
}

/** The sum of the lanes of a line, through the 64 bytes at `scratch`, in the order of the lanes; plus `start`. */
export const sumLanes = (scratch: I32, start: F32): F32 =>
  Array.from({ length: LINE }, (_, lane) => loadF32(scratch, lane * 4)).reduce(f32Add, start);
