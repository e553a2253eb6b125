/** Runs the forwards of one backend one after the other, each with its own report. */
import type { Backend, Batch, Results } from '../backend/backend.ts';
import { LanewiseError } from '../errors.ts';
import type { ModelDescription } from '../models/index.ts';
import { describeWork } from '../plan/print.ts';
import { logForward, wantsForward } from '../profile/log.ts';
import { createScopeTimer, type PhaseTimes, phasesOf, type StepMilliseconds } from '../profile/scopes.ts';
import type { TraceProcess } from '../profile/trace.ts';
import { WalkTrace } from './walk-trace.ts';

/** Timing of a forward: none, by phase, or step by step (up to 2 % slower in small models). */
export type ForwardTiming = false | true | 'steps';

/** Times of one forward. */
export interface ForwardReport {
  /** Start, as `performance.now()`. */
  readonly start: number;
  readonly ms: number;
  readonly rows: number;
  /** Only if timed. */
  readonly phases?: PhaseTimes;
  /** Only if timed step by step: in order, each with the wait after it. */
  readonly steps?: readonly StepMilliseconds[];
}

export interface Evaluation {
  /** Wanted rows in the order of the parts. Valid until the next forward begins. */
  readonly results: Results;
  readonly report: ForwardReport;
}

export interface ForwardsParts {
  /** Name of the model, for errors. */
  readonly name: string;
  readonly description: ModelDescription;
  readonly backend: Backend;
  /** Where forwards are traced. */
  readonly trace?: TraceProcess | undefined;
}

export class Forwards {
  readonly name: string;
  readonly description: ModelDescription;
  readonly backend: Backend;
  readonly trace: TraceProcess | undefined;
  readonly #walks: WalkTrace | undefined;
  readonly #timer: ReturnType<typeof createScopeTimer>;
  #queue: Promise<unknown> = Promise.resolve();
  #disposed: Promise<void> | undefined;

  constructor({ name, description, backend, trace }: ForwardsParts) {
    this.name = name;
    this.description = description;
    this.backend = backend;
    this.trace = trace;
    this.#walks = trace && new WalkTrace(description.plan, trace);
    this.#timer = createScopeTimer(description.plan.steps);
  }

  /** Runs `work` after all earlier work; results stay valid until it ends. @throws LanewiseError Disposed */
  exclusive<T>(work: () => Promise<T>): Promise<T> {
    const run = this.#queue.then(() => {
      if (this.#disposed) throw new LanewiseError('Disposed', `${this.name} has been disposed`);
      return work();
    });
    this.#queue = run.catch(() => {});
    return run;
  }

  /** Frees threads and memory after all earlier work. May be called twice. */
  dispose(): Promise<void> {
    this.#disposed ??= this.#queue.then(() => this.backend.dispose());
    return this.#disposed;
  }

  /** Runs one forward, timed as requested and as needed for the log. */
  protected async run(batch: Batch, timed: ForwardTiming): Promise<Evaluation> {
    const logs = wantsForward();
    const timing = timed === 'steps' ? 'steps' : (logs ?? (timed ? 'scopes' : 'off'));
    const start = performance.now();
    const onWalk = this.trace?.kernels ? this.#walks!.of(batch.tokens.length, batch.wanted.length) : undefined;
    const results = await this.backend.forward({ ...batch, timing, onWalk });
    const report = { start, ms: performance.now() - start, rows: batch.tokens.length };
    if (timing === 'off') return { results, report };
    const { times } = results;
    const tree = this.#timer(times);
    const { plan } = this.description;
    const [rows, wanted] = [batch.tokens.length, batch.wanted.length];
    if (logs) logForward(tree, plan.steps, times, (step) => describeWork(plan, step, rows, wanted));
    return { results, report: { ...report, phases: phasesOf(tree), ...(timed === 'steps' && { steps: times }) } };
  }
}
