/**
 * A barrier between threads inside WebAssembly: spin for a while, then sleep.
 *
 * Spinning is fast while every thread has its own core. With more threads than cores, a spinning thread may occupy the core
 * of the thread that it waits for, so the spin is bounded and followed by memory.atomic.wait32.
 *
 * The control block. Words that threads write while others spin have cache lines of their own:
 *
 *   +0    rows | wanted rows | replicate limit | timing          set by the caller between walks
 *   +64   poison: not 0 once a thread has failed
 *   +128  arrivals of the current round
 *   +192  round: the last thread to arrive increments it, the others wait for the change
 */
import {
  add,
  and,
  atomicAdd,
  atomicLoad,
  atomicNotify,
  atomicStore,
  atomicWait,
  call,
  constant,
  doWhile,
  drop,
  equal,
  type Func,
  type ImportedFunc,
  lessUnsigned,
  type Module,
  not,
  when,
} from '../wasm/assembler.ts';

/** Byte offsets within the control block, which is aligned to 64 bytes and starts as zeros. */
export const control = {
  /** i32: rows of this forward. */
  rows: 0,
  /** i32: rows of this forward whose logits are wanted. */
  wanted: 4,
  /** i32: up to this many rows, replicable steps are done in full by every thread. */
  replicateLimit: 8,
  /** i32, one of `timings`: when threads call `env.mark()`. */
  timing: 12,
  poison: 64,
  arrivals: 128,
  round: 192,
  bytes: 256,
} as const;

/**
 * `scopes`, `steps`: thread 0 after the last record of each scope, or after each record with the wait behind it. `threads`:
 * every thread after each record, and before it waits at a barrier.
 */
export const timings = { off: 0, scopes: 1, steps: 2, threads: 3 } as const;

/** Seconds after which a missing thread is considered dead; no step takes as long. */
export const PATIENCE = 60;
/** Longest sleep of a waiting thread. The timeout counts sleeps, so that a suspended process does not time out. */
const SLEEP_NANOSECONDS = 0.25e9;
const TIMED_OUT = 2;

/**
 * meet(threads, spins) -> i32: waits for the other threads; not 0 if one of them has failed or ended.
 * @param look called after each sleep, so that the caller can poison the barrier if a thread has ended
 */
export function barrier(module: Module, controlAddress: number, look: ImportedFunc, patience = PATIENCE): Func {
  const f = module.func('meet', ['i32', 'i32'], 'i32');
  const [threads, spins] = [f.param('i32', 0), f.param('i32', 1)];
  const [round, n] = [f.local('i32'), f.local('i32')];
  const at = (offset: number) => constant(controlAddress + offset);
  const unchanged = equal(atomicLoad(at(control.round)), round.get);
  return f.emit(
    // The round cannot change before this thread has arrived.
    round.set(atomicLoad(at(control.round))),
    when(
      equal(add(atomicAdd(at(control.arrivals), constant(1)), constant(1)), threads.get),
      [
        atomicStore(at(control.arrivals), constant(0)),
        drop(atomicAdd(at(control.round), constant(1))),
        drop(atomicNotify(at(control.round), constant(-1))),
      ],
      [
        // Poisoning after this check also changes the round that was read above.
        when(not(atomicLoad(at(control.poison))), [
          n.set(constant(0)),
          doWhile(and(unchanged, lessUnsigned(n.get, spins.get)), n.set(add(n.get, constant(1)))),
          // wait32 returns at once if the round has changed meanwhile.
          n.set(constant(0)),
          when(unchanged, [
            doWhile(
              and(unchanged, not(atomicLoad(at(control.poison)))),
              when(equal(atomicWait(at(control.round), round.get, SLEEP_NANOSECONDS), constant(TIMED_OUT)), [
                n.set(add(n.get, constant(1))),
                call(look),
                when(equal(n.get, constant(Math.ceil((patience * 1e9) / SLEEP_NANOSECONDS))), [
                  atomicStore(at(control.poison), constant(1)),
                ]),
              ]),
            ),
          ]),
        ]),
      ],
    ),
    atomicLoad(at(control.poison)),
  );
}

/**
 * Makes every thread that waits, or comes to wait, leave its walk with a non-zero result. Called when a thread has failed. The
 * barrier is unusable until the control block is zeroed.
 */
export function poison(memory: WebAssembly.Memory, controlAddress: number): void {
  const words = new Int32Array(memory.buffer, controlAddress, control.bytes / 4);
  Atomics.store(words, control.poison / 4, 1);
  // Changes the round too: a thread about to sleep on the old round would miss the notification.
  Atomics.add(words, control.round / 4, 1);
  Atomics.notify(words, control.round / 4);
}
