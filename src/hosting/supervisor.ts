/** Keeps one engine in a thread of its own: starts it, loads it, and starts another one where the thread was lost. */
import { BackendError, LanewiseError } from '../errors.ts';
import { Caller, type CallerOptions, type CallOptions } from './caller.ts';
import type { EngineThread } from './messages.ts';

export interface SupervisorOptions<L> extends CallerOptions {
  /** For messages. */
  readonly name: () => string;
  /** @throws errors of the system where no thread can start */
  readonly start: () => EngineThread;
  /** Loads the model; first, or again. */
  readonly load: (caller: Caller) => Promise<L>;
}

/** Losses in a row, without a call that succeeded in between, after which the model is given up. */
const MOST_LOSSES = 2;
/** Milliseconds for an engine to give back what it holds, before its thread is ended all the same. */
const DISPOSE_MS = 10_000;

/** An engine that runs, with what its load said. */
export interface Running<L> {
  readonly caller: Caller;
  readonly loaded: L;
}

export class Supervisor<L> {
  readonly #options: SupervisorOptions<L>;
  #running: Promise<Running<L>> | undefined;
  #newest: { readonly caller: Caller; loaded: boolean } | undefined;
  #started = false;
  #losses = 0;
  #disposed: Promise<void> | undefined;

  constructor(options: SupervisorOptions<L>) {
    this.#options = options;
  }

  /** Whether a thread could be started at all. */
  get started(): boolean {
    return this.#started;
  }

  /** The engine that runs now; another one where the last one was lost. @throws what the load throws; EngineLost */
  running(): Promise<Running<L>> {
    if (this.#disposed) return Promise.reject(this.#disposedError());
    this.#running ??= this.#launch();
    return this.#running;
  }

  /** One call of the engine that runs now. */
  async call<T>(method: string, values: readonly unknown[], options?: CallOptions): Promise<T> {
    const { caller } = await this.running();
    options?.signal?.throwIfAborted();
    return this.succeeded(caller.call<T>(method, values, options));
  }

  /** Counts a call: an engine that still does what it is asked may be lost again later. */
  async succeeded<T>(call: Promise<T>): Promise<T> {
    const value = await call;
    this.#losses = 0;
    return value;
  }

  /** Ends the thread. Never fails; what is in flight does. */
  dispose(): Promise<void> {
    this.#disposed ??= this.#end();
    return this.#disposed;
  }

  async #launch(): Promise<Running<L>> {
    if (this.#losses >= MOST_LOSSES) {
      const what = `${this.#options.name()} is gone: its engine was lost ${this.#losses} times; load the model again`;
      throw new BackendError('EngineLost', what);
    }
    let caller: Caller | undefined;
    try {
      caller = new Caller(this.#options.start(), this.#options);
      this.#newest = { caller, loaded: false };
      void caller.lost.then((failure) => this.#lose(failure));
      await caller.ready;
      this.#started = true;
      const loaded = await this.#options.load(caller);
      this.#newest.loaded = true;
      return { caller, loaded };
    } catch (error) {
      this.#running = undefined;
      await caller?.end(this.#disposedError());
      throw error;
    }
  }

  #lose({ code }: LanewiseError): void {
    if (code !== 'EngineLost') return;
    this.#losses++;
    this.#running = undefined;
  }

  async #end(): Promise<void> {
    if (!this.#newest) return;
    const { caller, loaded } = this.#newest;
    if (loaded) await within(caller.call('dispose', []), DISPOSE_MS);
    await caller.end(this.#disposedError());
  }

  #disposedError(): LanewiseError {
    return new LanewiseError('Disposed', `${this.#options.name()} has been disposed`);
  }
}

/** Resolves when the work is done or failed, or the time is over. */
function within(work: Promise<unknown>, ms: number): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    const done = (): void => {
      clearTimeout(timer);
      resolve();
    };
    void work.then(done, done);
  });
}
