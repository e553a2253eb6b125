/** Runs an engine in a separate thread: starts and loads it, and starts another one if the thread is lost. */
import { BackendError, LanewiseError } from '../errors.ts';
import { Caller, type CallerOptions } from './caller.ts';
import type { EngineThread } from './messages.ts';

export interface SupervisorOptions<L> extends CallerOptions {
  /** Name of the model, for errors. */
  readonly name: () => string;
  /** Starts a thread. @throws system errors if no thread can start */
  readonly start: () => EngineThread;
  /** Loads the model, the first time or again. */
  readonly load: (caller: Caller) => Promise<L>;
}

/** Number of losses in a row, without a successful call in between, after which the model is given up. */
const MOST_LOSSES = 2;
/** Milliseconds for an engine to release its resources before its thread is terminated. */
const DISPOSE_MS = 10_000;

/** A running engine, and the result of its load. */
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

  /** The running engine, or a new one if the last one was lost. @throws errors of the load; EngineLost */
  running(): Promise<Running<L>> {
    if (this.#disposed) return Promise.reject(this.#disposedError());
    this.#running ??= this.#launch();
    return this.#running;
  }

  /** Notes a successful call, which resets the number of losses. */
  async succeeded<T>(call: Promise<T>): Promise<T> {
    const value = await call;
    this.#losses = 0;
    return value;
  }

  /** Ends the thread. Does not fail; calls in flight do. */
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

/** Resolves when the work has ended, or after `ms`. */
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
