/** Packs pieces of 16 rows into lines of float formats (layout.ts): transposed in registers, or copied line by line. */

import type { FloatStorage } from '../quant/storage.ts';
import { add, and, constant, copyBytes, type Func, type Module, multiply, repeat, v, when } from '../wasm/assembler.ts';
import { convertedLoad, sourceBytes } from './convert.ts';
import { LANES } from './layout.ts';
import { transpose } from './transpose.ts';

/** Rows with other numbers of columns may be read beyond their end, up to the next multiple. */
export const COLUMN_MULTIPLE = 8;

/**
 * Adds `name(from, stride, columns, to)`: takes 16 rows that are `stride` bytes apart, `columns` values each, and writes as
 * many lines. Goes through scratch, one line per column, where `columns` is no multiple of COLUMN_MULTIPLE.
 */
export function transposeRows(module: Module, name: string, type: FloatStorage, target: FloatStorage): Func {
  const f = module.func(name, ['i32', 'i32', 'i32', 'i32']);
  const [from, stride, columns, to] = [f.param('i32', 0), f.param('i32', 1), f.param('i32', 2), f.param('i32', 3)];
  const [start, offset, line, end] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
  /** Rows per vector of a line, and so the side of the squares that are transposed. */
  const square = 16 / sourceBytes[target];
  const lineBytes = LANES * sourceBytes[target];
  const pointers = f.array('i32', square);
  const rows = f.array('v128', square);
  const load = convertedLoad(f, type, target);
  const transposed = transpose(f, rows);
  const ragged = and(columns.get, constant(COLUMN_MULTIPLE - 1));
  f.emit(
    start.set(to.get),
    when(ragged, [start.set(module.scratch)]),
    offset.set(constant(0)),
    repeat(
      offset,
      16,
      constant(lineBytes),
      ...pointers.flatMap((pointer) => [pointer.set(from.get), from.set(add(from.get, stride.get))]),
      line.set(add(start.get, offset.get)),
      end.set(add(line.get, multiply(columns.get, constant(lineBytes)))),
      repeat(
        line,
        square * lineBytes,
        end.get,
        ...rows.map((row, i) => row.set(load(pointers[i]!.get, 0))),
        ...transposed.statements,
        ...transposed.columns.map((column, i) => v.store(line.get, column.get, i * lineBytes)),
        ...pointers.map((pointer) => pointer.set(add(pointer.get, constant(square * sourceBytes[type])))),
      ),
    ),
    when(ragged, [copyBytes(to.get, module.scratch, multiply(columns.get, constant(lineBytes)))]),
  );
  return f;
}

/** Adds `name(from, stride, columns, to)`: takes `columns` lines of 16 values each, `stride` bytes apart. */
export function copyColumns(module: Module, name: string, type: FloatStorage, target: FloatStorage): Func {
  const f = module.func(name, ['i32', 'i32', 'i32', 'i32']);
  const [from, stride, columns, to] = [f.param('i32', 0), f.param('i32', 1), f.param('i32', 2), f.param('i32', 3)];
  const end = f.local('i32');
  const lineBytes = LANES * sourceBytes[target];
  const load = convertedLoad(f, type, target);
  const parts = f.array('v128', lineBytes / 16);
  f.emit(
    end.set(add(to.get, multiply(columns.get, constant(lineBytes)))),
    repeat(
      to,
      lineBytes,
      end.get,
      ...parts.map((part, i) => part.set(load(from.get, (i * 16) / sourceBytes[target]))),
      ...parts.map((part, i) => v.store(to.get, part.get, 16 * i)),
      from.set(add(from.get, stride.get)),
    ),
  );
  return f;
}
