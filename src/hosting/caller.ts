/** The caller's side of a hosted engine: calls and their events, and their failure when the thread is lost. */
import { BackendError, LanewiseError, OptionError } from '../errors.ts';
import type { Entry } from '../recording/format.ts';
import { packError, unpackError } from './error-data.ts';
import type { CallerMessage, EngineMessage, EngineThread, LogLevels } from './messages.ts';

export interface CallOptions {
  /** Called with the events before the result. */
  readonly onEvent?: (event: unknown) => void;
  /** Aborts the call: the engine ends it, and it rejects with the signal's reason. */
  readonly signal?: AbortSignal;
  /** Aborts a call whose result reports the end; the engine answers even if it was aborted before it was sent. */
  readonly cancel?: AbortSignal;
  /** Buffers to transfer to the engine's thread. */
  readonly transfer?: readonly ArrayBuffer[];
}

export interface CallerOptions {
  /** Number of checks in a row without a message, after a ping, after which the thread is ended. */
  readonly patience?: number;
  readonly lookMs?: number;
  readonly onState?: (state: unknown) => void;
  readonly onWarning?: (text: string) => void;
  readonly onRecord?: ((entry: Entry) => void) | undefined;
  readonly onTrace?: ((bytes: Uint8Array<ArrayBuffer>) => void) | undefined;
  readonly onLog?: (record: Extract<EngineMessage, { kind: 'log' }>) => void;
}

interface Pending extends CallOptions {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
  readonly onAbort: () => void;
}

/** Checks without a message before a ping is sent. */
const QUIET_LOOKS = 5;
/** Longer than the time after which a walk with a missing thread fails (src/kernels/barrier.ts). */
const PATIENCE_LOOKS = 120;
const LOOK_MS = 1000;

export class Caller {
  /** Resolves when the thread takes calls. Rejects if it ends earlier. */
  readonly ready: Promise<void>;
  /** Resolves when the thread is lost or has been ended. */
  readonly lost: Promise<LanewiseError>;
  readonly #thread: EngineThread;
  readonly #options: CallerOptions;
  readonly #pending = new Map<number, Pending>();
  #nextId = 0;
  #failure: LanewiseError | undefined;
  #setReady!: (failure?: LanewiseError) => void;
  #setLost!: (failure: LanewiseError) => void;
  /** Checks since the last message. */
  #quiet = 0;
  #clock: ReturnType<typeof setInterval> | undefined;
  #levels = '';
  #isReady = false;

