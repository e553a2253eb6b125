/**
 * Runs all requests of one model in shared forwards. One step: {admit, compose rows, forward, sample, emit, retire}. A
 * forward has a row of every request in decode, and as many prompt rows as its time budget allows. An error, a
 * cancellation or a full cache affects only its own request; the bits of the others do not depend on it.
 */
import { PAGE } from '../backend/backend.ts';
import type { DraftRequest } from '../drafting/drafter.ts';
import type { DraftNumbers, Drafts } from '../drafting/drafts.ts';
import { LanewiseError, OutOfMemoryError } from '../errors.ts';
import type { CacheStats } from '../evaluate/block-pool.ts';
import type { Evaluation } from '../evaluate/forwards.ts';
import type { Sequence } from '../evaluate/sequence.ts';
import { logPrefill } from '../profile/log.ts';
import { type TraceProcess, traced } from '../profile/trace.ts';
import type { RecordedPart } from '../recording/recorder.ts';
import { sampleRows } from '../sampling/sample-rows.ts';
import { StepCost } from './cost.ts';
import { Job, type Listener } from './job.ts';
import { type Request, Run, type RunContext } from './run.ts';
import { PromptShares } from './shares.ts';
import { type StepNumbers, StepRecord } from './step-record.ts';
import { asError, Turns } from './turns.ts';
import { hasAged, WaitingLine } from './waiting.ts';

export interface SchedulerOptions {
  /** Largest number of waiting requests; more are refused with `Busy`. */
  readonly maxQueue: number;
  /** Target for the longest forward, in milliseconds, while any request is in decode. */
  readonly stepBudgetMs: number;
}

export interface Ticket {
  /** Ends the request within one step, with the text so far (finish reason `aborted`) or with the given error. */
  cancel(reason?: LanewiseError): void;
}

export interface LineStats {
  /** Numbers of waiting requests, and of requests in forwards. */
  readonly waiting: number;
  readonly running: number;
  /** Number of requests that have ended since the model was loaded. */
  readonly ended: number;
  readonly steps: StepNumbers;
}

export interface SchedulerStats extends LineStats {
  /** Number of waiting requests that were paused because pages were needed. */
  readonly paused: number;
  readonly pages: CacheStats;
  readonly drafts: DraftNumbers;
}

/** Fewest prompt rows of a forward with decode rows, even beyond the time budget, so that prefills make progress. */
const LEAST_ROWS = 8;
/**
 * A forward may take this many times as long as its decode rows alone, even beyond the time budget: where reading the weights takes
 * most of the budget, prompts would otherwise have few rows of each reading.
 */
const STRETCH = 2.5;
/** Prompt rows of a forward before any times are known. */
const FIRST_ROWS = 32;

/** Rows of one request in a forward. */
interface Part {
  readonly job: Job;
  readonly run: Run;
  readonly tokens: readonly number[];
  readonly draft: readonly number[];
  readonly wanted: boolean | 'all';
}

export class Scheduler {
  readonly #context: RunContext;
  readonly #drafts: Drafts;
  readonly #options: SchedulerOptions;
  readonly #line = new WaitingLine<Job>();
  readonly #running = new Set<Job>();
  readonly #shares = new PromptShares();
  readonly #cost = new StepCost();
  readonly #record = new StepRecord();
  readonly #turns: Turns;
  #arrivals = 0;
  #ended = 0;
  /** The waiting request whose prompt is being looked up in the cache; it must not be retired meanwhile. */
  #admitting: Job | undefined;
  #disposed: LanewiseError | undefined;

