/**
 * One thread of the pool: instances of all kernels over the shared memory, a table of the step kernels, and the walker.
 * Thread 0 is the caller; the others run `serve` in workers and sleep between forwards.
 */

import { PATIENCE, poison } from '../../../kernels/barrier.ts';
import { controlAddress, sharedWords, viewSharedWords } from '../memory/shared-words.ts';
import { loadSlabs } from './thread-load.ts';
import { type ReadFile, type ThreadSetup, timeWords, type WalkTape } from './thread-setup.ts';

export const commands = { walk: 1, exit: 2 } as const;

/** Must exceed the largest number of threads. */
export const EPOCH = 128;

/** Iterations that a thread spins at a barrier before it sleeps: about as long as a wake-up takes. */
const SPINS = 100_000;

type Exports = Record<string, (...args: number[]) => number>;

/**
 * Instances of all modules over each memory, for one thread, which notes its times in `setup.times`. `look` is called now
 * and then while the thread waits at a barrier.
 */
export function instantiate(setup: ThreadSetup, look: () => void): WalkTape {
  const { times } = setup;
  times[timeWords.origin] = performance.timeOrigin;
  const mark = (slot: number): void => {
    times[timeWords.marks + slot] = performance.now();
  };
  const walks = setup.memories.map((memory, index) => {
    const table = new WebAssembly.Table({ element: 'anyfunc', initial: setup.kernels.length });
    const scratch = new WebAssembly.Global({ value: 'i32', mutable: false }, setup.scratch[index]! | 0);
    const env = { memory, scratch, table, mark, look };
    const exports = setup.modules.map((module) => new WebAssembly.Instance(module, { env }).exports as Exports);
    for (const [entry, { module, name }] of setup.kernels.entries()) table.set(entry, exports[module]![name]);
    return exports[setup.walker]!.walk!;
  });
  return (memory, tape, steps, threads) => {
    // A thread alone does all of every step.
    const thread = threads === 1 ? 0 : setup.thread;
    times[timeWords.start] = performance.now();
    return walks[memory]!(tape, steps, thread, threads, threads > setup.cores ? 0 : SPINS);
  };
}

/**
 * Iterations that an idle thread spins before it sleeps, about a millisecond: longer than sampling and printing a token takes.
 * A sleeping thread is often woken on the core of the thread that wakes it, and both share that core for a while.
 */
const idleSpins = 300_000;

const nothing = (): void => {};

/** Main loop of a worker: loads, then waits for the next epoch and walks the tape. Returns at the exit command. */
export function serve(setup: ThreadSetup, onReady: () => void, read: ReadFile): void {
  const walk = instantiate(setup, nothing);
  const words = viewSharedWords(setup);
  const epochAt = sharedWords.epoch >> 2;
  let epoch = Atomics.load(words, epochAt);
  onReady();
  if (setup.load) {
    loadSlabs(setup.load, { setup, walk, read });
    Atomics.add(viewSharedWords(setup), sharedWords.loaded >> 2, 1);
  }
  for (;;) {
    for (let n = setup.threads > setup.cores ? 0 : idleSpins; n > 0 && Atomics.load(words, epochAt) === epoch; n--);
    while (Atomics.load(words, epochAt) === epoch) Atomics.wait(words, epochAt, epoch);
    epoch = Atomics.load(words, epochAt);
    const threads = epoch % EPOCH;
    // Non-participants must not read further: the caller may already be writing the next walk.
    if (setup.thread >= threads) continue;
    if (Atomics.load(words, sharedWords.command >> 2) === commands.exit) return;
    try {
      walk(words[sharedWords.memory >> 2]!, words[sharedWords.tape >> 2]!, words[sharedWords.steps >> 2]!, threads);
    } catch (error) {
      reportFailure(setup, error);
    }
  }
}

/** Stores the message in shared memory and wakes all waiting threads. */
export function reportFailure({ memories, thread }: ThreadSetup, error: unknown): void {
  const { buffer } = memories[0]!;
  const text = new TextEncoder().encode(`thread ${thread}: ${error instanceof Error ? error.message : String(error)}`);
  const bytes = text.subarray(0, sharedWords.errorCapacity);
  new Uint8Array(buffer, sharedWords.error, bytes.length).set(bytes);
  new Int32Array(buffer, sharedWords.errorLength, 1)[0] = bytes.length;
  for (const memory of memories) poison(memory, controlAddress);
}

/** The message of the failed thread. A thread that ended leaves none. */
export function failureText({ memories }: Pick<ThreadSetup, 'memories'>): string {
  const { buffer } = memories[0]!;
  const length = new Int32Array(buffer, sharedWords.errorLength, 1)[0]!;
  if (length === 0) return `a thread did not come to a barrier within ${PATIENCE} s`;
  // TextDecoder does not accept shared memory.
  const text = new TextDecoder().decode(new Uint8Array(buffer, sharedWords.error, length).slice());
  return `a kernel failed in ${text}`;
}
