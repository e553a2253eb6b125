/** The threads of one backend: started once, woken once per walk, rebuilt after a failure. */
import { BackendError } from '../../errors.ts';
import type { Thread, WasmHost } from './host.ts';
import { commands, failureText, instantiate, reportFailure, signals, type ThreadSetup, type Walk } from './thread.ts';

export class Pool {
  readonly threads: number;
  readonly #host: WasmHost;
  readonly #setup: Omit<ThreadSetup, 'thread' | 'scratch'>;
  readonly #scratchOf: (thread: number) => number;
  readonly #walk: Walk;
  #crew: Thread[] = [];
  #broken = false;

  private constructor(
    host: WasmHost,
    setup: Omit<ThreadSetup, 'thread' | 'scratch'>,
    scratchOf: (thread: number) => number,
    mark: (step: number) => void,
  ) {
    this.#host = host;
    this.#setup = setup;
    this.#scratchOf = scratchOf;
    this.threads = setup.threads;
    this.#walk = instantiate(this.#setupOf(0), mark);
  }

  /** @param scratchOf byte address of a thread's scratch area @param mark called after each step while timing is on */
  static async start(
    host: WasmHost,
    setup: Omit<ThreadSetup, 'thread' | 'scratch'>,
    scratchOf: (thread: number) => number,
    mark: (step: number) => void,
  ): Promise<Pool> {
    const pool = new Pool(host, setup, scratchOf, mark);
    await pool.#spawn();
    return pool;
  }

  /** All threads walk `steps` records from address `tape`. Blocks; rejects with the failing thread's message. */
  async run(tape: number, steps: number): Promise<void> {
    if (this.#broken) await this.#rebuild();
    const words = new Int32Array(this.#setup.memory.buffer, 0, 256);
    words[signals.tape >> 2] = tape;
    words[signals.steps >> 2] = steps;
    this.#wake(words, commands.walk);
    let poisoned = 0;
    try {
      poisoned = this.#walk(tape, steps);
    } catch (error) {
      reportFailure(this.#setupOf(0), error);
      poisoned = 1;
    }
    if (poisoned === 0) return;
    this.#broken = true;
    throw new BackendError('KernelFailed', `a kernel failed in ${failureText(this.#setup.memory)}`);
  }

  async stop(): Promise<void> {
    const crew = this.#crew;
    this.#crew = [];
    if (crew.length === 0) return;
    this.#wake(new Int32Array(this.#setup.memory.buffer, 0, 256), commands.exit);
    await Promise.all(crew.map((thread) => thread.terminate()));
  }

  #setupOf(thread: number): ThreadSetup {
    return { ...this.#setup, thread, scratch: this.#scratchOf(thread) };
  }

  #wake(words: Int32Array, command: number): void {
    if (this.threads === 1) return;
    Atomics.store(words, signals.command >> 2, command);
    Atomics.add(words, signals.epoch >> 2, 1);
    Atomics.notify(words, signals.epoch >> 2);
  }

  async #spawn(): Promise<void> {
    this.#crew = Array.from({ length: this.threads - 1 }, (_, n) => this.#host.spawn(this.#setupOf(n + 1)));
    try {
      await Promise.all(this.#crew.map((thread) => thread.ready));
    } catch (error) {
      await this.stop();
      throw error;
    }
  }

  /** New threads over the same memory; barrier words and poison start from zero. */
  async #rebuild(): Promise<void> {
    const crew = this.#crew;
    this.#crew = [];
    await Promise.all(crew.map((thread) => thread.terminate()));
    new Uint8Array(this.#setup.memory.buffer, 0, 4096).fill(0);
    await this.#spawn();
    this.#broken = false;
  }
}
