/** Arguments of a piece, and the groups of a thread, for load-time kernels. */
import {
  add,
  constant,
  divideUnsigned,
  type Func,
  type I32,
  type Local,
  lessUnsigned,
  multiply,
  repeat,
  type Statement,
  when,
} from '../wasm/assembler.ts';
import { LANES } from './layout.ts';
import { recordLayout } from './record.ts';

/**
 * source: address of the piece's first value; lineBytes: from one line of the file to the next; rows, columns: of the
 * piece; destination: where its first group begins, or the first column in there; groupBytes: from group to group.
 */
export const packRecord = recordLayout('source', 'lineBytes', 'rows', 'columns', 'destination', 'groupBytes');

/** A thread's share of the groups of `rows` rows: groups * thread / threads and on. */
export function groupsOfThread(f: Func, rows: I32, [thread, threads]: readonly [Local<'i32'>, Local<'i32'>]) {
  const [group, first, end] = [f.local('i32'), f.local('i32'), f.local('i32')];
  const groups = divideUnsigned(add(rows, constant(LANES - 1)), constant(LANES));
  const boundary = (n: I32): I32 => divideUnsigned(multiply(groups, n), threads.get);
  f.emit(first.set(boundary(thread.get)), end.set(boundary(add(thread.get, constant(1)))));
  const whenAny = (...body: readonly Statement[]): Statement[] => [when(lessUnsigned(first.get, end.get), body)];
  return {
    group,
    whenAny,
    each: (...body: readonly Statement[]): Statement[] =>
      whenAny(group.set(first.get), repeat(group, 1, end.get, ...body)),
  };
}
