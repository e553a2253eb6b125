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
  f32Multiply,
  hoistedConstant,
  i8,
  i16,
  i32,
  type Local,
  lessUnsigned,
  loadI32,
  type Module,
  multiply,
  notEqual,
  repeat,
  type Statement,
  storeF32,
  storeI32,
  subtract,
  type V128,
  v,
  when,
} from '../wasm/assembler.ts';
import { type ActivationFormat, activationBlockBytes, BLOCK, pairOf } from './layout.ts';
import { columnWise, rowWise, strideOf } from './loops.ts';
import { bitsOf, recordLayout } from './record.ts';

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
  const { compute, codes, largest } = blockCodes(f);
  const words = f.array('v128', BLOCK / 8);
  const [sums, upper] = [f.local('v128'), f.local('v128')];
  const ones = hoistedConstant(f, pairOf(1)).get;

  const block: Statement[] = [
    ...compute(from),
    ...words.map((word, n) => word.set(i16.narrowI32s(codes[2 * n]!.get, codes[2 * n + 1]!.get))),
    // Sums of both halves, in the end two i16 side by side.
    sums.set(i32.dotI16(i16.add(words[0]!.get, words[1]!.get), ones)),
    upper.set(i32.dotI16(i16.add(words[2]!.get, words[3]!.get), ones)),
    sums.set(i32.dotI16(i16.narrowI32s(sums.get, upper.get), ones)),
    sums.set(i32.dotI16(i16.narrowI32s(sums.get, sums.get), ones)),
    storeF32(to.get, f32Multiply(f32Div(largest.get, f32.constant(127)), f32.constant(2 ** 112))),
    storeI32(to.get, i32.lane(i16.narrowI32s(sums.get, sums.get), 0), 4),
    ...store(format, to, words),
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

/** One block of 32 values: its codes as i32, four per vector, and the largest magnitude, which is 127 times the scale. */
export interface BlockCodes {
  compute(from: Local<'i32'>): Statement[];
  readonly codes: readonly Local<'v128'>[];
  readonly largest: Local<'f32'>;
}

export function blockCodes(f: Func): BlockCodes {
  const held = (bits: number): V128 => hoistedConstant(f, bits).get;
  const [magnitude, most, infinity] = [held(0x7fffffff), held(bitsOf(127)), held(bitsOf(Infinity))];
  // Near 1.5 * 2^23 the spacing of f32 is 1: the sum rounds half to even, and its low bits are the integer.
  const magic = held(bitsOf(1.5 * 2 ** 23));
  const [top, inverse, product] = [f.local('v128'), f.local('v128'), f.local('v128')];
  const [codes, largest] = [f.array('v128', BLOCK / 4), f.local('f32')];
  const swapped = (distance: number): V128 =>
    v.shuffle(
      top.get,
      top.get,
      Array.from({ length: 16 }, (_, byte) => byte ^ distance),
    );
  const compute = (from: Local<'i32'>): Statement[] => [
    ...codes.map((value, n) => value.set(v.load(from.get, n * 16))),
    // Magnitudes are ordered as their bits are.
    top.set(codes.map((value) => v.and(value.get, magnitude)).reduce((a, b) => i32.maxS(a, b))),
    top.set(i32.maxS(top.get, swapped(8))),
    top.set(i32.maxS(top.get, swapped(4))),
    largest.set(f32.lane(top.get, 0)),
    // If the inverse is infinite (all values are 0 or tiny), the codes are 0.
    inverse.set(f32.div(most, top.get)),
    inverse.set(v.and(inverse.get, f32.ne(inverse.get, infinity))),
    ...codes.flatMap((value) => [
      product.set(f32.mul(value.get, inverse.get)),
      value.set(v.and(i32.sub(f32.add(product.get, magic), magic), f32.eq(product.get, product.get))),
    ]),
  ];
  return { compute, codes, largest };
}

function store({ values: kind }: ActivationFormat, to: Local<'i32'>, words: readonly Local<'v128'>[]): Statement[] {
  if (kind === 'int16') return words.map((word, n) => v.store(to.get, word.get, 8 + n * 16));
  return [0, 1].map((n) => v.store(to.get, i8.narrowI16s(words[2 * n]!.get, words[2 * n + 1]!.get), 8 + n * 16));
}
