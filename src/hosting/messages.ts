/** What a caller and the thread that hosts its engine tell each other. Everything here can be cloned. */
import type { ErrorData } from './error-data.ts';

/** From the caller to the engine's thread. */
export type CallerMessage =
  | { readonly kind: 'call'; readonly id: number; readonly method: string; readonly values: readonly unknown[] }
  /** `reason`: the error that is to be its end. */
  | { readonly kind: 'cancel'; readonly id: number; readonly reason?: ErrorData }
  /** Asks for a sign of life. */
  | { readonly kind: 'ping' }
  /** Which records of the log the caller's program wants. */
  | { readonly kind: 'log'; readonly levels: LogLevels };

/** From the engine's thread to the caller: everything since the last message, in its order. */
export type EngineMessages = readonly EngineMessage[];

export type EngineMessage =
  /** The thread runs and takes calls. */
  | { readonly kind: 'ready' }
  | { readonly kind: 'event'; readonly id: number; readonly event: unknown }
  | { readonly kind: 'result'; readonly id: number; readonly value: unknown }
  /** `cancelled`: the caller's own signal ended the call; its reason stays with the caller. */
  | { readonly kind: 'error'; readonly id: number; readonly error: ErrorData; readonly cancelled: boolean }
  | { readonly kind: 'pong' }
  /** Numbers that the caller can ask for at any time. */
  | { readonly kind: 'state'; readonly state: unknown }
  /** For `onWarning`. */
  | { readonly kind: 'warning'; readonly text: string }
  | { readonly kind: 'log'; readonly category: string; readonly level: string; readonly message: string };

/** Lowest level that is written, by category. */
export type LogLevels = Readonly<Record<string, string>>;

/** One end of the connection, as the engine's thread sees it. */
export interface Port {
  post(messages: EngineMessages, transfer: readonly ArrayBuffer[]): void;
  listen(onMessage: (message: CallerMessage) => void): void;
}

/** A thread made to host an engine, as its caller sees it. */
export interface EngineThread {
  /** @throws DataCloneError for values that cannot be cloned */
  post(message: CallerMessage, transfer?: readonly ArrayBuffer[]): void;
  listen(onMessages: (messages: EngineMessages) => void): void;
  /** Resolves with the reason when the thread is no more. */
  readonly ended: Promise<string>;
  /** Whether the thread keeps the process alive. */
  hold(on: boolean): void;
  terminate(): Promise<void>;
}
