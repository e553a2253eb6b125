/** The threads of one backend: started once, woken once per walk, rebuilt after a failure. */
import { BackendError } from '../../../errors.ts';
import { control } from '../../../kernels/barrier.ts';
import { CLAIMS_AT, RECORD_BYTES } from '../../../kernels/record.ts';
import { FIRST_REGION } from '../memory/memory.ts';
import { controlAddress, sharedWords, viewSharedWords } from '../memory/shared-words.ts';
import type { Thread, WasmHost } from './host.ts';
import { commands, EPOCH, failureText, instantiate, reportFailure } from './thread.ts';
import { heldWord, type Loader } from './thread-load.ts';
import type { LoadList, ThreadSetup, WalkTape } from './thread-setup.ts';

/** What all threads share. */
type SharedSetup = Omit<ThreadSetup, 'thread' | 'scratch' | 'load'>;

/** Byte address of a thread's scratch area in a memory. */
export type ScratchOf = (thread: number, memory: number) => number;

export class Pool {
  readonly #host: WasmHost;
  readonly #onWarning: ((text: string) => void) | undefined;
  readonly #setup: SharedSetup;
  readonly #scratchOf: ScratchOf;
  readonly #walk: WalkTape;
  #workers: Thread[] = [];
  #threads: number;
  #broken = false;

  private constructor(
    host: WasmHost,
    setup: SharedSetup,
    scratchOf: ScratchOf,
    mark: () => void,
    onWarning?: (text: string) => void,
  ) {
    this.#host = host;
    this.#setup = setup;
    this.#scratchOf = scratchOf;
    this.#onWarning = onWarning;
    this.#threads = setup.threads;
    this.#walk = instantiate(this.#setupOf(0), mark);
  }

  /**
   * Threads that cannot start are left out, with one warning.
   * @param mark called where the timing setting says @param load what the threads begin with
   */
  static async start(
    host: WasmHost,
    setup: SharedSetup,
    scratchOf: ScratchOf,
    mark: () => void,
    load?: LoadList,
    onWarning?: (text: string) => void,
  ): Promise<Pool> {
    const pool = new Pool(host, setup, scratchOf, mark, onWarning);
    await pool.#spawn(load);
    return pool;
  }

  /** How many walk, the caller among them. */
  get threads(): number {
    return this.#threads;
  }

  get memories(): readonly WebAssembly.Memory[] {
    return this.#setup.memories;
  }

