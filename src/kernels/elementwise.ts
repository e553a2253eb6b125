/** Steps that copy, add, scale or cap rows. */
import {
  add,
  constant,
  type Func,
  f32,
  f32FromBits,
  loadF32,
  loadI32,
  type Module,
  multiply,
  shiftLeft,
  v,
} from '../wasm/assembler.ts';
import { computeLine, copyValues, eachLine, eachRow, line, rowWise, storeLine, strideOf } from './loops.ts';
import { interleaved, softcap } from './math.ts';
import { recordLayout } from './record.ts';

/** base, x, out: rows of `width`; rows: address of the row count; scale: bits of an f32. */
export const addRecord = recordLayout('base', 'x', 'out', 'rows', 'width', 'scale');
/** out: rows of `width`; rows: address of the row count; factor, cap: bits of an f32, or the address of one. */
export const scaleRecord = recordLayout('out', 'rows', 'width', 'factor');
export const capRecord = recordLayout('out', 'rows', 'width', 'cap');
/** x, out: rows of `width`; rows: address of the row count. */
export const copyRecord = recordLayout('x', 'out', 'rows', 'width');
/** x: rows of `width`; indices: i32 for each row of `out`; rows: address of their count. */
export const selectRecord = recordLayout('x', 'out', 'indices', 'rows', 'width');

/** Exports the step kernel `add`: out = base + x scale. */
export function addKernel(module: Module): Func {
  const kernel = rowWise(module, 'add', addRecord);
  const { f } = kernel;
  const [base, x, out] = [kernel.argument('base'), kernel.argument('x'), kernel.argument('out')];
  const [values, scale] = [line(f), f.local('v128')];
  const sum = computeLine(out, values, (c) => f32.madd(v.load(x.get, c * 16), scale.get, v.load(base.get, c * 16)));
  return f.emit(
    scale.set(f32.splat(f32FromBits(kernel.word('scale')))),
    ...eachLine(kernel, kernel.word('width'), [base, x, out], sum),
  );
}

/** Exports the step kernel `scale`: out *= factor, or `scale_by`: the f32 at the address `factor`. */
export function scaleKernel(module: Module, from: 'record' | 'memory'): Func {
  const kernel = rowWise(module, from === 'record' ? 'scale' : 'scale_by', scaleRecord);
  const { f } = kernel;
  const [out, values, factor] = [kernel.argument('out'), line(f), f.local('v128')];
  const word = kernel.word('factor');
  return f.emit(
    factor.set(f32.splat(from === 'record' ? f32FromBits(word) : loadF32(word))),
    ...eachLine(
      kernel,
      kernel.word('width'),
      [out],
      computeLine(out, values, (c) => f32.mul(v.load(out.get, c * 16), factor.get)),
    ),
  );
}

/** Exports the step kernel `cap`: out = cap tanh(out / cap). */
export function capKernel(module: Module): Func {
  const kernel = rowWise(module, 'cap', capRecord);
  const { f } = kernel;
  const [out, values, cap] = [kernel.argument('out'), line(f), f.local('v128')];
  const capped = softcap(f, cap);
  return f.emit(
    cap.set(f32.splat(f32FromBits(kernel.word('cap')))),
    ...eachLine(
      kernel,
      kernel.word('width'),
      [out],
      [
        ...values.map((value, c) => value.set(v.load(out.get, c * 16))),
        ...interleaved(...values.map(capped)),
        ...storeLine(out, values),
      ],
    ),
  );
}

/** Exports the step kernel `copy`: out = x. */
export function copyKernel(module: Module): Func {
  const kernel = rowWise(module, 'copy', copyRecord);
  const [x, out, values] = [kernel.argument('x'), kernel.argument('out'), line(kernel.f)];
  const copied = computeLine(out, values, (c) => v.load(x.get, c * 16));
  return kernel.f.emit(...eachLine(kernel, kernel.word('width'), [x, out], copied));
}

/** x: rows of `width` from the first column wanted on, `xWidth` with all of them; out: rows of `width`. */
export const columnsRecord = recordLayout('x', 'xWidth', 'out', 'rows', 'width');

/** Exports the step kernel `columns`: out[t] = x[t][0 .. width). */
export function columnsKernel(module: Module): Func {
  const kernel = rowWise(module, 'columns', columnsRecord);
  const { f, first, word } = kernel;
  const [from, to] = [f.local('i32'), f.local('i32')];
  return f.emit(
    eachRow(
      kernel,
      from.set(add(word('x'), multiply(first.get, strideOf(word('xWidth'))))),
      to.set(add(word('out'), multiply(first.get, strideOf(word('width'))))),
      ...copyValues(f, word('width'), from, to),
    ),
  );
}

/** Exports the step kernel `select`: out[i] = x[indices[i]]. */
export function selectKernel(module: Module): Func {
  const kernel = rowWise(module, 'select', selectRecord);
  const { f, first, word } = kernel;
  const [stride, from, to] = [f.local('i32'), f.local('i32'), f.local('i32')];
  const index = loadI32(add(word('indices'), shiftLeft(first.get, constant(2))));
  return f.emit(
    stride.set(strideOf(word('width'))),
    eachRow(
      kernel,
      from.set(add(word('x'), multiply(index, stride.get))),
      to.set(add(word('out'), multiply(first.get, stride.get))),
      ...copyValues(f, word('width'), from, to),
    ),
  );
}
