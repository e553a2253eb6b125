/** A request in the scheduler, from the queue to its last event. */
import type { LanewiseError } from '../errors.ts';
import type { TraceProcess } from '../profile/trace.ts';
import { emptyResult, type GenerateEvent } from './events.ts';
import type { Request, Run } from './run.ts';
import type { PromptReader } from './shares.ts';
import { WaitingRequest } from './waiting.ts';

export type Listener = (event: GenerateEvent) => void;

export class Job extends WaitingRequest implements PromptReader {
  readonly request: Request;
  waited = 0;
  /** Set once the prompt is encoded; a paused request keeps it. */
  run: Run | undefined;
  /** Whether it has been admitted to forwards. */
  admitted = false;
  ended = false;
  cancelled: LanewiseError | 'aborted' | undefined;
  readonly #listener: Listener;
  readonly #trace: TraceProcess | undefined;
  /** The stage in the trace. */
  #stage: string | undefined;

  constructor(request: Request, arrival: number, listener: Listener, trace?: TraceProcess) {
    super(arrival, request.settings);
    this.request = request;
    this.#listener = listener;
    this.#trace = trace;
    trace?.request('b', arrival, `request ${arrival}`);
    this.#enter('waiting');
  }

  get missing(): number {
    return this.run!.missing;
  }

  get total(): number {
    return this.run!.total;
  }

  /** Whether it is in prefill, of its prompt or, after a pause, of prompt and text so far. */
  get reads(): boolean {
    return this.run!.reading || this.run!.missing > 1;
  }

  /** Whether `other` should pause before this one. */
  outranks(other: Job): boolean {
    return this.priority === other.priority ? this.arrival < other.arrival : this.priority < other.priority;
  }

  /** Starts its time, when it is admitted to forwards. */
  start(): void {
    if (this.admitted) return;
    this.admitted = true;
    this.#enter('prefill');
    this.run!.start();
  }

  /** Ends the stage in the trace, and begins the next one. */
  #enter(stage: string | undefined): void {
    if (this.#stage !== undefined) this.#trace?.request('e', this.arrival, this.#stage);
    if (stage !== undefined) this.#trace?.request('b', this.arrival, stage);
    this.#stage = stage;
  }

  /** Calls the listener; its errors must not affect other requests. */
  tell(event: GenerateEvent): void {
    if (this.#trace && (event.type === 'token' || event.type === 'text')) {
      if (this.#stage === 'prefill') this.#enter('decode');
      this.#trace.instant(event.type, { request: this.arrival, ...idOf(event), text: event.text });
    }
    try {
      this.#listener(event);
    } catch (error) {
      queueMicrotask(() => {
        throw error;
      });
    }
  }

  /** Emits the result, once. */
  end(error?: LanewiseError): void {
    if (this.ended) return;
    this.ended = true;
    this.#enter(undefined);
    this.#trace?.request('e', this.arrival, `request ${this.arrival}`);
    const { run } = this;
    const { seed, deadline } = this.request.settings;
    if (!run) {
      const late = this.cancelled === undefined && Date.now() >= deadline;
      const reason = error ? 'error' : late ? 'timeout' : 'aborted';
      this.tell({ type: 'done', ...emptyResult(reason, seed, error) });
      return;
    }
    if (error) run.sequence.discard();
    else run.sequence.release();
    const rest = run.flush();
    if (rest) this.tell({ type: 'text', text: rest });
    this.tell({ type: 'done', ...run.result(), ...(error && { finishReason: 'error', error }) });
  }
}

const idOf = (event: GenerateEvent): { readonly id?: number } => (event.type === 'token' ? { id: event.id } : {});
