/**
 * Schedules texts of all callers of an encoder in shared forwards. A request stays in line until its last text is
 * computed.
 */
import type { Results } from '../backend/backend.ts';
import { LanewiseError } from '../errors.ts';
import type { TextEvaluator } from '../evaluate/text-evaluator.ts';
import { traced } from '../profile/trace.ts';
import type { LineStats } from './scheduler.ts';
import { StepRecord } from './step-record.ts';
import { asError, Turns } from './turns.ts';
import { WaitingLine, WaitingRequest } from './waiting.ts';

/** Most rows and texts of a forward, unless a single text is longer. Few enough for a quick abort. */
export const SHARED_ROWS = 128;
export const SHARED_TEXTS = 64;

export interface TextRequest {
  /** Token ids of the texts, at least one each. */
  readonly texts: readonly (readonly number[])[];
  readonly priority: number;
  readonly fairnessKey: string;
  /** Called with the results of text `index`, whose first token is row `first`. */
  take(index: number, results: Results, first: number): void;
}

class TextJob extends WaitingRequest {
  readonly request: TextRequest;
  /** Number of texts computed. */
  done = 0;
  readonly settle: (error?: unknown) => void;

  constructor(request: TextRequest, arrival: number, settle: (error?: unknown) => void) {
    super(arrival, request);
    this.request = request;
    this.settle = settle;
  }
}

/** A text of a forward. */
interface Part {
  readonly job: TextJob;
  readonly index: number;
  readonly ids: readonly number[];
}

export class TextScheduler {
  readonly #evaluator: TextEvaluator;
  readonly #maxQueue: number;
  readonly #line = new WaitingLine<TextJob>();
  readonly #record = new StepRecord();
  readonly #turns: Turns;
  #arrivals = 0;
  #ended = 0;
  #running = 0;
  #disposed: LanewiseError | undefined;

  constructor(evaluator: TextEvaluator, { maxQueue }: { readonly maxQueue: number }) {
    this.#evaluator = evaluator;
    this.#maxQueue = maxQueue;
    this.#turns = new Turns({
      forwards: evaluator,
      busy: () => this.#line.size > 0,
      step: () => this.#step(),
      fail: (error) => this.#fail(error),
    });
  }

  /**
   * Resolves when all texts are computed. An abort ends the request within one forward.
   * @throws LanewiseError Busy if too many requests wait, Disposed; the signal's reason
   */
  async submit(request: TextRequest, signal?: AbortSignal): Promise<void> {
    if (this.#disposed) throw this.#disposed;
    signal?.throwIfAborted();
    if (request.texts.length === 0) return;
    if (this.#line.size > this.#maxQueue)
      throw new LanewiseError('Busy', `${this.#maxQueue} requests wait already: try again later, or raise maxQueue`);
    let job: TextJob | undefined;
    const abort = (): void => this.#retire(job!, signal!.reason);
    try {
      await new Promise<void>((resolve, reject) => {
        job = new TextJob(request, this.#arrivals++, (error) => (error === undefined ? resolve() : reject(error)));
        this.#line.add(job);
        signal?.addEventListener('abort', abort, { once: true });
        this.#turns.wake();
      });
    } finally {
      signal?.removeEventListener('abort', abort);
    }
  }

  stats(): LineStats {
    const waiting = Math.max(0, this.#line.size - this.#running);
    return { waiting, running: this.#running, ended: this.#ended, steps: this.#record.numbers() };
  }

  /** Ends all requests with the error, and refuses new ones. */
  dispose(error: LanewiseError): void {
    this.#disposed ??= error;
    this.#fail(error);
  }

  #fail(error: LanewiseError): void {
    for (const job of [...this.#line]) this.#retire(job, error);
  }

  #retire(job: TextJob, error?: unknown): void {
    if (!this.#line.delete(job)) return;
    this.#ended++;
    job.settle(error);
  }

  #step(): Promise<void> {
    return traced(this.#evaluator.trace, 'step', () => this.#compute());
  }

  async #compute(): Promise<void> {
    const parts = this.#compose();
    const jobs = new Set(parts.map(({ job }) => job));
    this.#running = jobs.size;
    try {
      const { results, report } = await traced(this.#evaluator.trace, 'forward', () =>
        this.#evaluator.forward(parts.map(({ ids }) => ids)),
      );
      this.#record.add(report, jobs.size);
      let row = 0;
      for (const { job, index, ids } of parts) {
        this.#take(job, index, results, row);
        row += ids.length;
      }
    } catch (error) {
      for (const job of jobs) this.#retire(job, asError(error));
    } finally {
      this.#running = 0;
    }
  }

  /** Chooses the texts of a forward, taking one text of each request in turn. */
  #compose(): Part[] {
    const parts: Part[] = [];
    const next = new Map<TextJob, number>();
    const indexOf = (job: TextJob): number => next.get(job) ?? job.done;
    const hasMore = (job: TextJob): boolean => indexOf(job) < job.request.texts.length;
    let rows = 0;
    while (parts.length < SHARED_TEXTS) {
      const job = this.#line.next(hasMore);
      if (!job) break;
      const index = indexOf(job);
      const ids = job.request.texts[index]!;
      if (parts.length > 0 && rows + ids.length > SHARED_ROWS) break;
      parts.push({ job, index, ids });
      rows += ids.length;
      next.set(job, index + 1);
      this.#line.served(job);
    }
    return parts;
  }

  /** Passes results to the request. An error ends only this request. */
  #take(job: TextJob, index: number, results: Results, row: number): void {
    if (job.done !== index) return;
    try {
      job.request.take(index, results, row);
      job.done++;
      if (job.done === job.request.texts.length) this.#retire(job);
    } catch (error) {
      this.#retire(job, asError(error));
    }
  }
}