  constructor(context: RunContext, drafts: Drafts, options: SchedulerOptions) {
    this.#context = context;
    this.#drafts = drafts;
    this.#options = options;
    this.#turns = new Turns({
      forwards: context.evaluator,
      busy: () => this.#line.size + this.#running.size > 0,
      step: () => this.#step(),
      fail: (error) => this.#fail(error),
    });
  }

  /**
   * Queues a request. Its events are passed to `listener`; the last one is always `done`, which has the error, if any.
   * @throws LanewiseError Busy if too many requests wait, Disposed
   */
  submit(request: Request, listener: Listener): Ticket {
    if (this.#disposed) throw this.#disposed;
    const { maxQueue } = this.#options;
    if (this.#line.size + this.#running.size >= maxQueue + this.#mostRunning)
      throw new LanewiseError('Busy', `${maxQueue} requests wait already: try again later, or raise maxQueue`);
    const job = new Job(request, this.#arrivals++, listener, this.#trace);
    this.#line.add(job);
    this.#turns.wake();
    return { cancel: (reason) => this.#cancel(job, reason) };
  }

  get #mostRunning(): number {
    const { maxRows, maxWanted } = this.#context.evaluator;
    return Math.min(maxRows, maxWanted);
  }

  stats(): SchedulerStats {
    const paused = [...this.#line].filter(({ admitted }) => admitted).length;
    return {
      waiting: this.#line.size,
      paused,
      running: this.#running.size,
      ended: this.#ended,
      pages: this.#context.evaluator.cache.stats(),
      steps: this.#record.numbers(),
      drafts: this.#drafts.numbers(),
    };
  }

  /** Ends all requests with the error, and refuses new ones. */
  dispose(error: LanewiseError): void {
    this.#disposed ??= error;
    for (const job of [...this.#line, ...this.#running]) this.#cancel(job, error);
  }

  #cancel(job: Job, reason?: LanewiseError): void {
    job.cancelled ??= reason ?? 'aborted';
    // A running request is retired between two forwards.
    if (job !== this.#admitting && this.#line.delete(job)) this.#retire(job);
    else this.#turns.wake();
  }

  /** Ends the running requests, or the waiting ones if none runs, so that each failure leaves fewer requests. */
  #fail(error: LanewiseError): void {
    const jobs = this.#running.size > 0 ? [...this.#running] : [...this.#line];
    for (const job of jobs) {
      this.#line.delete(job);
      this.#retire(job, error);
    }
  }

  get #trace(): TraceProcess | undefined {
    return this.#context.evaluator.trace;
  }

  #step(): Promise<void> {
    return traced(this.#trace, 'step', async () => {
      this.#sweep();
      if (this.#line.size > 0) await traced(this.#trace, 'admit', () => this.#admit());
      const parts = await traced(this.#trace, 'compose', () => this.#compose());
      if (parts.length > 0) await this.#forward(parts);
      this.#sweep();
    });
  }

  /** Retires requests that have ended, were cancelled or are late. */
  #sweep(): void {
    const now = Date.now();
    for (const job of this.#line) {
      const late = now >= job.request.settings.deadline;
      if (late && job.run) job.run.finishReason ??= 'timeout';
      if (job.admitted) job.run!.checkTime();
      // A request may be cancelled in the step in which it pauses.
      if (!late && !job.cancelled && job.run?.finishReason === undefined) continue;
      this.#line.delete(job);
      this.#retire(job);
    }
    for (const job of this.#running) {
      const run = job.run!;
      if (job.cancelled) run.finishReason ??= 'aborted';
      else run.checkTime();
      if (run.finishReason !== undefined || job.cancelled instanceof LanewiseError) this.#retire(job);
    }
  }

  #retire(job: Job, error?: LanewiseError): void {
    this.#running.delete(job);
    const first = !job.ended;
    if (first) this.#ended++;
    const { cancelled } = job;
    const own = cancelled instanceof LanewiseError && (job.run?.finishReason ?? 'aborted') === 'aborted';
    if (job.run && cancelled) job.run.finishReason ??= 'aborted';
    if (job.run) this.#drafts.release(job.run);
    const failure = error ?? (own ? cancelled : undefined);
    job.end(failure);
    if (first && job.run) this.#context.recorder?.end(job.arrival, job.run.result(), failure);
  }

  /** Admits requests as long as forwards and the cache have room for them. */
  async #admit(): Promise<void> {
    for (let job = this.#line.next(); job; job = this.#line.next()) {
      if (this.#running.size >= this.#mostRunning && !this.#weakest(job)) return;
      if (!this.#begin(job)) continue;
      let fits = true;
      let error: LanewiseError | undefined;
      this.#admitting = job;
      try {
        fits = await this.#makeRoom(job);
      } catch (thrown) {
        error = asError(thrown);
      } finally {
        this.#admitting = undefined;
      }
      if (!fits && !job.cancelled) return;
      if (this.#running.size >= this.#mostRunning) this.#pause(this.#weakest(job)!);
      this.#line.admit(job);
      this.#running.add(job);
      job.start();
      if (error || job.cancelled || job.run!.finishReason !== undefined) this.#retire(job, error);
    }
  }

  /** Pauses requests of lower priority until the cache has room for `job`. @returns whether it has */
  async #makeRoom(job: Job): Promise<boolean> {
    while (this.#running.size > 0 && !(await this.#fits(job))) {
      const other = this.#weakest(job);
      if (!other) return false;
      this.#pause(other);
    }
    return true;
  }

  /** Encodes the prompt of a request. @returns whether anything has to be computed */
  #begin(job: Job): boolean {
    if (job.run) return true;
    try {
      job.run = new Run(this.#context, job.request);
      this.#context.recorder?.begin(job.arrival, job.run.promptIds, job.run.settings);
      const { capacity, pageBytes } = this.#context.evaluator.backend.cache;
      const pages = pagesFor(job.run.promptIds.length);
      if (pages > capacity) {
        throw new OutOfMemoryError('the key/value cache', pages * pageBytes, capacity * pageBytes);
      }
      return true;
    } catch (error) {
      this.#line.delete(job);
      this.#retire(job, asError(error));
      return false;
    }
  }

  /** Whether the cache has room for all tokens of a request so far, and one more, beside the running requests. */
  async #fits({ run }: Job): Promise<boolean> {
    const { cache } = this.#context.evaluator;
    await run!.reuse(this.#nearest(run!));
    const { used, capacity, shrinkable } = cache.stats();
    if (pagesFor(run!.total + 1) - pagesFor(run!.sequence.length) <= capacity - used + shrinkable) return true;
    run!.pause();
    return false;
  }

  /** The running request with the longest common prefix: its last block, which is not full, is shared by copy. */
  #nearest(run: Run): Run | undefined {
    let nearest: Run | undefined;
    let most = 0;
    for (const { run: other } of this.#running) {
      const shared = run.shared(other!);
      if (shared > most) [nearest, most] = [other, shared];
    }
    return nearest;
  }

  /**
   * The running request that should pause first for `job`, if any. A request that many others have overtaken in the
   * queue does not pause because of its priority: it would never end.
   */
  #weakest(job: Job): Job | undefined {
    let weakest: Job | undefined;
    for (const other of this.#running) {
      if (other.priority > job.priority && !hasAged(other) && (!weakest || weakest.outranks(other))) weakest = other;
    }
    return weakest;
  }

  #pause(job: Job): void {
    this.#running.delete(job);
    this.#drafts.release(job.run!);
    job.run!.pause();
    this.#line.add(job);
  }

  /**
   * Rows of the next forward: one of each request in decode, prompt rows within the budget, and draft rows. If the
   * cache is full, the request of lowest rank pauses; a single request fails.
   */
  async #compose(): Promise<Part[]> {
    for (const job of [...this.#running]) await this.#reuse(job);
    const jobs = [...this.#running].sort((a, b) => (a.outranks(b) ? -1 : 1));
    const rows = this.#divide(jobs);
    const drafts = await this.#guess(rows);
    let entries = this.#context.evaluator.backend.cache.tableEntries;
    const parts: Part[] = [];
    for (const [job, count] of rows) {
      if (!this.#running.has(job)) continue;
      const run = job.run!;
      const tokens = run.next(count);
      const { sequence } = run;
      const guesses = drafts.get(run) ?? [];
      const positions = sequence.length + tokens.length;
      entries -= pagesFor(positions + guesses.length);
      if (entries < 0) break;
      if (!(await this.#reserve(job, positions))) continue;
      const draft = guesses.length > 0 && (await hasRoom(sequence, positions + guesses.length)) ? guesses : [];
      parts.push({ job, run, tokens, draft, wanted: draft.length > 0 ? 'all' : run.missing === tokens.length });
    }
    // Requests composed first may have paused for a later one of higher rank.
    return parts.filter(({ job }) => this.#running.has(job));
  }

  /** Drafts for the requests in decode. */
  async #guess(rows: ReadonlyMap<Job, number>): Promise<ReadonlyMap<DraftRequest, readonly number[]>> {
    const wishes = [...rows.keys()].flatMap(({ run }) => {
      const most = run!.mostGuesses;
      return most > 0 ? [{ request: run!, most }] : [];
    });
    if (wishes.length === 0) return new Map();
    const { maxRows, maxWanted } = this.#context.evaluator;
    const count = [...rows.values()].reduce((sum, each) => sum + each, 0);
    const room = Math.min(maxRows - count, maxWanted - rows.size);
    const { drafts, ms } = await this.#drafts.guess(wishes, rows.size, room);
    for (const { request } of wishes) request.spent += ms;
    return drafts;
  }

  /**
   * Reuses what other requests have computed of a request's tokens meanwhile. A sequence that crosses LongRoPE's limit
   * starts again here; its rows are computed like those of a prompt.
   */
  async #reuse(job: Job): Promise<void> {
    const run = job.run!;
    if (run.missing === 1 && !run.sequence.crosses(1)) return;
    try {
      await run.reuse();
    } catch (error) {
      this.#retire(job, asError(error));
    }
  }

  #divide(jobs: readonly Job[]): Map<Job, number> {
    const { maxRows } = this.#context.evaluator;
    const decoding = jobs.filter((job) => !job.reads);
    const reading = jobs.filter((job) => job.reads);
    const rows = new Map<Job, number>(decoding.map((job) => [job, 1]));
    if (reading.length === 0) return rows;
    const room = maxRows - decoding.length;
    const least = STRETCH * (this.#cost.msOf(decoding.length) ?? 0);
    const affordable = this.#cost.rowsWithin(Math.max(this.#options.stepBudgetMs, least)) ?? FIRST_ROWS;
    const budget = decoding.length === 0 ? room : Math.floor(affordable) - decoding.length;
    for (const [job, count] of this.#shares.divide(reading, Math.min(room, Math.max(LEAST_ROWS, budget))))
      rows.set(job, count);
    return rows;
  }

  /**
   * Reserves pages for a request. Requests of lower rank pause for it, or it pauses itself.
   * @returns whether it has them
   */
  async #reserve(job: Job, positions: number): Promise<boolean> {
    for (;;) {
      try {
        await job.run!.sequence.reserve(positions);
        return true;
      } catch (error) {
        if (!(error instanceof OutOfMemoryError) || this.#running.size === 1) {
          this.#retire(job, asError(error));
          return false;
        }
        const last = [...this.#running].reduce((a, b) => (a.outranks(b) ? b : a));
        this.#pause(last);
        if (last === job) return false;
      }
    }
  }

  async #forward(parts: readonly Part[]): Promise<void> {
    const timing = parts.some(({ run }) => run.settings.timing);
    try {
      const kind = parts.some(({ job }) => job.reads) ? 'prefill' : 'decode';
      const rowsOf = parts.map(({ run: { sequence }, tokens, draft, wanted }) => ({
        sequence,
        tokens: [...tokens, ...draft],
        wanted,
      }));
      const evaluation = await traced(
        this.#trace,
        kind,
        () => this.#context.evaluator.forward(rowsOf, timing),
        this.#trace && { requests: parts.map(({ job }) => job.arrival) },
      );
      const { ms, rows, phases } = evaluation.report;
      this.#cost.record(rows, ms);
      this.#record.add(evaluation.report, parts.length);
      for (const { run } of parts) {
        run.spent += ms;
        run.phases = run.settings.timing ? phases : undefined;
      }
      await traced(this.#trace, 'sample', () => this.#sample(evaluation, parts));
      if (parts.every(({ run, tokens }) => !run.reading && tokens.length === 1))
        this.#drafts.record(rows, rows - parts.length, performance.now() - evaluation.report.start);
    } catch (error) {
      // The contents of the cache for these rows are unknown now.
      for (const { job } of parts) this.#retire(job, asError(error));
    }
  }

  /** Samples tokens from the logits; draft rows are used as long as the drafts were right. */
  async #sample({ results }: Evaluation, parts: readonly Part[]): Promise<void> {
    const record = this.#context.recorder?.forward(results, parts.map(recordedPart));
    let row = 0;
    let open: { readonly part: Part; readonly index: number; readonly first: number; taken: number }[] = [];
    for (const [index, part] of parts.entries()) {
      const { job, run, draft, wanted } = part;
      const first = row;
      row += wanted ? 1 + draft.length : 0;
      // Cancelled requests get no more tokens.
      if (job.cancelled) continue;
      const total = run.promptIds.length;
      const done = run.progress();
      if (done !== undefined) job.tell({ type: 'prefill', done, total });
      if (wanted && run.reading) logPrefill(total, run.spent);
      if (wanted) open.push({ part, index, first, taken: 0 });
      else record?.rows(index, 0, part.tokens.length);
    }
    while (open.length > 0) {
      const start = performance.now();
      const samples = await sampleRows(
        results,
        open.map(({ part, first, taken }) => ({ row: first + taken, sampler: part.run.sampler })),
      );
      const ms = (performance.now() - start) / open.length;
      const going: typeof open = [];
      for (const [n, sample] of samples.entries()) {
        const row = open[n]!;
        const { job, run, draft, tokens } = row.part;
        // Rows of draft tokens are recorded once they are accepted.
        record?.rows(row.index, row.taken === 0 ? 0 : tokens.length + row.taken - 1, tokens.length + row.taken);
        if (!(sample instanceof LanewiseError)) record?.token(row.index, sample, row.first + row.taken);
        const event = sample instanceof LanewiseError ? sample : attempt(() => run.take(sample, ms));
        if (event instanceof LanewiseError) {
          this.#retire(job, event);
          continue;
        }
        const more = event && run.finishReason === undefined && event.id === draft[row.taken];
        row.taken++;
        if (more) going.push(row);
        else {
          run.settle(row.taken, draft.length);
          this.#drafts.judge(run, row.taken - 1, run.finishReason !== undefined);
        }
        if (event) job.tell(event);
      }
      open = going;
    }
  }
}

const recordedPart = ({ job, run, tokens, draft }: Part): RecordedPart => {
  const count = tokens.length + draft.length;
  return { id: job.arrival, at: run.sequence.length - count, count };
};

/** Number of pages for this many tokens. */
const pagesFor = (tokens: number): number => Math.ceil(tokens / PAGE);

/** Reserves pages for draft tokens. On any error the request goes on without drafts. */
const hasRoom = (sequence: Sequence, positions: number): Promise<boolean> =>
  sequence.reserve(positions).then(
    () => true,
    () => false,
  );

function attempt<T>(what: () => T): T | LanewiseError {
  try {
    return what();
  } catch (error) {
    return asError(error);
  }
}
