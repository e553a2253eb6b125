/**
 * Runs one engine in its own process. It loads its model, sends an `Introduction`, then answers every `Task` with times in
 * milliseconds.
 */
import { type ChildProcess, fork } from 'node:child_process';

export const kvCaches = ['f32', 'f16', 'q8_0'] as const;
export type KvCache = (typeof kvCaches)[number];

export interface SideOptions {
  /** A GGUF file. */
  readonly model: string;
  readonly threads: number;
  readonly promptTokens: number;
  readonly decodeTokens: number;
  /** Sequences of the batch; 0: no batch. */
  readonly sequences: number;
}

export interface LanewiseOptions extends SideOptions {
  /** Storage of keys and values; undefined: Lanewise's default. */
  readonly kvCache?: KvCache;
}

/** Prompt tokens of each sequence of a batch. */
export const BATCH_PROMPT = 32;

/** Room in the context for tokens that are not counted: the first one of each run. */
export const ROOM = 64;

/** `evaluate`: decode into the KV cache, without logits; `generate`: greedily, which also needs the output matrix. */
export type Way = 'evaluate' | 'generate';

export const ways: readonly Way[] = ['evaluate', 'generate'];

/**
 * prompt: prefill of a new sequence; the answer is its time.
 * batch: new sequences with short prompts, not timed.
 * decode: steps of one token for each sequence; the answer is the time of each step.
 */
export type Task =
  | { readonly task: 'prompt' }
  | { readonly task: 'batch' }
  | { readonly task: 'decode'; readonly way: Way; readonly rounds: number };

/** What Lanewise reports about its model; empty for the peer. */
export interface Introduction {
  /** Bytes of weights, keys and values read per decoded token. */
  readonly bytesPerToken?: Readonly<Record<Way, number>>;
  /** Multiplications and additions of the linear layers per prompt token. */
  readonly operationsPerToken?: number;
}

export class Side {
  readonly introduction: Introduction;
  readonly #process: ChildProcess;

  private constructor(child: ChildProcess, introduction: Introduction) {
    this.#process = child;
    this.introduction = introduction;
  }

  /** Resolves when the model is loaded. */
  static async start(script: URL, options: SideOptions | LanewiseOptions): Promise<Side> {
    const child = fork(script, [JSON.stringify(options)], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    return new Side(child, await answer<Introduction>(child));
  }

  async ask(task: Task): Promise<readonly number[]> {
    const result = answer<readonly number[]>(this.#process);
    this.#process.send(task);
    return result;
  }

  stop(): void {
    this.#process.kill();
  }
}

function answer<T>(child: ChildProcess): Promise<T> {
  return new Promise((resolve, reject) => {
    const ended = (code: number | null): void => reject(new Error(`${child.spawnargs[1]} ended with code ${code}`));
    child.once('exit', ended);
    child.once('message', (message) => {
      child.off('exit', ended);
      resolve(message as T);
    });
  });
}
