/** Converts tensors on worker threads of Node. */
import { availableParallelism } from 'node:os';
import type { Worker } from 'node:worker_threads';
import { startThread } from '../backend/wasm/threads/start-node.ts';
import { BackendError } from '../errors.ts';
import { type Converter, inlineConverter } from './convert.ts';
import type { ConvertedPiece, Piece } from './convert-piece.ts';

interface Task {
  readonly piece: Piece;
  readonly resolve: (converted: ConvertedPiece) => void;
  readonly reject: (error: Error) => void;
}

/**
 * Starts threads on demand, at most one per processor. If threads fail to start it goes on with fewer, at worst on the
 * calling thread.
 */
export class ThreadedConverter implements Converter {
  readonly width = availableParallelism();
  /** Why fewer threads are used, if so. */
  readonly warnings: string[] = [];
  /** The task of each thread; undefined: idle. */
  readonly #workers = new Map<Worker, Task | 'starting' | undefined>();
  readonly #waiting: Task[] = [];
  #most = this.width;
  #closed = false;

  convert(piece: Piece): Promise<ConvertedPiece> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ piece, resolve, reject });
      this.#assign();
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all([...this.#workers.keys()].map((worker) => worker.terminate()));
  }

  /** Gives waiting pieces to idle threads, and starts threads for the rest. */
  #assign(): void {
    for (const [worker, state] of this.#workers) {
      const task = state === undefined ? this.#waiting.shift() : undefined;
      if (task === undefined) continue;
      this.#workers.set(worker, task);
      worker.postMessage(task.piece, [task.piece.bytes.buffer as ArrayBuffer]);
    }
    const starting = [...this.#workers.values()].filter((state) => state === 'starting').length;
    for (let n = starting; n < this.#waiting.length && this.#workers.size < this.#most; n++) this.#start();
    if (this.#most > 0) return;
    for (const { piece, resolve, reject } of this.#waiting.splice(0))
      void inlineConverter.convert(piece).then(resolve, reject);
  }

  #start(): void {
    let worker: Worker;
    try {
      worker = startThread('converter', './convert-worker-node', import.meta.url, 'lanewise convert');
    } catch (error) {
      this.#fewer(error as Error);
      return;
    }
    this.#workers.set(worker, 'starting');
    const idle = (): void => {
      this.#workers.set(worker, undefined);
      this.#assign();
    };
    const fail = (error: Error): void => {
      const state = this.#workers.get(worker);
      if (!this.#workers.delete(worker) || this.#closed) return;
      if (state === 'starting') this.#fewer(error);
      else state?.reject(new BackendError('ThreadFailed', `a thread of the conversion failed: ${error.message}`));
      this.#assign();
    };
    worker.once('online', idle);
    worker.on('message', (converted: ConvertedPiece) => {
      const state = this.#workers.get(worker);
      if (typeof state === 'object') state.resolve(converted);
      idle();
    });
    worker.on('error', fail);
    worker.on('exit', () => fail(new Error('it exited')));
  }

  #fewer(error: Error): void {
    this.#most = this.#workers.size;
    const [line] = error.message.split('\n');
    if (this.warnings.length === 0) this.warnings.push(`converting with fewer threads: one did not start: ${line}`);
  }
}
