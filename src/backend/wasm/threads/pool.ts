/** The threads of one backend: started once, woken once per tape, replaced after a failure. */
import { BackendError, LanewiseError } from '../../../errors.ts';
import { control, poison } from '../../../kernels/barrier.ts';
import { CLAIMS_AT, RECORD_BYTES } from '../../../kernels/record.ts';
import { FIRST_REGION } from '../memory/memory.ts';
import { controlAddress, sharedWords, viewSharedWords } from '../memory/shared-words.ts';
import type { Thread, WasmHost } from './host.ts';
import { commands, EPOCH, failureText, instantiate, reportFailure } from './thread.ts';
import { heldWord, type Loader } from './thread-load.ts';
import { type LoadList, type ThreadSetup, timesOf, type WalkTape } from './thread-setup.ts';

/** What all threads share. */
type SharedSetup = Omit<ThreadSetup, 'thread' | 'scratch' | 'times' | 'load'>;

/** Byte address of a thread's scratch area in a memory. */
export type ScratchOf = (thread: number, memory: number) => number;

/** References that are dropped when the pool is stopped. */
interface Held {
  readonly setup: SharedSetup;
  readonly scratchOf: ScratchOf;
  /** Of each thread. */
  readonly times: readonly Float64Array[];
  readonly walk: WalkTape;
}

/**
 * - `ready`: all threads wait for the next tape
 * - `lost`: one has ended by itself since; the others wait
 * - `failed`: a tape failed; all threads have been ended
 */
type State = 'ready' | 'lost' | 'failed';

export class Pool {
  readonly #host: WasmHost;
  readonly #onWarning: ((text: string) => void) | undefined;
  #held: Held | undefined;
  #workers: Thread[] = [];
  #threads: number;
  #state: State = 'ready';

