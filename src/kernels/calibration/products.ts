/**
 * Sums of outer products in panels, for second moments and for the update of a factorization.
 *
 *   panel j of a matrix [rows, width]: its columns 16 j .. 16 j + 15, row by row, 64 bytes each
 */
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
  type Statement,
  select,
  shiftLeft,
  shiftRight,
  subtract,
  v,
  when,
} from '../../wasm/assembler.ts';
import { recordLayout } from '../record.ts';

/** Columns of a panel. */
export const PANEL = 16;
/** Bytes of a panel's row. */
export const PANEL_ROW = 4 * PANEL;

/** from: rows [rows, width] of f32, without padding; to: panels, `stride` bytes apart. */
export const panelsRecord = recordLayout('from', 'to', 'rows', 'width', 'stride');

/** Exports the step kernel `panels`, which copies rows into panels; threads take every so manieth panel. */
export function panelsKernel(module: Module): Func {
  const f = module.func('panels', ['i32', 'i32', 'i32']);
  const { record, thread, threads } = stepParams(f);
  const argument = (name: (typeof panelsRecord.names)[number]): I32 => panelsRecord.load(record, name);
  const [panel, from, to, end, rowBytes] = [
    f.local('i32'),
    f.local('i32'),
    f.local('i32'),
    f.local('i32'),
    f.local('i32'),
  ];
  return f.emit(
    rowBytes.set(shiftLeft(argument('width'), constant(2))),
    everyPanel(panel, thread, threads, shiftRight(argument('width'), constant(4)), [
      from.set(add(argument('from'), shiftLeft(panel.get, constant(6)))),
      to.set(add(argument('to'), multiply(panel.get, argument('stride')))),
      end.set(add(to.get, shiftLeft(argument('rows'), constant(6)))),
      repeat(
        to,
        PANEL_ROW,
        end.get,
        ...[0, 16, 32, 48].map((at) => v.store(to.get, v.load(from.get, at), at)),
        from.set(add(from.get, rowBytes.get)),
      ),
    ]),
  );
}

/**
 * out[16 i + a][16 j + b] (+ or -)= sum over r < rows of x[r][16 i + a] * y[r][16 j + b], for panels i of x from firstPanel to
 * endPanel and all panels j of y; triangular: only where i <= j. `out` has panels too.
 */
export const productsRecord = recordLayout(
  'x',
  'xStride',
  'y',
  'yStride',
  'rows',
  'out',
  'outStride',
  'firstPanel',
  'endPanel',
  'panels',
  'triangular',
);

/** Exports the step kernel `products` or `products_subtracted`; each element is summed by one thread, in order. */
export function productsKernel(module: Module, subtracts: boolean): Func {
  const name = subtracts ? 'products_subtracted' : 'products';
  const tile = tileFunction(module, `${name}_tile`, subtracts);
  const f = module.func(name, ['i32', 'i32', 'i32']);
  const { record, thread, threads } = stepParams(f);
  const argument = (of: (typeof productsRecord.names)[number]): I32 => productsRecord.load(record, of);
  const [i, j, end] = [f.local('i32'), f.local('i32'), f.local('i32')];
  const smallerOf = (a: I32, b: I32): I32 => select(lessUnsigned(a, b), a, b);
  return f.emit(
    everyPanel(j, thread, threads, argument('panels'), [
      i.set(argument('firstPanel')),
      end.set(
        select(argument('triangular'), smallerOf(argument('endPanel'), add(j.get, constant(1))), argument('endPanel')),
      ),
      when(lessUnsigned(i.get, end.get), [
        repeat(
          i,
          1,
          end.get,
          call(
            tile,
            add(argument('x'), multiply(i.get, argument('xStride'))),
            add(argument('y'), multiply(j.get, argument('yStride'))),
            argument('rows'),
            add(
              add(argument('out'), multiply(j.get, argument('outStride'))),
              multiply(i.get, constant(PANEL * PANEL_ROW)),
            ),
          ),
        ),
      ]),
    ]),
  );
}

/** Adds `name(x, y, rows, out)`: one tile of 16 x 16 sums, four rows of it at a time. */
function tileFunction(module: Module, name: string, subtracts: boolean): Func {
  const f = module.func(name, ['i32', 'i32', 'i32', 'i32']);
  const [x, y, rows, out] = [f.param('i32', 0), f.param('i32', 1), f.param('i32', 2), f.param('i32', 3)];
  const [xi, yj, end, quarter] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
  const sums = f.array('v128', 16);
  const columns = f.array('v128', 4);
  const splat = f.local('v128');
  const combine = subtracts ? f32.sub : f32.add;
  return f.emit(
    when(rows.get, [
      quarter.set(constant(0)),
      repeat(
        quarter,
        1,
        constant(4),
        ...sums.map((sum, n) => sum.set(v.load(out.get, 16 * n))),
        xi.set(x.get),
        yj.set(y.get),
        end.set(add(y.get, shiftLeft(rows.get, constant(6)))),
        repeat(
          yj,
          PANEL_ROW,
          end.get,
          ...columns.map((column, c) => column.set(v.load(yj.get, 16 * c))),
          ...[0, 1, 2, 3].flatMap((a) => [
            splat.set(v.load32splat(xi.get, 4 * a)),
            ...columns.map((column, c) => {
              const sum = sums[4 * a + c]!;
              return sum.set(combine(sum.get, f32.mul(splat.get, column.get)));
            }),
          ]),
          xi.set(add(xi.get, constant(PANEL_ROW))),
        ),
        ...sums.map((sum, n) => v.store(out.get, sum.get, 16 * n)),
        x.set(add(x.get, constant(16))),
        out.set(add(out.get, constant(4 * PANEL_ROW))),
      ),
    ]),
  );
}

