/**
 * Rows of activations quantized per block of 32 for block products, as src/quant/activations.ts defines it, in the layout
 * of ActivationFormat: f32 scale * 2^112 | i16 sums of both halves | 32 values.
 */
import {
  add,
  and,
  constant,
  divideUnsigned,
  doWhile,
  type Func,
  f32,
  f32Div,
  f32Max,
  f32Multiply,
  f32NotEqual,
  type I32,
  i8,
  i16,
  i32,
  type Local,
  lessUnsigned,
  loadF32,
  loadI32,
  type Module,
  multiply,
  notEqual,
  or,
  repeat,
  type Statement,
  select,
  shiftLeft,
  storeF32,
  storeI32,
  subtract,
  v,
  when,
} from '../wasm/assembler.ts';
import { type ActivationFormat, activationBlockBytes, BLOCK } from './layout.ts';
import { columnWise, rowWise, strideOf } from './loops.ts';
import { recordLayout } from './record.ts';

/** x: rows of f32, `width` values each; out: quantized rows, `outStride` bytes apart; rows: address of the row count. */
export const quantizeRowsRecord = recordLayout('x', 'out', 'outStride', 'rows', 'width');

/** The name that `quantizeRowsKernel` exports. */
export const quantizeName = ({ values }: ActivationFormat, divided: 'rows' | 'columns'): string =>
  `quantize_${values}${divided === 'rows' ? '' : '_columns'}`;

/** Exports the step kernel `quantizeName`, which divides its work in one way or the other. `width` is a multiple of 32. */
export function quantizeRowsKernel(module: Module, format: ActivationFormat, divided: 'rows' | 'columns'): Func {
  const frame = divided === 'rows' ? rowWise : columnWise;
  const kernel = frame(module, quantizeName(format, divided), quantizeRowsRecord);
  const { f } = kernel;
  const [x, out, xStride, outStride] = [
    kernel.argument('x'),
    kernel.argument('out'),
    f.local('i32'),
    kernel.argument('outStride'),
  ];
  const [from, to, end, bytes] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
  const [largest, inverse] = [f.local('f32'), f.local('f32')];
  const values = f.array('v128', BLOCK / 4);
  const [tops, sums, factor] = [f.array('v128', 2), f.array('v128', 2), f.local('v128')];
  const scratch = module.scratch;

  const absolute = (n: number) => f32.abs(values[n]!.get);
  const block: Statement[] = [
    ...values.map((value, n) => value.set(v.load(from.get, n * 16))),
    ...tops.map((top, half) => top.set([0, 2, 4, 6].map((n) => absolute(n + half)).reduce((a, b) => f32.max(a, b)))),
    v.store(scratch, f32.max(tops[0]!.get, tops[1]!.get)),
    largest.set([0, 4, 8, 12].map((at) => loadF32(scratch, at)).reduce((a, b) => f32Max(a, b))),
    // An infinite inverse (nothing or next to nothing in the block) makes zeros.
    inverse.set(f32Div(f32.constant(127), largest.get)),
    inverse.set(select(f32NotEqual(inverse.get, f32.constant(Number.POSITIVE_INFINITY)), inverse.get, f32.constant(0))),
    factor.set(f32.splat(inverse.get)),
    ...values.map((value) => value.set(i32.truncSat(f32.nearest(f32.mul(value.get, factor.get))))),
    ...sums.map((sum, half) =>
      sum.set([0, 1, 2, 3].map((n) => values[4 * half + n]!.get).reduce((a, b) => i32.add(a, b))),
    ),
    ...sums.map((sum, half) => v.store(scratch, sum.get, 16 * half)),
    storeF32(to.get, f32Multiply(f32Div(largest.get, f32.constant(127)), f32.constant(2 ** 112))),
    storeI32(to.get, or(and(total(scratch, 0), constant(0xffff)), shiftLeft(total(scratch, 16), constant(16))), 4),
    ...store(format, to, values),
  ];
  const locals = (): [Local<'i32'>, Local<'i32'>] => [f.local('i32'), f.local('i32')];
  const share: [Local<'i32'>, Local<'i32'>] = [kernel.first, kernel.end];
  const [row, rowEnd] = divided === 'rows' ? share : locals();
  const [column, columnEnd] = divided === 'columns' ? share : locals();
  f.emit(
    ...(divided === 'rows' ? [columnEnd.set(kernel.word('width'))] : [rowEnd.set(loadI32(kernel.word('rows')))]),
    xStride.set(strideOf(kernel.word('width'))),
    bytes.set(multiply(subtract(columnEnd.get, column.get), constant(4))),
    x.set(add(x.get, multiply(column.get, constant(4)))),
    out.set(
      add(out.get, multiply(divideUnsigned(column.get, constant(BLOCK)), constant(activationBlockBytes(format)))),
    ),
    when(and(lessUnsigned(row.get, rowEnd.get), notEqual(bytes.get, constant(0))), [
      repeat(
        row,
        1,
        rowEnd.get,
        from.set(add(x.get, multiply(row.get, xStride.get))),
        to.set(add(out.get, multiply(row.get, outStride.get))),
        end.set(add(from.get, bytes.get)),
        doWhile(
          lessUnsigned(from.get, end.get),
          ...block,
          from.set(add(from.get, constant(BLOCK * 4))),
          to.set(add(to.get, constant(activationBlockBytes(format)))),
        ),
      ),
    ]),
  );
  return f;
}

const total = (address: I32, offset: number): I32 =>
  [0, 4, 8, 12].map((at) => loadI32(address, offset + at)).reduce((a, b) => add(a, b));

function store({ values: kind }: ActivationFormat, to: Local<'i32'>, values: readonly Local<'v128'>[]): Statement[] {
  const words = [0, 1, 2, 3].map((n) => i16.narrowI32s(values[2 * n]!.get, values[2 * n + 1]!.get));
  if (kind === 'int16') return words.map((word, n) => v.store(to.get, word, 8 + n * 16));
  return [0, 1].map((n) => v.store(to.get, i8.narrowI16s(words[2 * n]!, words[2 * n + 1]!), 8 + n * 16));
}
