/** Statistics of recent forwards, for `stats()`. */
import type { ForwardReport } from '../evaluate/forwards.ts';

export interface StepNumbers {
  /** Forwards since the model was loaded, and rows computed. */
  readonly count: number;
  readonly rows: number;
  /** Milliseconds of the last forward. */
  readonly lastMs: number;
  /** Median and 99th percentile of the last 128 forwards. */
  readonly medianMs: number;
  readonly p99Ms: number;
  /** Requests in the last forward. */
  readonly requests: number;
}

const RECENT = 128;

export class StepRecord {
  readonly #recent: number[] = [];
  #count = 0;
  #rows = 0;
  #requests = 0;

  add({ ms, rows }: ForwardReport, requests: number): void {
    this.#recent[this.#count % RECENT] = ms;
    this.#count++;
    this.#rows += rows;
    this.#requests = requests;
  }

  numbers(): StepNumbers {
    const sorted = [...this.#recent].sort((a, b) => a - b);
    const at = (share: number): number => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0;
    return {
      count: this.#count,
      rows: this.#rows,
      lastMs: this.#count === 0 ? 0 : this.#recent[(this.#count - 1) % RECENT]!,
      medianMs: at(0.5),
      p99Ms: at(0.99),
      requests: this.#requests,
    };
  }
}
