/** Mixture of experts: routing rows to experts, grouping rows by expert, and scattering results back. */
import {
  add,
  and,
  constant,
  divideUnsigned,
  equal,
  type Func,
  f32,
  f32Add,
  f32Div,
  f32Less,
  f32Max,
  f32Multiply,
  type I32,
  lessUnsigned,
  loadF32,
  loadI32,
  type Module,
  multiply,
  repeat,
  shiftLeft,
  storeF32,
  storeI32,
  v,
  when,
} from '../wasm/assembler.ts';
import { computeLine, copyValues, eachRow, LINE, line, rowWise, span, strideOf } from './loops.ts';
import { exponential, interleaved } from './math.ts';
import { recordLayout } from './record.ts';

const LINE_BYTES = LINE * 4;
/** The lowest finite f32. */
const LOWEST = -3.4028234663852886e38;
/** Largest number of experts of a layer: their logits and exponentials are in scratch. */
export const MOST_EXPERTS = 4096;

/**
 * x: rows of `experts` logits; out: rows of `top` i32 and `top` f32; rows: address of the row count; normalize: 0 or 1;
 * factors: 0, or an f32 for each expert.
 */
export const routeRecord = recordLayout('x', 'out', 'rows', 'experts', 'top', 'normalize', 'factors');

/**
 * Exports the step kernel `route`: the `top` experts of largest logit, the lowest number first where they are equal, and
 * their shares e^(logit - largest) / total. The total is that of all experts in their order, or of the chosen ones in the
 * order of the choice. A share is multiplied by its expert's factor.
 */
export function routeKernel(module: Module): Func {
  const kernel = rowWise(module, 'route', routeRecord);
  const { f, first, word } = kernel;
  const [experts, top] = [kernel.argument('experts'), kernel.argument('top')];
  const [p, q, to, e, j, best] = [
    f.local('i32'),
    f.local('i32'),
    f.local('i32'),
    f.local('i32'),
    f.local('i32'),
    f.local('i32'),
  ];
  const [value, total, chosen] = [f.local('f32'), f.local('f32'), f.local('f32')];
  const largest = f.local('v128');
  const values = line(f);
  const exp = exponential(f);
  const logits = module.scratch;
  const exponentials = add(module.scratch, constant(MOST_EXPERTS * 4));
  // Every thread may do all rows, so `out` must never hold intermediate values.
  const taken = add(module.scratch, constant(MOST_EXPERTS * 8));
  const at = (array: I32, index: I32): I32 => add(array, shiftLeft(index, constant(2)));
  const padded = strideOf(experts.get);
  const each = (...body: Parameters<typeof repeat>[3][]) => [e.set(constant(0)), repeat(e, 1, experts.get, ...body)];
  return f.emit(
    eachRow(
      kernel,
      q.set(add(logits, add(padded, constant(-LINE_BYTES)))),
      ...values.map((_, c) => v.store(q.get, f32.splatConstant(Number.NEGATIVE_INFINITY), c * 16)),
      p.set(add(word('x'), multiply(first.get, padded))),
      q.set(logits),
      ...copyValues(f, experts.get, p, q),
      value.set(f32.constant(Number.NEGATIVE_INFINITY)),
      ...each(value.set(f32Max(value.get, loadF32(at(logits, e.get))))),
      largest.set(f32.splat(value.get)),
      p.set(logits),
      q.set(exponentials),
      to.set(add(logits, padded)),
      repeat(
        p,
        LINE_BYTES,
        to.get,
        ...values.map((x, c) => x.set(f32.sub(v.load(p.get, c * 16), largest.get))),
        ...interleaved(...values.map(exp)),
        ...values.map((x, c) => v.store(q.get, x.get, c * 16)),
        // NaN and -infinity must stay above experts already chosen, so that none is chosen twice.
        ...values.map((_, c) => v.store(p.get, f32.pmax(f32.splatConstant(LOWEST), v.load(p.get, c * 16)), c * 16)),
        q.set(add(q.get, constant(LINE_BYTES))),
      ),
      total.set(f32.constant(0)),
      ...each(total.set(f32Add(total.get, loadF32(at(exponentials, e.get))))),
      chosen.set(f32.constant(0)),
      to.set(add(word('out'), multiply(first.get, strideOf(shiftLeft(top.get, constant(1)))))),
      q.set(at(to.get, top.get)),
      j.set(constant(0)),
      repeat(
        j,
        1,
        top.get,
        best.set(constant(0)),
        value.set(f32.constant(Number.NEGATIVE_INFINITY)),
        ...each(
          when(f32Less(value.get, loadF32(at(logits, e.get))), [
            best.set(e.get),
            value.set(loadF32(at(logits, e.get))),
          ]),
        ),
        storeI32(at(to.get, j.get), best.get),
        storeF32(at(taken, j.get), loadF32(at(exponentials, best.get))),
        chosen.set(f32Add(chosen.get, loadF32(at(exponentials, best.get)))),
        storeF32(at(logits, best.get), f32.constant(Number.NEGATIVE_INFINITY)),
      ),
      when(word('normalize'), [total.set(chosen.get)]),
      j.set(constant(0)),
      repeat(
        j,
        1,
        top.get,
        value.set(f32Div(loadF32(at(taken, j.get)), total.get)),
        when(word('factors'), [
          value.set(f32Multiply(value.get, loadF32(at(word('factors'), loadI32(at(to.get, j.get)))))),
        ]),
        storeF32(at(q.get, j.get), value.get),
      ),
    ),
  );
}

