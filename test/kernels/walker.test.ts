/** The walker and its barrier: which thread runs which steps and waits at which barriers, and that no wait is endless. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import test from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { control, poison, timings } from '../../src/kernels/barrier.ts';
import { CLAIMING_ROWS } from '../../src/kernels/claims.ts';
import { RECORD_BYTES } from '../../src/kernels/record.ts';
import { flags, markSlots, walker } from '../../src/kernels/walker.ts';
import {
  add,
  constant,
  type I32,
  loadI32,
  Module,
  multiply,
  notEqual,
  repeat,
  shiftLeft,
  storeI32,
  when,
} from '../../src/wasm/assembler.ts';
import { instantiate, type WalkerJob } from './walker-worker.ts';

const CONTROL = 1024;
const TAPE = 4096;
/** Addresses of the words used by the kernels of these tests. */
const SLOTS = 2048;
const WRONG = 3072;
const KERNELS = ['log', 'count', 'compare'];

/** Three step kernels and the walker. */
function compile(patience?: number): WebAssembly.Module {
  const module = new Module();
  walker(module, CONTROL, patience);
  const step = (name: string) => {
    const f = module.func(name, ['i32', 'i32', 'i32']);
    return { f, record: f.param('i32', 0), thread: f.param('i32', 1), threads: f.param('i32', 2) };
  };
  const increment = (address: I32) => storeI32(address, add(loadI32(address), constant(1)));
  const slot = (index: I32): I32 => add(constant(SLOTS), multiply(index, constant(64)));

  // Appends thread and threads of each call to the list behind its length.
  const log = step('log');
  const end = add(constant(SLOTS), shiftLeft(loadI32(constant(SLOTS)), constant(3)));
  log.f.emit(increment(constant(SLOTS)), storeI32(end, log.thread.get), storeI32(end, log.threads.get, 4));

  // Each thread counts for itself, without atomics: only the barrier makes it visible to the others.
  const count = step('count');
  count.f.emit(increment(slot(count.thread.get)));

  const compare = step('compare');
  const i = compare.f.local('i32');
  compare.f.emit(
    repeat(
      i,
      1,
      compare.threads.get,
      when(notEqual(loadI32(slot(i.get)), loadI32(slot(compare.thread.get))), [increment(constant(WRONG))]),
    ),
  );
  return new WebAssembly.Module(module.encode({ maximum: 16, shared: true }));
}

const module = compile();

interface Settings {
  readonly rows?: number;
  readonly wanted?: number;
  readonly replicateLimit?: number;
  readonly timing?: number;
}

/** A memory with a tape of (kernel, flags) and the control block set. */
function prepare(tape: readonly (readonly [kernel: string, flags: number])[], settings: Settings = {}) {
  const memory = new WebAssembly.Memory({ initial: 2, maximum: 16, shared: true });
  const words = new Int32Array(memory.buffer);
  for (const [n, [kernel, flag]] of tape.entries())
    words.set([KERNELS.indexOf(kernel), flag], (TAPE + n * RECORD_BYTES) / 4);
  for (const [name, value] of Object.entries(settings)) words[(CONTROL + control[name as keyof Settings]) / 4] = value;
  return { memory, words, at: (offset: number): number => words[(CONTROL + offset) / 4]! };
}

/** Runs one thread of a walk, with the others marked as arrived at the first barrier. */
function walkAlone(flag: number, settings: Settings, thread: number, threads: number) {
  const { memory, words, at } = prepare([['log', flag]], settings);
  words[(CONTROL + control.arrivals) / 4] = threads - 1;
  let marks = 0;
  const walk = instantiate({ memory, module, kernels: KERNELS }, () => marks++);
  assert.equal(walk(TAPE, 1, thread, threads, 0), 0);
  assert.equal(words[SLOTS / 4], 1);
  return { call: [words[SLOTS / 4 + 2], words[SLOTS / 4 + 3]], barriers: at(control.round), marks };
}

test('a step is divided, or replicated when few rows make that cheaper', () => {
  const { barrier, replicable, wanted, barrierAlways, barrierMany } = flags;
  const few = { rows: 3, wanted: 1, replicateLimit: 3 };
  const cases = [
    [0, few, [1, 2], 0],
    [barrier, few, [1, 2], 1],
    [barrierAlways, few, [1, 2], 1],
    [replicable, few, [0, 1], 0],
    [replicable | barrier, few, [0, 1], 0],
    [replicable | barrierAlways, few, [0, 1], 1],
    [replicable | barrier, { ...few, rows: 4 }, [1, 2], 1],
    [replicable | barrier | wanted, { ...few, rows: 4 }, [0, 1], 0],
    [replicable | barrier | wanted, { ...few, wanted: 4 }, [1, 2], 1],
    [replicable, { ...few, replicateLimit: 0 }, [1, 2], 0],
    [barrierMany, { ...few, rows: CLAIMING_ROWS - 1 }, [1, 2], 0],
    [barrierMany, { ...few, rows: CLAIMING_ROWS }, [1, 2], 1],
    [barrier, { ...few, rows: CLAIMING_ROWS }, [1, 2], 0],
    [barrier | wanted, { ...few, rows: CLAIMING_ROWS, wanted: 4 }, [1, 2], 1],
  ] as const;
  for (const [flag, settings, call, barriers] of cases) {
    const got = walkAlone(flag, settings, 1, 2);
    assert.deepEqual([got.call, got.barriers], [call, barriers], `flags ${flag}, ${JSON.stringify(settings)}`);
    // A single thread meets no barrier.
    assert.deepEqual(walkAlone(flag, settings, 0, 1), { call: [0, 1], barriers: 0, marks: 0 });
  }
});

