/** The threads of one backend: started once, woken once per walk, rebuilt after a failure. */
import { BackendError } from '../../errors.ts';
import type { Thread, WasmHost } from './host.ts';
import { FIRST_REGION } from './memory-map.ts';
import {
  commands,
  EPOCH,
  failureText,
  instantiate,
  reportFailure,
  signals,
  signalWords,
  type ThreadSetup,
  type Walk,
} from './thread.ts';

/** What all threads share. */
type CrewSetup = Omit<ThreadSetup, 'thread' | 'scratch'>;

/** Byte address of a thread's scratch area in a memory. */
export type ScratchOf = (thread: number, memory: number) => number;

export class Pool {
  readonly threads: number;
  readonly #host: WasmHost;
  readonly #setup: CrewSetup;
  readonly #scratchOf: ScratchOf;
  readonly #walk: Walk;
  #crew: Thread[] = [];
  #broken = false;

  private constructor(host: WasmHost, setup: CrewSetup, scratchOf: ScratchOf, mark: () => void) {
    this.#host = host;
    this.#setup = setup;
    this.#scratchOf = scratchOf;
    this.threads = setup.threads;
    this.#walk = instantiate(this.#setupOf(0), mark);
  }

  /** @param mark called where the timing setting says */
  static async start(host: WasmHost, setup: CrewSetup, scratchOf: ScratchOf, mark: () => void): Promise<Pool> {
    const pool = new Pool(host, setup, scratchOf, mark);
    await pool.#spawn();
    return pool;
  }

  /**
   * The first `threads` threads walk `steps` records from address `tape` of a memory. Blocks; rejects with the failing
   * thread's message.
   */
  async run(memory: number, tape: number, steps: number, threads = this.threads): Promise<void> {
    if (this.#broken) await this.#rebuild();
    const words = signalWords(this.#setup);
    words[signals.memory >> 2] = memory;
    words[signals.tape >> 2] = tape;
    words[signals.steps >> 2] = steps;
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
    const crew = this.#crew;
    this.#crew = [];
    if (crew.length === 0) return;
    this.#wake(signalWords(this.#setup), commands.exit, this.threads);
    await Promise.all(crew.map((thread) => thread.terminate()));
  }

  #setupOf(thread: number): ThreadSetup {
    const scratch = this.#setup.memories.map((_, memory) => this.#scratchOf(thread, memory));
    return { ...this.#setup, thread, scratch };
  }

  #wake(words: Int32Array, command: number, threads: number): void {
    Atomics.store(words, signals.command >> 2, command);
    const epoch = Math.trunc(Atomics.load(words, signals.epoch >> 2) / EPOCH) * EPOCH;
    Atomics.store(words, signals.epoch >> 2, (epoch + EPOCH + threads) % 2 ** 31);
    Atomics.notify(words, signals.epoch >> 2);
  }

  async #spawn(): Promise<void> {
    this.#crew = Array.from({ length: this.threads - 1 }, (_, n) => this.#host.spawn(this.#setupOf(n + 1)));
    try {
      await Promise.all(this.#crew.map((thread) => thread.ready));
      for (const thread of this.#crew) void thread.ended.then(() => this.#lost(thread));
    } catch (error) {
      await this.stop();
      throw error;
    }
  }

  /** A thread that ended by itself, for instance at a limit of its own heap. */
  #lost(thread: Thread): void {
    if (this.#crew.includes(thread)) this.#broken = true;
  }

  /** New threads over the same memories; barrier words and poison start from zero. */
  async #rebuild(): Promise<void> {
    const crew = this.#crew;
    this.#crew = [];
    await Promise.all(crew.map((thread) => thread.terminate()));
    for (const { buffer } of this.#setup.memories) new Uint8Array(buffer, 0, FIRST_REGION).fill(0);
    await this.#spawn();
    this.#broken = false;
  }
}
