/** Messages between a caller and the thread that hosts its engine. All can be cloned. */
import type { Entry } from '../recording/format.ts';
import type { ErrorData } from './error-data.ts';

/** From the caller to the engine's thread. */
export type CallerMessage =
  | { readonly kind: 'call'; readonly id: number; readonly method: string; readonly values: readonly unknown[] }
  /** `reason`: the error that the call should end with. */
  | { readonly kind: 'cancel'; readonly id: number; readonly reason?: ErrorData }
  /** Requires an answer. */
  | { readonly kind: 'ping' }
  /** Log levels that the caller's program wants. */
  | { readonly kind: 'log'; readonly levels: LogLevels };

/** From the engine's thread to the caller: everything since the last message, in order. */
export type EngineMessages = readonly EngineMessage[];

export type EngineMessage =
  /** The thread is ready for calls. */
  | { readonly kind: 'ready' }
  | { readonly kind: 'event'; readonly id: number; readonly event: unknown }
  | { readonly kind: 'result'; readonly id: number; readonly value: unknown }
  /** `cancelled`: the caller's signal ended the call; the caller knows its reason. */
  | { readonly kind: 'error'; readonly id: number; readonly error: ErrorData; readonly cancelled: boolean }
  | { readonly kind: 'pong' }
  /** State that the caller can read at any time. */
  | { readonly kind: 'state'; readonly state: unknown }
  /** For `onWarning`. */
  | { readonly kind: 'warning'; readonly text: string }
  /** An entry of the recording that the load named. */
  | { readonly kind: 'record'; readonly entry: Entry }
  /** Events of the trace that the load named. */
  | { readonly kind: 'trace'; readonly bytes: Uint8Array<ArrayBuffer> }
  | { readonly kind: 'log'; readonly category: string; readonly level: string; readonly message: string };

/** Lowest level written, by category. */
export type LogLevels = Readonly<Record<string, string>>;

/** The engine's end of the connection. */
export interface Port {
  post(messages: EngineMessages, transfer: readonly ArrayBuffer[]): void;
  listen(onMessage: (message: CallerMessage) => void): void;
}

/** The caller's end of the connection: a thread that hosts an engine. */
export interface EngineThread {
  /** @throws DataCloneError for values that cannot be cloned */
  post(message: CallerMessage, transfer?: readonly ArrayBuffer[]): void;
  listen(onMessages: (messages: EngineMessages) => void): void;
  /** Resolves with the reason when the thread has ended. */
  readonly ended: Promise<string>;
  /** Whether the thread keeps the process alive. */
  hold(on: boolean): void;
  terminate(): Promise<void>;
}
