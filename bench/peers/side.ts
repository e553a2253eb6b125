/**
 * One engine in a process of its own. It loads its model, sends an `Introduction`, then answers every message with the
 * times of one turn: a prompt evaluated from the start, then single tokens.
 */
import { type ChildProcess, fork } from 'node:child_process';

export interface SideOptions {
  /** What the engine loads. */
  readonly model: string;
  readonly threads: number;
  readonly promptTokens: number;
  readonly decodeTokens: number;
}

export interface LanewiseOptions extends SideOptions {
  /** A storage policy. */
  readonly quantize: string;
}

/** A decoded token is evaluated into the cache, without logits, or generated greedily, which takes the output matrix too. */
export type Way = 'evaluate' | 'generate';

export interface Turn {
  /** The whole prompt. */
  readonly prefillMs: number;
  /** Milliseconds of each token. */
  readonly decodeMs: Readonly<Record<Way, readonly number[]>>;
}

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

  async turn(): Promise<Turn> {
    const result = answer<Turn>(this.#process);
    this.#process.send({});
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
