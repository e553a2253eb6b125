/** A queue of events between an engine that pushes them and a loop that reads them. */

export class EventQueue<E> {
  #events: E[] = [];
  #from = 0;
  #ended = false;
  #error: unknown;
  readonly #readers: { resolve(result: IteratorResult<E, undefined>): void; reject(error: unknown): void }[] = [];

  push(event: E): void {
    const reader = this.#readers.shift();
    if (reader) reader.resolve({ done: false, value: event });
    else this.#events.push(event);
  }

  /** Ends the queue. After the remaining events, readers get the error, if any. */
  end(error?: unknown): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#error = error;
    const [first, ...others] = this.#readers.splice(0);
    if (first) void this.next().then(first.resolve, first.reject);
    for (const { resolve } of others) resolve({ done: true, value: undefined });
  }

  next(): Promise<IteratorResult<E, undefined>> {
    if (this.#from < this.#events.length) {
      const value = this.#events[this.#from++]!;
      if (this.#from === this.#events.length) {
        this.#events = [];
        this.#from = 0;
      }
      return Promise.resolve({ done: false, value });
    }
    if (!this.#ended) return new Promise((resolve, reject) => this.#readers.push({ resolve, reject }));
    const error = this.#error;
    this.#error = undefined;
    return error === undefined ? Promise.resolve({ done: true, value: undefined }) : Promise.reject(error);
  }
}