/** matrix: panels of a square matrix, factored above row `first`; first, size: the rows to solve; panels: all of them. */
export const solveRecord = recordLayout('matrix', 'stride', 'panels', 'first', 'size');

/**
 * Exports the step kernel `solve`: for the columns right of a factored square U of `size` rows at `first`, replaces rows A by
 * the X with U^T X = A.
 */
export function solveKernel(module: Module): Func {
  const f = module.func('solve', ['i32', 'i32', 'i32']);
  const { record, thread, threads } = stepParams(f);
  const argument = (name: (typeof solveRecord.names)[number]): I32 => solveRecord.load(record, name);
  const [panel, row, before, x, u, start] = f.array('i32', 6) as [L, L, L, L, L, L];
  const [stride, size] = [f.local('i32'), f.local('i32')];
  const sums = f.array('v128', 4);
  const splat = f.local('v128');
  const first = argument('first');
  return f.emit(
    stride.set(argument('stride')),
    size.set(argument('size')),
    everyPanel(panel, thread, threads, argument('panels'), [
      when(lessUnsigned(shiftRight(add(first, subtract(size.get, constant(1))), constant(4)), panel.get), [
        start.set(add(add(argument('matrix'), multiply(panel.get, stride.get)), shiftLeft(first, constant(6)))),
        row.set(constant(0)),
        repeat(
          row,
          1,
          size.get,
          // Column first + row of U, from row `first` on.
          u.set(
            add(
              add(argument('matrix'), multiply(shiftRight(add(first, row.get), constant(4)), stride.get)),
              add(
                shiftLeft(first, constant(6)),
                shiftLeft(subtract(row.get, shiftLeft(shiftRight(row.get, constant(4)), constant(4))), constant(2)),
              ),
            ),
          ),
          x.set(add(start.get, shiftLeft(row.get, constant(6)))),
          ...sums.map((sum, c) => sum.set(v.load(x.get, 16 * c))),
          x.set(start.get),
          before.set(constant(0)),
          when(row.get, [
            repeat(
              before,
              1,
              row.get,
              splat.set(v.load32splat(u.get)),
              ...sums.map((sum, c) => sum.set(f32.sub(sum.get, f32.mul(splat.get, v.load(x.get, 16 * c))))),
              u.set(add(u.get, constant(PANEL_ROW))),
              x.set(add(x.get, constant(PANEL_ROW))),
            ),
          ]),
          splat.set(v.load32splat(u.get)),
          ...sums.map((sum, c) => v.store(x.get, f32.div(sum.get, splat.get), 16 * c)),
        ),
      ]),
    ]),
  );
}

/** matrix: panels of a factor U; factors: f32 for each row. */
export const scaleRowsRecord = recordLayout('matrix', 'stride', 'panels', 'factors');

/** Exports the step kernel `scale_rows`: row k of the upper triangle times factors[k]. */
export function scaleRowsKernel(module: Module): Func {
  const f = module.func('scale_rows', ['i32', 'i32', 'i32']);
  const { record, thread, threads } = stepParams(f);
  const argument = (name: (typeof scaleRowsRecord.names)[number]): I32 => scaleRowsRecord.load(record, name);
  const [panel, at, end, factor] = f.array('i32', 4) as [L, L, L, L];
  const splat = f.local('v128');
  return f.emit(
    everyPanel(panel, thread, threads, argument('panels'), [
      at.set(add(argument('matrix'), multiply(panel.get, argument('stride')))),
      end.set(add(at.get, multiply(add(panel.get, constant(1)), constant(PANEL * PANEL_ROW)))),
      factor.set(argument('factors')),
      repeat(
        at,
        PANEL_ROW,
        end.get,
        splat.set(v.load32splat(factor.get)),
        ...[0, 16, 32, 48].map((c) => v.store(at.get, f32.mul(v.load(at.get, c), splat.get), c)),
        factor.set(add(factor.get, constant(4))),
      ),
    ]),
  );
}

type L = Local<'i32'>;

export function stepParams(f: Func): { record: L; thread: L; threads: L } {
  return { record: f.param('i32', 0), thread: f.param('i32', 1), threads: f.param('i32', 2) };
}

/** For `index` = thread, thread + threads ... below `end`. */
export function everyPanel(index: L, thread: L, threads: L, end: I32, body: readonly Statement[]): Statement {
  return [
    ...index.set(thread.get),
    ...when(lessUnsigned(index.get, end), [
      doWhile(lessUnsigned(index.get, end), ...body, index.set(add(index.get, threads.get))),
    ]),
  ];
}
