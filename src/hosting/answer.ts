/** The engine's side of a connection: runs the methods that the caller calls, and sends events and results. */
import type { Entry } from '../recording/format.ts';
import { packError, unpackError } from './error-data.ts';
import type { CallerMessage, EngineMessage, LogLevels, Port } from './messages.ts';

/** A call in progress. */
export interface Call {
  /** Aborted when the caller cancels the call. */
  readonly signal: AbortSignal;
  /** Sends an event, in one message with others of the same turn of the event loop. */
  emit(event: unknown): void;
}

/** @returns the result, or `moved` of it */
export type Method = (call: Call, ...values: never[]) => unknown;
export type Methods = Readonly<Record<string, Method>>;

/** A result whose buffers are transferred to the caller and become unusable here. */
export class Moved {
  readonly value: unknown;
  readonly buffers: readonly ArrayBuffer[];

  constructor(value: unknown, buffers: readonly ArrayBuffer[]) {
    this.value = value;
    this.buffers = buffers;
  }
}

/** The abort reason of cancelled calls. */
export const cancelled = new Error('the caller cancelled the call');

export interface AnswerOptions {
  /** Called with the log levels that the caller wants. */
  readonly onLog?: (levels: LogLevels) => void;
  /** State to send with every result and from time to time with events; undefined: none yet. */
  readonly state?: () => unknown;
}

export interface Answering {
  warn(text: string): void;
  /** Sends an entry of the recording. */
  record(entry: Entry): void;
  /** Sends events of the trace. */
  trace(bytes: Uint8Array<ArrayBuffer>): void;
  /** Sends a record of the log. */
  log(category: string, level: string, message: string): void;
}

export function answer(port: Port, methods: Methods, { onLog, state }: AnswerOptions = {}): Answering {
  const calls = new Map<number, AbortController>();
  const outbox = new Outbox(port, state);
  const run = async ({ id, method, values }: Extract<CallerMessage, { kind: 'call' }>): Promise<void> => {
    const controller = new AbortController();
    calls.set(id, controller);
    const call: Call = { signal: controller.signal, emit: (event) => outbox.send({ kind: 'event', id, event }) };
    try {
      if (!Object.hasOwn(methods, method)) throw new TypeError(`the engine has no method ${method}`);
      const value = await (methods[method] as (call: Call, ...values: readonly unknown[]) => unknown)(call, ...values);
      if (value instanceof Moved) outbox.send({ kind: 'result', id, value: value.value }, value.buffers);
      else outbox.send({ kind: 'result', id, value });
    } catch (error) {
      const wasCancelled = controller.signal.aborted && error === controller.signal.reason;
      outbox.send({ kind: 'error', id, error: packError(error), cancelled: wasCancelled });
    } finally {
      calls.delete(id);
    }
  };
  port.listen((message) => {
    if (message.kind === 'call') void run(message);
    else if (message.kind === 'cancel')
      calls.get(message.id)?.abort(message.reason ? unpackError(message.reason) : cancelled);
    else if (message.kind === 'ping') outbox.send({ kind: 'pong' });
    else onLog?.(message.levels);
  });
  outbox.send({ kind: 'ready' });
  return {
    warn: (text) => outbox.send({ kind: 'warning', text }),
    record: (entry) => outbox.send({ kind: 'record', entry }),
    trace: (bytes) => outbox.send({ kind: 'trace', bytes }, [bytes.buffer]),
    log: (category, level, message) => outbox.send({ kind: 'log', category, level, message }),
  };
}

/** Milliseconds after which the state is sent again with the next message. */
const STATE_MS = 100;

/**
 * A message costs the caller's thread about as much time as a decode step of a small model. Events are sent at once while
 * messages are few; if steps are faster than this many milliseconds, the events of several steps share a message.
 */
const EVENTS_MS = 2;
const EVENTS_AT_ONCE = 4;

/** Collects the messages of a turn of the event loop into one. */
class Outbox {
  readonly #port: Port;
  readonly #state: (() => unknown) | undefined;
  #messages: EngineMessage[] = [];
  #buffers: ArrayBuffer[] = [];
  #stateAt = 0;
  /** Whether a call has ended since the state was sent. */
  #ended = false;
  /** Messages that may be sent at once, as of `#countedAt`. */
  #free = EVENTS_AT_ONCE;
  #countedAt = 0;
  #flushes = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(port: Port, state: (() => unknown) | undefined) {
    this.#port = port;
    this.#state = state;
  }

  send(message: EngineMessage, buffers: readonly ArrayBuffer[] = []): void {
    if (!['event', 'trace', 'record'].includes(message.kind)) this.#ended = true;
    this.#messages.push(message);
    this.#buffers.push(...buffers);
    if (this.#flushes) return;
    const wait = this.#ended ? 0 : this.#msUntilFree();
    if (wait > 0) {
      this.#timer ??= setTimeout(() => this.#flush(), wait);
      return;
    }
    this.#flushes = true;
    queueMicrotask(() => this.#flush());
  }

  #msUntilFree(): number {
    const now = performance.now();
    this.#free = Math.min(EVENTS_AT_ONCE, this.#free + (now - this.#countedAt) / EVENTS_MS);
    this.#countedAt = now;
    return this.#free >= 1 ? 0 : (1 - this.#free) * EVENTS_MS;
  }

  #flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#flushes = false;
    this.#free = Math.max(0, this.#free - 1);
    this.#addState();
    const [messages, buffers] = [this.#messages, this.#buffers];
    [this.#messages, this.#buffers] = [[], []];
    try {
      this.#port.post(messages, buffers);
    } catch (error) {
      // One of them cannot be cloned: its call fails, the others are sent.
      for (const message of messages) this.#postAlone(message, error);
    }
  }

  #addState(): void {
    const now = performance.now();
    if (!this.#ended && now - this.#stateAt < STATE_MS) return;
    const state = this.#state?.();
    // Sent before results, so that the state is current when a call resolves.
    if (state !== undefined) this.#messages.unshift({ kind: 'state', state });
    this.#stateAt = now;
    this.#ended = false;
  }

  #postAlone(message: EngineMessage, why: unknown): void {
    try {
      this.#port.post([message], []);
    } catch {
      if ('id' in message)
        this.#port.post([{ kind: 'error', id: message.id, error: packError(why), cancelled: false }], []);
    }
  }
}
