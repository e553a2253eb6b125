/**
 * The walker: every thread walks the same tape of records (record.ts) and calls each step's kernel with its share.
 *
 *   kernel(record, thread, threads)   the thread's share of the step, or with (record, 0, 1) all of it
 *
 * With few rows a barrier costs more than a norm or an activation: every thread does such a step in full, writing the same
 * bytes, without a barrier.
 */
import {
  add,
  and,
  call,
  callIndirect,
  constant,
  equal,
  type Func,
  type I32,
  lessUnsigned,
  loadI32,
  type Module,
  not,
  notEqual,
  or,
  repeat,
  returns,
  shiftLeft,
  when,
} from '../wasm/assembler.ts';
import { barrier, control, timings } from './barrier.ts';
import { CLAIMING_ROWS } from './claims.ts';
import { RECORD_BYTES } from './record.ts';

/** Bits of a record's word 1. */
export const flags = {
  /** A barrier follows when the threads divided the step, and there were fewer rows than CLAIMING_ROWS. */
  barrier: 1,
  /** Done in full by every thread when the row count is at most the control block's replicate limit. */
  replicable: 2,
  /** Compares the number of wanted rows instead of all rows. */
  wanted: 4,
  /** The last step of a run with one scope: thread 0 reads the clock after it if scopes are timed. */
  scopeEnd: 16,
  /**
   * Skipped with its barriers if the i32 at the address in the record's last word is 0: an expert without rows. Such steps
   * form runs that begin after a barrier and end with one.
   */
  skipsEmpty: 32,
  /** A barrier follows even if every thread did all of it. */
  barrierAlways: 8,
  /** A barrier follows when there were more rows: products do not divide these by columns. */
  barrierMany: 64,
} as const;

/** Number of the mark before the wait after record n, and of the mark after record n with its wait. */
export const markSlots = {
  arrived: (record: number): number => 2 * record,
  ended: (record: number): number => 2 * record + 1,
};

/**
 * walk(tape, steps, thread, threads, spins) -> i32: 0, or not 0 when a thread failed. At least one step. Kernels come from
 * the imported table `env.table`, `env.mark(slot)` and `env.look()` from the caller; the control block, `look` and `patience`
 * are described in barrier.ts, slots in `markSlots`.
 */
export function walker(module: Module, controlAddress: number, patience?: number): Func {
  module.importTable();
  const mark = module.importFunc('mark', ['i32']);
  const meet = barrier(module, controlAddress, module.importFunc('look', []), patience);
  const f = module.func('walk', ['i32', 'i32', 'i32', 'i32', 'i32'], 'i32');
  const [tape, steps, thread] = [f.param('i32', 0), f.param('i32', 1), f.param('i32', 2)];
  const [threads, spins] = [f.param('i32', 3), f.param('i32', 4)];
  const [step, word, count, waits] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
  const present = f.local('i32');
  const setting = (offset: number) => loadI32(constant(controlAddress + offset));
  const flag = (bit: number) => and(word.get, constant(bit));
  const timed = (timing: number) => equal(setting(control.timing), constant(timing));
  const slot = shiftLeft(step.get, constant(1));
  const run = (share: I32, shares: I32) => callIndirect(loadI32(tape.get), tape.get, share, shares);
  return f.emit(
    repeat(
      step,
      1,
      steps.get,
      word.set(loadI32(tape.get, 4)),
      present.set(constant(1)),
      when(flag(flags.skipsEmpty), [present.set(loadI32(loadI32(tape.get, RECORD_BYTES - 4)))]),
      count.set(setting(control.rows)),
      when(flag(flags.wanted), [count.set(setting(control.wanted))]),
      when(present.get, [
        when(
          and(
            notEqual(flag(flags.replicable), constant(0)),
            not(lessUnsigned(setting(control.replicateLimit), count.get)),
          ),
          [run(constant(0), constant(1)), waits.set(flag(flags.barrierAlways))],
          [
            run(thread.get, threads.get),
            waits.set(flag(flags.barrier | flags.barrierAlways)),
            when(not(lessUnsigned(count.get, constant(CLAIMING_ROWS))), [waits.set(flag(flags.barrierMany))]),
          ],
        ),
        when(and(notEqual(waits.get, constant(0)), lessUnsigned(constant(1), threads.get)), [
          when(timed(timings.threads), [call(mark, slot)]),
          when(call<'i32'>(meet, threads.get, spins.get), [returns(constant(1))]),
        ]),
      ]),
      when(setting(control.timing), [
        when(
          or(
            timed(timings.threads),
            and(equal(thread.get, constant(0)), or(timed(timings.steps), notEqual(flag(flags.scopeEnd), constant(0)))),
          ),
          [call(mark, add(slot, constant(1)))],
        ),
      ]),
      tape.set(add(tape.get, constant(RECORD_BYTES))),
    ),
    constant(0),
  );
}