/**
 * choice: rows as `route` leaves them; rows: address of their count; counts: i32 per expert; lists, shares: for each expert
 * the numbers of its rows, rising, and what they give it, `listBytes` from one expert to the next.
 */
export const groupRecord = recordLayout('choice', 'rows', 'experts', 'top', 'counts', 'lists', 'shares', 'listBytes');

/** Exports the step kernel `group_rows`, divided by experts. */
export function groupKernel(module: Module): Func {
  const f = module.func('group_rows', ['i32', 'i32', 'i32']);
  const [record, thread, threads] = [f.param('i32', 0), f.param('i32', 1), f.param('i32', 2)];
  const [e, end, row, rows, j, count, at] = [
    f.local('i32'),
    f.local('i32'),
    f.local('i32'),
    f.local('i32'),
    f.local('i32'),
    f.local('i32'),
    f.local('i32'),
  ];
  const word = (name: (typeof groupRecord.names)[number]): I32 => groupRecord.load(record, name);
  const share = (n: I32): I32 => divideUnsigned(multiply(word('experts'), n), threads.get);
  const entry = (array: 'lists' | 'shares'): I32 =>
    add(add(word(array), multiply(e.get, word('listBytes'))), shiftLeft(count.get, constant(2)));
  const chosen = add(at.get, shiftLeft(j.get, constant(2)));
  return f.emit(
    rows.set(loadI32(word('rows'))),
    e.set(share(thread.get)),
    end.set(share(add(thread.get, constant(1)))),
    when(and(lessUnsigned(e.get, end.get), lessUnsigned(constant(0), rows.get)), [
      repeat(
        e,
        1,
        end.get,
        count.set(constant(0)),
        row.set(constant(0)),
        at.set(word('choice')),
        repeat(
          row,
          1,
          rows.get,
          j.set(constant(0)),
          repeat(
            j,
            1,
            word('top'),
            when(equal(loadI32(chosen), e.get), [
              storeI32(entry('lists'), row.get),
              storeF32(entry('shares'), loadF32(add(chosen, shiftLeft(word('top'), constant(2))))),
              count.set(add(count.get, constant(1))),
            ]),
          ),
          at.set(add(at.get, strideOf(shiftLeft(word('top'), constant(1))))),
        ),
        storeI32(add(word('counts'), shiftLeft(e.get, constant(2))), count.get),
      ),
    ]),
  );
}

/** x: rows of `width`; indices, shares: for each of them its row of `out` and its factor; rows: address of their count. */
export const scatterRecord = recordLayout('x', 'out', 'indices', 'shares', 'rows', 'width');

/** Exports the step kernel `scatter`: out[indices[i]] += x[i] * shares[i]. */
export function scatterKernel(module: Module): Func {
  const kernel = rowWise(module, 'scatter', scatterRecord);
  const { f, first, word } = kernel;
  const [from, to] = [f.local('i32'), f.local('i32')];
  const [factor, values] = [f.local('v128'), line(f)];
  const entry = (array: 'indices' | 'shares'): I32 => add(word(array), shiftLeft(first.get, constant(2)));
  return f.emit(
    eachRow(
      kernel,
      from.set(add(word('x'), multiply(first.get, strideOf(word('width'))))),
      to.set(add(word('out'), multiply(loadI32(entry('indices')), strideOf(word('width'))))),
      factor.set(v.load32splat(entry('shares'))),
      ...span(
        f,
        // Whole lines: the padding of rows holds finite values.
        divideUnsigned(strideOf(word('width')), constant(4)),
        [from, to],
        computeLine(to, values, (c) => f32.madd(v.load(from.get, c * 16), factor.get, v.load(to.get, c * 16))),
        [],
      ),
    ),
  );
}