  private constructor(
    host: WasmHost,
    setup: SharedSetup,
    scratchOf: ScratchOf,
    records: number,
    onWarning?: (text: string) => void,
  ) {
    this.#host = host;
    this.#onWarning = onWarning;
    this.#threads = setup.threads;
    const stride = timesOf(records);
    const bytes = 8 * stride * setup.threads;
    const buffer = setup.threads > 1 ? new SharedArrayBuffer(bytes) : new ArrayBuffer(bytes);
    const times = Array.from({ length: setup.threads }, (_, n) => new Float64Array(buffer, 8 * stride * n, stride));
    const walk = instantiate(setupOf({ setup, scratchOf, times }, 0), () => this.#lookForLost());
    this.#held = { setup, scratchOf, times, walk };
  }

  /**
   * Threads that cannot start are left out, with one warning.
   * @param records of the longest tape that is timed @param load what the threads begin with
   */
  static async start(
    host: WasmHost,
    setup: SharedSetup,
    scratchOf: ScratchOf,
    records: number,
    load?: LoadList,
    onWarning?: (text: string) => void,
  ): Promise<Pool> {
    const pool = new Pool(host, setup, scratchOf, records, onWarning);
    await pool.#spawn(load);
    return pool;
  }

  /** How many run a tape, the caller among them. */
  get threads(): number {
    return this.#threads;
  }

  get memories(): readonly WebAssembly.Memory[] {
    return this.#alive().setup.memories;
  }

  /** The times of each thread, see `timeWords`: those of its last walk, as far as the timing setting asked for them. */
  get times(): readonly Float64Array[] {
    return this.#alive().times;
  }

  /** What the calling thread loads with, alone: the other threads load for themselves. */
  get loader(): Omit<Loader, 'read'> {
    const { walk } = this.#alive();
    const walkAlone: WalkTape = (...tape) => {
      try {
        return walk(...tape);
      } catch (error) {
        throw new BackendError('KernelFailed', `a kernel failed in thread 0: ${(error as Error).message}`);
      }
    };
    return { setup: setupOf(this.#alive(), 0), walk: walkAlone };
  }

  /** Waits until no other thread loads any more. @returns the slabs that threads had and left undone */
  async loaded(): Promise<number[]> {
    const { setup } = this.#alive();
    const words = viewSharedWords(setup);
    while (this.#state === 'ready' && Atomics.load(words, sharedWords.loaded >> 2) < this.#workers.length)
      await new Promise((resolve) => setTimeout(resolve, 1));
    if (this.#state !== 'ready') await this.#end();
    const held = Array.from({ length: setup.threads }, (_, n) => Atomics.load(words, heldWord(n)) - 1);
    return held.filter((slab) => slab >= 0);
  }

  /** Replaces threads that have ended. Must be awaited before changing memory that threads read. */
  async ready(): Promise<void> {
    if (this.#state === 'ready') return;
    await this.#end();
    this.#clear();
    await this.#spawn();
    this.#state = 'ready';
  }

  /**
   * The first `wanted` threads run `steps` records from address `tape` of a memory. Blocks. Rejects with the failing thread's
   * message, once no thread runs any more.
   */
  async run(memory: number, tape: number, steps: number, wanted = this.threads): Promise<void> {
    if (this.#state !== 'ready') await this.ready();
    const { setup, walk } = this.#alive();
    const threads = Math.min(wanted, this.threads);
    const words = viewSharedWords(setup);
    words[sharedWords.memory >> 2] = memory;
    words[sharedWords.tape >> 2] = tape;
    words[sharedWords.steps >> 2] = steps;
    if (threads > 1) this.#wake(words, commands.walk, threads);
    let failed = false;
    try {
      failed = walk(memory, tape, steps, threads) !== 0;
    } catch (error) {
      reportFailure(setupOf(this.#alive(), 0), error);
      failed = true;
    }
    if (!failed) return;
    this.#state = 'failed';
    const lost = this.#workers.findIndex(isLost);
    const reason = lost < 0 ? failureText(setup) : `thread ${lost + 1} ended in the middle of its work`;
    // Otherwise a slow thread could still read this tape while the next batch is written.
    await this.#end();
    throw new BackendError('KernelFailed', reason);
  }

  /** Ends the threads and drops the references to memories and modules. */
  async stop(): Promise<void> {
    const held = this.#held;
    this.#held = undefined;
    if (held && this.#workers.length > 0) this.#wake(viewSharedWords(held.setup), commands.exit, held.setup.threads);
    await this.#end();
  }

  #alive(): Held {
    if (!this.#held) throw new LanewiseError('Disposed', 'the threads have been stopped');
    return this.#held;
  }

  #wake(words: Int32Array, command: number, threads: number): void {
    Atomics.store(words, sharedWords.command >> 2, command);
    const epoch = Math.trunc(Atomics.load(words, sharedWords.epoch >> 2) / EPOCH) * EPOCH;
    Atomics.store(words, sharedWords.epoch >> 2, (epoch + EPOCH + threads) % 2 ** 31);
    Atomics.notify(words, sharedWords.epoch >> 2);
  }

  async #spawn(load?: LoadList): Promise<void> {
    const held = this.#alive();
    const { setup } = held;
    const workers = Array.from({ length: setup.threads - 1 }, (_, n) =>
      this.#host.spawn({ ...setupOf(held, n + 1), load }),
    );
    const results = await Promise.allSettled(workers.map((thread) => thread.ready));
    this.#workers = workers.filter((_, n) => results[n]!.status === 'fulfilled');
    for (const thread of this.#workers) void thread.ended.then(() => this.#ended(thread));
    const failed = results.find((result) => result.status === 'rejected');
    // Threads of a tape are numbered without gaps: those after the first that failed only load.
    this.#threads = 1 + (failed ? results.indexOf(failed) : workers.length);
    await Promise.all(workers.filter((thread) => !this.#workers.includes(thread)).map((thread) => thread.terminate()));
    if (!failed) return;
    const cause = (failed.reason as Error).message;
    this.#onWarning?.(
      `${this.#threads === 1 ? 'one thread' : `${this.#threads} threads`} instead of ${setup.threads}: ${cause}`,
    );
  }

  async #end(): Promise<void> {
    const workers = this.#workers;
    this.#workers = [];
    await Promise.all(workers.map((thread) => thread.terminate()));
  }

  /** A thread that ended by itself, for instance at a limit of its own heap. */
  #ended(thread: Thread): void {
    if (this.#workers.includes(thread) && this.#state === 'ready') this.#state = 'lost';
  }

  /** Called while the calling thread waits at a barrier: it gets no events there. */
  #lookForLost(): void {
    if (!this.#workers.some(isLost)) return;
    for (const memory of this.memories) poison(memory, controlAddress);
  }

  /** Shared words, barrier words and poison start from zero, as do the claims of the last tape. Settings of a forward stay. */
  #clear(): void {
    const { setup } = this.#alive();
    const words = viewSharedWords(setup);
    const [memory, tape, steps] = [sharedWords.memory, sharedWords.tape, sharedWords.steps].map(
      (at) => words[at >> 2]!,
    ) as [number, number, number];
    const records = new Int32Array(setup.memories[memory]!.buffer, tape >>> 0, (steps * RECORD_BYTES) / 4);
    for (let step = 0; step < steps; step++) records[(step * RECORD_BYTES + CLAIMS_AT) / 4] = 0;
    for (const { buffer } of setup.memories) {
      const head = new Uint8Array(buffer, 0, FIRST_REGION);
      head.fill(0, 0, controlAddress);
      head.fill(0, controlAddress + control.poison);
    }
  }
}

const isLost = (thread: Thread): boolean => thread.isLost?.() ?? false;

function setupOf({ setup, scratchOf, times }: Omit<Held, 'walk'>, thread: number): ThreadSetup {
  const scratch = setup.memories.map((_, memory) => scratchOf(thread, memory));
  return { ...setup, thread, scratch, times: times[thread]! };
}
