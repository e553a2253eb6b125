/** Steps that move rows or add them up. */
import { add, constant, type Func, f32, loadI32, type Module, multiply, shiftLeft, v } from '../wasm/assembler.ts';
import { computeLine, copyValues, eachLine, eachRow, line, rowWise, strideOf } from './loops.ts';
import { recordLayout } from './record.ts';

/** x, out: rows of `width`; rows: address of the row count. */
export const addRecord = recordLayout('x', 'out', 'rows', 'width');
export const copyRecord = recordLayout('x', 'out', 'rows', 'width');
/** x: rows of `width`; indices: i32 for each row of `out`; rows: address of their count. */
export const selectRecord = recordLayout('x', 'out', 'indices', 'rows', 'width');

/** Exports the step kernel `add`: out += x. */
export function addKernel(module: Module): Func {
  const kernel = rowWise(module, 'add', addRecord);
  const [x, out, values] = [kernel.argument('x'), kernel.argument('out'), line(kernel.f)];
  const sum = computeLine(out, values, (c) => f32.add(v.load(out.get, c * 16), v.load(x.get, c * 16)));
  return kernel.f.emit(...eachLine(kernel, kernel.word('width'), [x, out], sum));
}

/** Exports the step kernel `copy`: out = x. */
export function copyKernel(module: Module): Func {
  const kernel = rowWise(module, 'copy', copyRecord);
  const [x, out, values] = [kernel.argument('x'), kernel.argument('out'), line(kernel.f)];
  const copied = computeLine(out, values, (c) => v.load(x.get, c * 16));
  return kernel.f.emit(...eachLine(kernel, kernel.word('width'), [x, out], copied));
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
