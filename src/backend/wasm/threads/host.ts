/** Interface between the WebAssembly backend and its platform, implemented for Node and for browsers. */
import type { ReadFile, ThreadSetup } from './thread-setup.ts';

export interface CompileOptions {
  /**
   * Compile to 256-bit vectors (V8's revectorizer), if the engine can. Results have the same bits either way.
   */
  readonly wide: boolean;
}

export interface Thread {
  /** Resolves when the thread waits for work. Rejects when it cannot start. */
  readonly ready: Promise<void>;
  /** Resolves when the thread has ended, for any reason. */
  readonly ended: Promise<void>;
  /** Whether the thread has ended, without waiting for an event. Undefined if the platform cannot tell. */
  readonly isLost?: () => boolean;
  terminate(): Promise<void>;
}

/** A small text kept between processes. */
export interface Notes {
  /** Identifies processor, engine and kernels; notes of others are ignored. */
  readonly machine: string;
  /** Undefined if there is none. Neither method throws. */
  read(): string | undefined;
  write(text: string): void;
}

export interface WasmHost {
  /** Cores that threads of this process may use. */
  readonly cores: number;
  /** False if `cores` may be wrong; default true. */
  readonly coresCounted?: boolean;
  /** Bytes of memory that this process may use, as far as known. */
  readonly memoryBytes: number;
  /** Bytes of it that nobody uses at present; undefined: not known. */
  readonly unusedBytes?: number;
  /** Whether threads with shared memory are possible, or why not. */
  readonly threads:
    | { readonly possible: true }
    | {
        readonly possible: false;
        readonly reason: string;
        /** Whether to warn even if the user did not ask for threads. */
        readonly remarkable?: boolean;
      };
  /** Whether `wide` has an effect. */
  readonly widens: boolean;
  /** How these facts were found, in words. */
  readonly why?: { readonly cores?: string; readonly vectors?: string; readonly memory?: string };
  /** Without notes, nothing is measured. */
  readonly notes?: Notes;
  compile(bytes: Uint8Array<ArrayBuffer>, options: CompileOptions): WebAssembly.Module;
  /** Starts so many threads ahead of their `spawn`, so that they start beside other work. */
  prestart?(threads: number): void;
  /** Ends threads that were started ahead and not spawned yet. */
  endPrestarted?(): Promise<void>;
  spawn(setup: ThreadSetup): Thread;
  /** Undefined if files have no descriptors. */
  readonly read?: ReadFile;
}