  /** What the calling thread loads with. It walks alone then, whatever the others do. */
  get loader(): Omit<Loader, 'read'> {
    const walk: WalkTape = (...tape) => {
      try {
        return this.#walk(...tape);
      } catch (error) {
        throw new BackendError('KernelFailed', `a kernel failed in thread 0: ${(error as Error).message}`);
      }
    };
    return { setup: this.#setupOf(0), walk };
  }

  /** Waits until no other thread loads any more. @returns the slabs that threads had and left undone */
  async loaded(): Promise<number[]> {
    const words = viewSharedWords(this.#setup);
    while (!this.#broken && Atomics.load(words, sharedWords.loaded >> 2) < this.#workers.length)
      await new Promise((resolve) => setTimeout(resolve, 1));
    if (this.#broken) await Promise.all(this.#workers.map((thread) => thread.terminate()));
    const held = Array.from({ length: this.#setup.threads }, (_, n) => Atomics.load(words, heldWord(n)) - 1);
    return held.filter((slab) => slab >= 0);
  }

  /**
   * The first `threads` threads walk `steps` records from address `tape` of a memory. Blocks; rejects with the failing
   * thread's message.
   */
  async run(memory: number, tape: number, steps: number, wanted = this.threads): Promise<void> {
    if (this.#broken) await this.#rebuild();
    const threads = Math.min(wanted, this.threads);
    const words = viewSharedWords(this.#setup);
    words[sharedWords.memory >> 2] = memory;
    words[sharedWords.tape >> 2] = tape;
    words[sharedWords.steps >> 2] = steps;
    if (threads > 1) this.#wake(words, commands.walk, threads);
    let poisoned = 0;
    try {
      poisoned = this.#walk(memory, tape, steps, threads);
    } catch (error) {
      reportFailure(this.#setupOf(0), error);
      poisoned = 1;
    }
    if (poisoned === 0) return;
    this.#broken = true;
    throw new BackendError('KernelFailed', failureText(this.#setup));
  }

  async stop(): Promise<void> {
    const workers = this.#workers;
    this.#workers = [];
    if (workers.length === 0) return;
    this.#wake(viewSharedWords(this.#setup), commands.exit, this.#setup.threads);
    await Promise.all(workers.map((thread) => thread.terminate()));
  }

  #setupOf(thread: number): ThreadSetup {
    const scratch = this.#setup.memories.map((_, memory) => this.#scratchOf(thread, memory));
    return { ...this.#setup, thread, scratch };
  }

  #wake(words: Int32Array, command: number, threads: number): void {
    Atomics.store(words, sharedWords.command >> 2, command);
    const epoch = Math.trunc(Atomics.load(words, sharedWords.epoch >> 2) / EPOCH) * EPOCH;
    Atomics.store(words, sharedWords.epoch >> 2, (epoch + EPOCH + threads) % 2 ** 31);
    Atomics.notify(words, sharedWords.epoch >> 2);
  }

  async #spawn(load?: LoadList): Promise<void> {
    const workers = Array.from({ length: this.#setup.threads - 1 }, (_, n) =>
      this.#host.spawn({ ...this.#setupOf(n + 1), load }),
    );
    const results = await Promise.allSettled(workers.map((thread) => thread.ready));
    this.#workers = workers.filter((_, n) => results[n]!.status === 'fulfilled');
    for (const thread of this.#workers) void thread.ended.then(() => this.#lost(thread));
    const failed = results.find((result) => result.status === 'rejected');
    // Threads of a walk are numbered without gaps; any after the first that failed has no part in walks.
    this.#threads = 1 + (failed ? results.indexOf(failed) : workers.length);
    await Promise.all(workers.filter((thread) => !this.#workers.includes(thread)).map((thread) => thread.terminate()));
    if (!failed) return;
    const cause = (failed.reason as Error).message;
    this.#onWarning?.(
      `${this.#threads === 1 ? 'one thread' : `${this.#threads} threads`} instead of ${this.#setup.threads}: ${cause}`,
    );
  }

  /** A thread that ended by itself, for instance at a limit of its own heap. */
  #lost(thread: Thread): void {
    if (this.#workers.includes(thread)) this.#broken = true;
  }

  /** In the records of the last walk: whoever failed in it has left its own. */
  #clearClaims(): void {
    const words = viewSharedWords(this.#setup);
    const [memory, tape, steps] = [sharedWords.memory, sharedWords.tape, sharedWords.steps].map(
      (at) => words[at >> 2]!,
    ) as [number, number, number];
    const records = new Int32Array(this.#setup.memories[memory]!.buffer, tape >>> 0, (steps * RECORD_BYTES) / 4);
    for (let step = 0; step < steps; step++) records[(step * RECORD_BYTES + CLAIMS_AT) / 4] = 0;
  }

  /** New threads over the same memories; sharedWords, barrier words and poison start from zero, settings of a forward stay. */
  async #rebuild(): Promise<void> {
    const workers = this.#workers;
    this.#workers = [];
    await Promise.all(workers.map((thread) => thread.terminate()));
    this.#clearClaims();
    for (const { buffer } of this.#setup.memories) {
      const head = new Uint8Array(buffer, 0, FIRST_REGION);
      head.fill(0, 0, controlAddress);
      head.fill(0, controlAddress + control.poison);
    }
    await this.#spawn();
    this.#broken = false;
  }
}
