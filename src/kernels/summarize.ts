/** Summaries of logits, so that sampling need not read them one by one. */
import {
  add,
  and,
  constant,
  divideUnsigned,
  doWhile,
  type Func,
  f32,
  f32Max,
  lessUnsigned,
  loadF32,
  loadI32,
  type Module,
  multiply,
  remainderUnsigned,
  repeat,
  type Statement,
  shiftLeft,
  shiftRight,
  smaller,
  storeF32,
  subtract,
  v,
  when,
} from '../wasm/assembler.ts';
import { copyValues, LINE, line, strideOf, sumLanes } from './loops.ts';
import { exponential, interleaved } from './math.ts';
import { recordLayout } from './record.ts';

/** x: rows of `width`; out: rows of two values for each chunk; rows: address of the row count. */
export const summarizeRecord = recordLayout('x', 'out', 'rows', 'width');

const LINE_BYTES = LINE * 4;

/**
 * Exports the step kernel `summarize`: for every `chunk` values of a row, a multiple of 16, the largest and the sum of
 * e^(value - largest). Lane l sums the values l, l + 16, ...; the lanes are added up in their order. A sum is NaN where a
 * value is, where the largest is +Infinity, and where all are -Infinity.
 */
export function summarizeKernel(module: Module, chunk: number): Func {
  const f = module.func('summarize', ['i32', 'i32', 'i32']);
  const [record, thread, threads] = [f.param('i32', 0), f.param('i32', 1), f.param('i32', 2)];
  const [width, chunks, items] = [f.local('i32'), f.local('i32'), f.local('i32')];
  const [item, end, count, left] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
  const [from, p, q, to, number] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
  const largest = f.local('f32');
  const splat = f.local('v128');
  const [values, sums] = [line(f), line(f)];
  const exp = exponential(f);
  const word = (name: (typeof summarizeRecord.names)[number]) => summarizeRecord.load(record, name);
  const share = (n: typeof items.get) => divideUnsigned(multiply(items.get, n), threads.get);
  const tail = module.scratch;
  const lanes = add(module.scratch, constant(LINE_BYTES));

  /** For each line of the chunk, the padded last one from the scratch area. */
  const eachLine = (...body: readonly Statement[]): Statement[] => [
    p.set(from.get),
    left.set(shiftRight(count.get, constant(4))),
    when(left.get, [
      doWhile(left.get, ...body, p.set(add(p.get, constant(LINE_BYTES))), left.set(subtract(left.get, constant(1)))),
    ]),
    when(and(count.get, constant(LINE - 1)), [p.set(tail), ...body]),
  ];
  const storeLanes = (): Statement[] => sums.map((sum, c) => v.store(lanes, sum.get, c * 16));

  return f.emit(
    width.set(word('width')),
    chunks.set(divideUnsigned(add(width.get, constant(chunk - 1)), constant(chunk))),
    items.set(multiply(chunks.get, loadI32(word('rows')))),
    item.set(share(thread.get)),
    end.set(share(add(thread.get, constant(1)))),
    when(lessUnsigned(item.get, end.get), [
      repeat(
        item,
        1,
        end.get,
        number.set(remainderUnsigned(item.get, chunks.get)),
        q.set(divideUnsigned(item.get, chunks.get)),
        from.set(add(add(word('x'), multiply(q.get, strideOf(width.get))), multiply(number.get, constant(chunk * 4)))),
        to.set(
          add(
            add(word('out'), multiply(q.get, strideOf(shiftLeft(chunks.get, constant(1))))),
            shiftLeft(number.get, constant(3)),
          ),
        ),
        count.set(smaller(constant(chunk), subtract(width.get, multiply(number.get, constant(chunk))))),
        ...sums.map((_, c) => v.store(tail, f32.splatConstant(Number.NEGATIVE_INFINITY), c * 16)),
        p.set(add(from.get, shiftLeft(and(count.get, constant(-LINE)), constant(2)))),
        q.set(tail),
        ...copyValues(f, and(count.get, constant(LINE - 1)), p, q),
        ...sums.map((sum) => sum.set(f32.splatConstant(Number.NEGATIVE_INFINITY))),
        ...eachLine(...sums.map((sum, c) => sum.set(f32.pmax(sum.get, v.load(p.get, c * 16))))),
        ...storeLanes(),
        largest.set(
          Array.from({ length: LINE }, (_, lane) => loadF32(lanes, lane * 4)).reduce(
            f32Max,
            f32.constant(Number.NEGATIVE_INFINITY),
          ),
        ),
        storeF32(to.get, largest.get),
        splat.set(f32.splat(largest.get)),
        ...sums.map((sum) => sum.set(f32.splatConstant(0))),
        ...eachLine(
          ...values.map((value, c) => value.set(f32.sub(v.load(p.get, c * 16), splat.get))),
          ...interleaved(...values.map(exp)),
          ...sums.map((sum, c) => sum.set(f32.add(sum.get, values[c]!.get))),
        ),
        ...storeLanes(),
        storeF32(to.get, sumLanes(lanes, f32.constant(0)), 4),
      ),
    ]),
  );
}
