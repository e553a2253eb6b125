/**
 * Normalisation of each of `groups` equal parts of a row, n = width / groups values each:
 *
 *   rms     out = x (1 / sqrt(mean(x^2) + eps)) w
 *   layer   out = (x - mean) (1 / sqrt(mean((x - mean)^2) + eps)) w + b       two passes for the variance
 *
 * w and b only where the variant has them.
 *
 * A sum over a group: 16 lanes over the whole lines of 16 values from the group's start, one more sum over the values
 * left; then that one and lanes 0 .. 15 in order. The order depends on n only.
 */
import {
  add,
  constant,
  divideUnsigned,
  type F32,
  type Func,
  f32,
  f32Add,
  f32Div,
  f32FromBits,
  f32FromI32,
  f32Multiply,
  f32Sqrt,
  f32Subtract,
  loadF32,
  type Module,
  multiply,
  repeat,
  type Statement,
  storeF32,
  type V128,
  v,
} from '../wasm/assembler.ts';
import { computeLine, eachRow, line, rowWise, span, storeLine, strideOf, sumLanes } from './loops.ts';
import { recordLayout } from './record.ts';

/**
 * x, out: rows of `width`; weight, bias (where the variant has them): [width / groups] f32; weightStep: bytes from the weight
 * of a group to that of the next, 0 where they share it; rows: address of the row count; eps: bits of an f32.
 */
export const normRecord = recordLayout('x', 'out', 'weight', 'bias', 'rows', 'width', 'groups', 'weightStep', 'eps');

export interface NormVariant {
  readonly kind: 'rms' | 'layer';
  readonly weighted: boolean;
  readonly biased: boolean;
}

/** The name that `normKernel` exports: `norm_rms_w`, `norm_layer_wb` ... */
export const normName = ({ kind, weighted, biased }: NormVariant): string =>
  `norm_${kind}${weighted || biased ? '_' : ''}${weighted ? 'w' : ''}${biased ? 'b' : ''}`;

/** Exports the step kernel `normName(variant)`. */
export function normKernel(module: Module, variant: NormVariant): Func {
  const { kind, weighted, biased } = variant;
  const kernel = rowWise(module, normName(variant), normRecord);
  const { f, first } = kernel;
  const centred = kind === 'layer';
  const [width, weight, bias] = [kernel.argument('width'), kernel.argument('weight'), kernel.argument('bias')];
  const [stride, n, group] = [f.local('i32'), f.local('i32'), f.local('i32')];
  const [x, out, from, w, b] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
  const [eps, mean, inverse, rest, single] = [
    f.local('f32'),
    f.local('f32'),
    f.local('f32'),
    f.local('f32'),
    f.local('f32'),
  ];
  const [means, inverses, vector] = [f.local('v128'), f.local('v128'), f.local('v128')];
  const values = line(f);

  const centre = (value: V128): V128 => (centred ? f32.sub(value, means.get) : value);
  const centreSingle = (value: F32): F32 => (centred ? f32Subtract(value, mean.get) : value);
  /** rest = the mean of `term` over the group. */
  const average = (term: (value: V128) => V128, termSingle: (value: F32) => F32): Statement[] => [
    from.set(x.get),
    rest.set(f32.constant(0)),
    ...values.map((sum) => sum.set(f32.splatConstant(0))),
    ...span(
      f,
      n.get,
      [from],
      values.map((sum, c) => sum.set(f32.add(sum.get, term(v.load(from.get, c * 16))))),
      [rest.set(f32Add(rest.get, termSingle(loadF32(from.get))))],
    ),
    from.set(module.scratch),
    ...storeLine(from, values),
    rest.set(f32Div(sumLanes(from.get, rest.get), f32FromI32(n.get))),
  ];
  const square = (value: V128): V128 => [...vector.set(centre(value)), ...f32.mul(vector.get, vector.get)];
  const squareSingle = (value: F32): F32 => [
    ...single.set(centreSingle(value)),
    ...f32Multiply(single.get, single.get),
  ];
  const scaled = (value: V128, c: number): V128 => {
    const normal = f32.mul(centre(value), inverses.get);
    const product = weighted ? f32.mul(normal, v.load(w.get, c * 16)) : normal;
    return biased ? f32.add(product, v.load(b.get, c * 16)) : product;
  };
  const scaledSingle = (value: F32): F32 => {
    const normal = f32Multiply(centreSingle(value), inverse.get);
    const product = weighted ? f32Multiply(normal, loadF32(w.get)) : normal;
    return biased ? f32Add(product, loadF32(b.get)) : product;
  };

  f.emit(
    stride.set(strideOf(width.get)),
    n.set(divideUnsigned(width.get, kernel.word('groups'))),
    eps.set(f32FromBits(kernel.word('eps'))),
    eachRow(
      kernel,
      x.set(add(kernel.word('x'), multiply(first.get, stride.get))),
      out.set(add(kernel.word('out'), multiply(first.get, stride.get))),
      group.set(constant(0)),
      repeat(
        group,
        1,
        kernel.word('groups'),
        ...(centred
          ? [
              ...average(
                (value) => value,
                (value) => value,
              ),
              mean.set(rest.get),
              means.set(f32.splat(mean.get)),
            ]
          : []),
        ...average(square, squareSingle),
        inverse.set(f32Div(f32.constant(1), f32Sqrt(f32Add(rest.get, eps.get)))),
        inverses.set(f32.splat(inverse.get)),
        w.set(add(weight.get, multiply(group.get, kernel.word('weightStep')))),
        b.set(bias.get),
        ...span(
          f,
          n.get,
          [x, out, ...(weighted ? [w] : []), ...(biased ? [b] : [])],
          computeLine(out, values, (c) => scaled(v.load(x.get, c * 16), c)),
          [storeF32(out.get, scaledSingle(loadF32(x.get)))],
        ),
      ),
    ),
  );
  return f;
}