test('a step without rows is skipped, with its barrier', () => {
  const { memory, words, at } = prepare([
    ['log', flags.skipsEmpty | flags.barrier],
    ['log', flags.skipsEmpty],
  ]);
  const [none, some] = [WRONG + 64, WRONG + 128];
  words[some / 4] = 2;
  words[(TAPE + RECORD_BYTES) / 4 - 1] = none;
  words[(TAPE + 2 * RECORD_BYTES) / 4 - 1] = some;
  // One thread of two: it could not pass a barrier.
  assert.equal(instantiate({ memory, module, kernels: KERNELS }, () => {})(TAPE, 2, 1, 2, 0), 0);
  assert.deepEqual([words[SLOTS / 4], at(control.arrivals)], [1, 0]);
});

test('marks come from thread 0, after each step or each scope', () => {
  assert.equal(walkAlone(0, { timing: timings.steps }, 0, 2).marks, 1);
  assert.equal(walkAlone(0, { timing: timings.steps }, 1, 2).marks, 0);
  const tape = [
    ['log', 1],
    ['log', 2 | flags.scopeEnd],
    ['log', flags.scopeEnd],
    ['log', 0],
  ] as const;
  for (const [timing, expected] of [
    [timings.off, []],
    [timings.scopes, [2, 3]],
    [timings.steps, [1, 2, 3, 4]],
  ] as const) {
    const { memory, words } = prepare(tape, { timing, replicateLimit: 5 });
    // How many steps had run at each mark.
    const marks: number[] = [];
    const slots: number[] = [];
    const walk = instantiate({ memory, module, kernels: KERNELS }, (slot) => {
      marks.push(words[SLOTS / 4]!);
      slots.push(slot);
    });
    walk(TAPE, tape.length, 0, 1, 0);
    assert.deepEqual(marks, expected);
    assert.deepEqual(
      slots,
      expected.map((steps) => markSlots.ended(steps - 1)),
    );
  }
});

test('with times of threads every thread marks each record, and each wait before it', () => {
  const { arrived, ended } = markSlots;
  for (const [threads, expected] of [
    [1, [ended(0), ended(1)]],
    [2, [ended(0), arrived(1), ended(1)]],
  ] as const) {
    const { memory, words } = prepare(
      [
        ['log', 0],
        ['log', flags.barrier],
      ],
      { timing: timings.threads },
    );
    words[(CONTROL + control.arrivals) / 4] = threads - 1;
    const slots: number[] = [];
    instantiate({ memory, module, kernels: KERNELS }, (slot) => slots.push(slot))(TAPE, 2, threads - 1, threads, 0);
    assert.deepEqual(slots, expected);
  }
});

/** Starts `threads` workers on one tape; their results. */
function start(
  job: Omit<WalkerJob, 'thread' | 'module' | 'kernels' | 'tape'> & Partial<WalkerJob>,
  only?: number,
): Promise<number>[] {
  const numbers = only === undefined ? Array.from({ length: job.threads }, (_, n) => n) : [only];
  return numbers.map(async (thread) => {
    const workerData: WalkerJob = { module, ...job, kernels: KERNELS, tape: TAPE, thread };
    const worker = new Worker(new URL('./walker-worker.ts', import.meta.url), { workerData });
    const [result] = (await once(worker, 'message')) as [number];
    await worker.terminate();
    return result;
  });
}

test('a hundred thousand barriers: what was written before one is read after it', async () => {
  for (const [threads, spins, walks] of [
    [2, 1000, 50_000],
    [3, 0, 10_000],
  ] as const) {
    const { memory, words, at } = prepare([
      ['count', flags.barrier],
      ['compare', flags.barrier],
    ]);
    assert.deepEqual(await Promise.all(start({ memory, steps: 2, walks, threads, spins })), Array(threads).fill(0));
    assert.deepEqual([words[WRONG / 4], words[SLOTS / 4], at(control.round)], [0, walks, 2 * walks]);
  }
});

test('poison wakes all waiting threads, asleep or spinning, and those that arrive later', async () => {
  for (const spins of [0, 0x7fffffff]) {
    const { memory, words } = prepare([['count', flags.barrier]]);
    const job = { memory, steps: 1, walks: 1, threads: 3, spins };
    const waiting = [...start(job, 0), ...start(job, 1)];
    while (Atomics.load(words, (CONTROL + control.arrivals) / 4) < 2) await sleep(1);
    poison(memory, CONTROL);
    for (const result of await Promise.all(waiting)) assert.notEqual(result, 0);
    // Not the last to arrive, so nothing would wake it.
    const { memory: failed } = prepare([['count', flags.barrier]]);
    poison(failed, CONTROL);
    const [late] = await Promise.all(start({ ...job, memory: failed }, 2));
    assert.notEqual(late, 0);
  }
});

test('after a time limit for a missing thread, all other threads leave', async () => {
  const { memory } = prepare([['count', flags.barrier]]);
  const job = { memory, module: compile(1), steps: 1, walks: 1, threads: 3, spins: 10 };
  for (const result of await Promise.all([...start(job, 0), ...start(job, 2)])) assert.notEqual(result, 0);
});
