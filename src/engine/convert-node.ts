/** Conversion on worker threads of Node. */
import { availableParallelism } from 'node:os';
import type { Worker } from 'node:worker_threads';
import { startThread } from '../backend/wasm/start-node.ts';
import { BackendError } from '../errors.ts';
import type { Converter } from './convert.ts';
import type { ConvertedPiece, Piece } from './convert-piece.ts';

interface Task {
  readonly piece: Piece;
  readonly resolve: (converted: ConvertedPiece) => void;
  readonly reject: (error: Error) => void;
}

/** As many threads as there are processors, started as they are needed. */
export class ThreadedConverter implements Converter {
  readonly width = availableParallelism();
  /** What each thread is at, if anything. */
  readonly #workers = new Map<Worker, Task | undefined>();
  readonly #waiting: Task[] = [];

  convert(piece: Piece): Promise<ConvertedPiece> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ piece, resolve, reject });
      this.#assign();
    });
  }

  async close(): Promise<void> {
    await Promise.all([...this.#workers.keys()].map((worker) => worker.terminate()));
  }

  /** Gives waiting pieces to threads that have none. */
  #assign(): void {
    while (this.#waiting.length > 0) {
      const idle = [...this.#workers].find(([, task]) => task === undefined)?.[0];
      const worker = idle ?? (this.#workers.size < this.width ? this.#start() : undefined);
      if (worker === undefined) return;
      const task = this.#waiting.shift()!;
      this.#workers.set(worker, task);
      worker.postMessage(task.piece, [task.piece.bytes.buffer as ArrayBuffer]);
    }
  }

  #start(): Worker {
    const worker = startThread('converter', './convert-worker-node', import.meta.url, 'lanewise convert');
    const fail = (what: string): void => {
      this.#workers.get(worker)?.reject(new BackendError('ThreadFailed', `a thread of the conversion ${what}`));
      this.#workers.delete(worker);
      this.#assign();
    };
    worker.on('message', (converted: ConvertedPiece) => {
      this.#workers.get(worker)?.resolve(converted);
      this.#workers.set(worker, undefined);
      this.#assign();
    });
    worker.on('error', (error: Error) => fail(`failed: ${error.message}`));
    worker.on('exit', () => fail('ended'));
    return worker;
  }
}
