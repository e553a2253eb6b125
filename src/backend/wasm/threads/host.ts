/** What the WebAssembly backend needs from its surroundings. Node and browsers each have one implementation. */
import type { ReadFile, ThreadSetup } from './thread-setup.ts';

export interface CompileOptions {
  /**
   * Ask the engine for code of its best width (256 bits through V8's revectorizer). A host that cannot ask compiles as
   * usual. Results have the same bits either way.
   */
  readonly wide: boolean;
}

export interface Thread {
  /** Resolves when the thread waits for work. Rejects when it cannot start. */
  readonly ready: Promise<void>;
  /** Resolves when the thread is no more, for whatever reason. */
  readonly ended: Promise<void>;
  /** Whether it is no more, told without waiting for an event. Undefined where that cannot be told. */
  readonly isLost?: () => boolean;
  terminate(): Promise<void>;
}

/** One small text that outlives the process. */
export interface Notes {
  /** What it was found on: processor, engine, kernels. */
  readonly machine: string;
  /** Undefined where there is none. Neither throws. */
  read(): string | undefined;
  write(text: string): void;
}

export interface WasmHost {
  /** Cores that threads of this process may use. */
  readonly cores: number;
  /** False where `cores` is only what the surroundings claim; default true. */
  readonly coresCounted?: boolean;
  /** Bytes of memory that this process may use, as far as is known. */
  readonly memoryBytes: number;
  /** Bytes of it that nobody uses at present; undefined: not known. */
  readonly unusedBytes?: number;
  /** Whether threads over shared memory can be had, or why not. */
  readonly threads:
    | { readonly possible: true }
    | {
        readonly possible: false;
        readonly reason: string;
        /** Whether it is said also where nobody asked for threads. */
        readonly remarkable?: boolean;
      };
  /** Whether `wide` does anything here. */
  readonly widens: boolean;
  /** Without it nothing is measured and kept. */
  readonly notes?: Notes;
  compile(bytes: Uint8Array<ArrayBuffer>, options: CompileOptions): WebAssembly.Module;
  /** Starts so many threads ahead of their `spawn`, so that they start beside other work. */
  prestart?(threads: number): void;
  /** Ends threads that were started ahead and not spawned yet. */
  endPrestarted?(): Promise<void>;
  spawn(setup: ThreadSetup): Thread;
  /** Undefined where files have no descriptors. */
  readonly read?: ReadFile;
}
