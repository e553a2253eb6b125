/**
 * One engine in a process of its own. It loads its model, sends an `Introduction`, then answers every `Task` with
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
  /** Sequences of the batch; 0: none is measured. */
  readonly sequences: number;
}

export interface LanewiseOptions extends SideOptions {
  /** How keys and values are kept; undefined: as Lanewise does. */
  readonly kvCache?: KvCache;
}

/** Prompt of each sequence of a batch. */
export const BATCH_PROMPT = 32;

/** Tokens for which contexts have room besides those that are counted: the first of each stretch is not. */
export const ROOM = 64;

/** A decoded token is evaluated into the cache, without logits, or generated greedily, which takes the output matrix too. */
export type Way = 'evaluate' | 'generate';

export const ways: readonly Way[] = ['evaluate', 'generate'];

/**
 * prompt: a new sequence; its prompt, answered by the time of the whole.
 * batch: so many new sequences with short prompts, which are not timed.
 * decode: rounds of one token for every sequence that there is, answered by the time of each.
 */
export type Task =
  | { readonly task: 'prompt' }
  | { readonly task: 'batch' }
  | { readonly task: 'decode'; readonly way: Way; readonly rounds: number };

/** What Lanewise says of its model; empty from others. */
export interface Introduction {
  /** Bytes of weights, keys and values that one decoded token reads. */
  readonly bytesPerToken?: Readonly<Record<Way, number>>;
  /** Multiplications and additions of the linear layers for one token of a prompt. */
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
