/** Corrects weights for inputs that have changed: solves with a factor, and multiplies rows of a weight by the solution. */
import {
  add,
  call,
  constant,
  doWhile,
  type Func,
  f32,
  type I32,
  type Local,
  lessUnsigned,
  type Module,
  multiply,
  repeat,
  shiftLeft,
  shiftRight,
  subtract,
  v,
  when,
} from '../../wasm/assembler.ts';
import { recordLayout } from '../record.ts';
import { gatherFunction } from './gather.ts';
import { everyPanel, PANEL, PANEL_ROW, stepParams } from './products.ts';

type Int = Local<'i32'>;

/** factors: panels of U with ones on its diagonal; y: `groups` panels of as many rows, `stride` bytes apart too. */
export const backRecord = recordLayout('factors', 'stride', 'columns', 'y', 'groups');

/** Exports the step kernel `back`: replaces each y by -z with U z = y. */
export function backKernel(module: Module): Func {
  const gather = gatherFunction(module);
  const f = module.func('back', ['i32', 'i32', 'i32']);
  const { record, thread, threads } = stepParams(f);
  const argument = (name: (typeof backRecord.names)[number]): I32 => backRecord.load(record, name);
  const [group, y, stride, columns] = f.array('i32', 4) as [Int, Int, Int, Int];
  const [end, start, k, other, last, factor] = f.array('i32', 6) as [Int, Int, Int, Int, Int, Int];
  const sums = f.array('v128', 4);
  const splat = f.local('v128');
  const rowAt = (index: I32): I32 => add(y.get, shiftLeft(index, constant(6)));
  const factorsAt = (panel: I32, row: I32): I32 =>
    add(add(argument('factors'), multiply(panel, stride.get)), shiftLeft(row, constant(6)));
  return f.emit(
    stride.set(argument('stride')),
    columns.set(argument('columns')),
    everyPanel(group, thread, threads, argument('groups'), [
      y.set(add(argument('y'), multiply(group.get, stride.get))),
      end.set(columns.get),
      doWhile(
        end.get,
        start.set(subtract(end.get, constant(PANEL))),
        k.set(start.get),
        repeat(
          k,
          4,
          end.get,
          call(
            gather,
            rowAt(k.get),
            rowAt(k.get),
            rowAt(end.get),
            factorsAt(shiftRight(end.get, constant(4)), k.get),
            shiftRight(subtract(columns.get, end.get), constant(4)),
            stride.get,
          ),
        ),
        // Within the panel, the last row first.
        k.set(end.get),
        last.set(rowAt(end.get)),
        doWhile(
          lessUnsigned(start.get, k.get),
          k.set(subtract(k.get, constant(1))),
          ...sums.map((sum, c) => sum.set(v.load(rowAt(k.get), 16 * c))),
          other.set(rowAt(add(k.get, constant(1)))),
          factor.set(
            add(
              factorsAt(shiftRight(start.get, constant(4)), k.get),
              shiftLeft(subtract(add(k.get, constant(1)), start.get), constant(2)),
            ),
          ),
          when(lessUnsigned(other.get, last.get), [
            repeat(
              other,
              PANEL_ROW,
              last.get,
              splat.set(v.load32splat(factor.get)),
              ...sums.map((sum, c) => sum.set(f32.madd(splat.get, v.load(other.get, 16 * c), sum.get))),
              factor.set(add(factor.get, constant(4))),
            ),
          ]),
          ...sums.map((sum, c) => v.store(rowAt(k.get), f32.neg(sum.get), 16 * c)),
        ),
        end.set(start.get),
      ),
    ]),
  );
}

/** w, out: groups of sixteen rows, [columns][16] each; matrix: panels. */
export const correctRecord = recordLayout('w', 'out', 'matrix', 'stride', 'columns', 'groups');

/** Exports the step kernel `correct`: out[k] = w[k] + sum over j of matrix[k][j] * w[j], for each row of the weight. */
export function correctKernel(module: Module): Func {
  const gather = gatherFunction(module);
  const f = module.func('correct', ['i32', 'i32', 'i32']);
  const { record, thread, threads } = stepParams(f);
  const argument = (name: (typeof correctRecord.names)[number]): I32 => correctRecord.load(record, name);
  const [group, offset, k, columns] = f.array('i32', 4) as [Int, Int, Int, Int];
  const at = (base: I32): I32 => add(add(base, offset.get), shiftLeft(k.get, constant(6)));
  return f.emit(
    columns.set(argument('columns')),
    everyPanel(group, thread, threads, argument('groups'), [
      offset.set(multiply(group.get, shiftLeft(columns.get, constant(6)))),
      k.set(constant(0)),
      repeat(
        k,
        4,
        columns.get,
        call(
          gather,
          at(argument('w')),
          at(argument('out')),
          add(argument('w'), offset.get),
          add(argument('matrix'), shiftLeft(k.get, constant(6))),
          shiftRight(columns.get, constant(4)),
          argument('stride'),
        ),
      ),
    ]),
  );
}