  constructor(thread: EngineThread, options: CallerOptions = {}) {
    this.#thread = thread;
    this.#options = options;
    this.ready = new Promise((resolve, reject) => {
      this.#setReady = (failure) => (failure ? reject(failure) : resolve());
    });
    this.ready.catch(() => {});
    this.lost = new Promise((resolve) => {
      this.#setLost = resolve;
    });
    thread.listen((messages) => this.#receive(messages));
    void thread.ended.then((reason) => this.fail(lostError(reason)));
    this.#watch();
  }

  /** The error of all further calls, once the thread is lost. */
  get failure(): LanewiseError | undefined {
    return this.#failure;
  }

  /**
   * @throws the error of the engine, the signal's reason; BackendError EngineLost; OptionError for values that cannot be
   * cloned
   */
  call<T>(method: string, values: readonly unknown[], options: CallOptions = {}): Promise<T> {
    return new Promise<unknown>((resolve, reject) => {
      if (this.#failure) return reject(this.#failure);
      const { signal, cancel, transfer } = options;
      if (signal?.aborted) return reject(signal.reason);
      const id = this.#nextId++;
      try {
        this.#thread.post({ kind: 'call', id, method, values }, transfer);
      } catch (error) {
        return reject(notCloneable(error));
      }
      const onAbort = (): void => this.#cancel(id, (signal ?? cancel)!.reason);
      for (const heard of [signal, cancel]) heard?.addEventListener('abort', onAbort);
      this.#pending.set(id, { ...options, resolve, reject, onAbort });
      if (cancel?.aborted) onAbort();
      this.#watch();
    }) as Promise<T>;
  }

  /** Sets the log levels that the engine's thread sends. */
  wantLog(levels: LogLevels): void {
    const text = JSON.stringify(levels);
    if (text === this.#levels || this.#failure) return;
    this.#levels = text;
    this.#post({ kind: 'log', levels });
  }

  /** Ends the thread and fails all calls, now and later. */
  fail(failure: LanewiseError): void {
    if (this.#failure) return;
    this.#failure = failure;
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    this.#watch();
    this.#setReady(failure);
    this.#setLost(failure);
    void this.#thread.terminate();
    for (const call of pending) {
      quiet(call);
      call.reject(failure);
    }
  }

  /** Ends the thread. Pending calls fail with `failure`. */
  async end(failure: LanewiseError): Promise<void> {
    this.fail(failure);
    await this.#thread.terminate();
  }

  /** Cancels a call, with the reason if it is a LanewiseError. */
  #cancel(id: number, why: unknown): void {
    if (!this.#pending.has(id)) return;
    this.#post({ kind: 'cancel', id, reason: why instanceof LanewiseError ? packError(why) : undefined });
  }

  #post(message: CallerMessage): void {
    this.#thread.post(message);
  }

  #receive(messages: readonly EngineMessage[]): void {
    this.#quiet = 0;
    for (const message of messages) {
      try {
        this.#take(message);
      } catch (error) {
        // A function of the caller threw. The other messages are still delivered.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }

  #take(message: EngineMessage): void {
    if (message.kind === 'log') this.#options.onLog?.(message);
    else if (message.kind === 'state') this.#options.onState?.(message.state);
    else if (message.kind === 'record') this.#options.onRecord?.(message.entry);
    else if (message.kind === 'trace') this.#options.onTrace?.(message.bytes);
    else if (message.kind === 'warning') this.#options.onWarning?.(message.text);
    else if (message.kind === 'ready') {
      this.#isReady = true;
      this.#setReady();
      this.#watch();
    } else if (message.kind === 'event') this.#pending.get(message.id)?.onEvent?.(message.event);
    else if (message.kind !== 'pong') this.#settle(message);
  }

  #settle(message: Extract<EngineMessage, { kind: 'result' | 'error' }>): void {
    const pending = this.#pending.get(message.id);
    if (!pending) return;
    this.#pending.delete(message.id);
    quiet(pending);
    const { signal, resolve, reject } = pending;
    this.#watch();
    if (message.kind === 'result') resolve(message.value);
    else reject(message.cancelled && signal?.aborted ? signal.reason : unpackError(message.error));
  }

  /** While calls are pending, the thread keeps the process alive and is checked for messages. */
  #watch(): void {
    const waits = !this.#failure && (this.#pending.size > 0 || !this.#isReady);
    if (waits === (this.#clock !== undefined)) return;
    this.#thread.hold(waits);
    clearInterval(this.#clock);
    this.#clock = undefined;
    this.#quiet = 0;
    if (!waits) return;
    this.#clock = setInterval(() => this.#look(), this.#options.lookMs ?? LOOK_MS);
    (this.#clock as { unref?(): void }).unref?.();
  }

  /** Checks are counted, not seconds, so that a process that was suspended does not lose its thread. */
  #look(): void {
    this.#quiet++;
    if (this.#quiet === QUIET_LOOKS) this.#post({ kind: 'ping' });
    const { patience = PATIENCE_LOOKS, lookMs = LOOK_MS } = this.#options;
    if (this.#quiet < QUIET_LOOKS + patience) return;
    this.fail(lostError(`it did not respond for ${(this.#quiet * lookMs) / 1000} s`));
  }
}

const quiet = ({ signal, cancel, onAbort }: Pending): void => {
  for (const heard of [signal, cancel]) heard?.removeEventListener('abort', onAbort);
};

export const lostError = (reason: string): BackendError =>
  new BackendError('EngineLost', `the thread of the engine is lost: ${reason}`);

function notCloneable(error: unknown): unknown {
  if (!(error instanceof Error) || error.name !== 'DataCloneError') return error;
  const what = `made of plain data where the engine has a thread of its own (${error.message}); load with inline: true for others`;
  return new OptionError('options', what, undefined);
}
