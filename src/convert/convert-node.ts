/** Conversion on worker threads of Node. */
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
 * As many threads as there are processors, started as they are needed; fewer where they do not start, down to the calling
 * thread alone.
 */
export class ThreadedConverter implements Converter {
  readonly width = availableParallelism();
  /** Why there are fewer threads, if there are. */
  readonly warnings: string[] = [];
  /** What each thread is at, if anything. */
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

  /** Gives waiting pieces to threads that have none, and starts threads for the rest. */
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
    worker.on('exit', () => fail(new Error('it ended')));
  }

  #fewer(error: Error): void {
    this.#most = this.#workers.size;
    const [line] = error.message.split('\n');
    if (this.warnings.length === 0) this.warnings.push(`converting with fewer threads, as one did not start: ${line}`);
  }
}
