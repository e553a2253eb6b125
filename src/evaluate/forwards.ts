/** Forwards of one backend, one after the other, each with its own report. */
import type { Backend, Batch, Results } from '../backend/backend.ts';
import { LanewiseError } from '../errors.ts';
import type { ModelDescription } from '../models/index.ts';
import { describeWork } from '../plan/print.ts';
import { logForward, wantsForward } from '../profile/log.ts';
import { createScopeTimer, type Phases, phasesOf, type StepMilliseconds } from '../profile/scopes.ts';

/** How closely a forward is timed: not at all, by phase, or step by step (up to 2 % slower in small models). */
export type ForwardTiming = false | true | 'steps';

/** What one forward did. */
export interface ForwardReport {
  /** On the clock of `performance.now()`. */
  readonly start: number;
  readonly ms: number;
  readonly rows: number;
  /** While timed. */
  readonly phases?: Phases;
  /** While timed step by step: one after another, with the wait behind each. */
  readonly steps?: readonly StepMilliseconds[];
}

export interface Evaluation {
  /** Wanted rows in the order of the parts. Valid until the next forward begins. */
  readonly results: Results;
  readonly report: ForwardReport;
}

export interface ForwardsParts {
  /** Of the model, for messages. */
  readonly name: string;
  readonly description: ModelDescription;
  readonly backend: Backend;
}

export class Forwards {
  readonly name: string;
  readonly description: ModelDescription;
  readonly backend: Backend;
  readonly #timer: ReturnType<typeof createScopeTimer>;
  #queue: Promise<unknown> = Promise.resolve();
  #disposed: Promise<void> | undefined;

  constructor({ name, description, backend }: ForwardsParts) {
    this.name = name;
    this.description = description;
    this.backend = backend;
    this.#timer = createScopeTimer(description.plan.steps);
  }

  /** Runs `work` when all work given before is done: results stay valid within it. @throws LanewiseError Disposed */
  exclusive<T>(work: () => Promise<T>): Promise<T> {
    const run = this.#queue.then(() => {
      if (this.#disposed) throw new LanewiseError('Disposed', `${this.name} has been disposed`);
      return work();
    });
    this.#queue = run.catch(() => {});
    return run;
  }

  /** Frees threads and memory, when the work given before is done. May be called twice. */
  dispose(): Promise<void> {
    this.#disposed ??= this.#queue.then(() => this.backend.dispose());
    return this.#disposed;
  }

  /** One forward, timed as asked and as the log needs. */
  protected async run(batch: Batch, timed: ForwardTiming): Promise<Evaluation> {
    const logs = wantsForward();
    const timing = timed === 'steps' ? 'steps' : (logs ?? (timed ? 'scopes' : 'off'));
    const start = performance.now();
    const results = await this.backend.forward({ ...batch, timing });
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
