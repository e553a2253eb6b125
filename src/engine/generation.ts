/** The events, text and result of one request. */
import { LanewiseError } from '../errors.ts';
import { emptyResult, type GenerateEvent, type GenerateResult } from '../schedule/events.ts';
import type { GenerateSettings } from '../schedule/generation-options.ts';
import type { Ticket } from '../schedule/scheduler.ts';
import { onAbort } from './abort.ts';
import { EventQueue } from './event-queue.ts';

type Outcome = { readonly result: GenerateResult } | { readonly error: unknown };

/**
 * Starts when it is first read: its events (`for await`), `textStream` or `result`. Events can be read once, as events
 * or as text; leaving the loop ends the request. `result` can be read in addition, or alone.
 */
export class Generation implements AsyncGenerator<GenerateEvent, void, undefined> {
  readonly #submit: (listener: (event: GenerateEvent) => void) => Ticket;
  readonly #settings: GenerateSettings;
  readonly #events = new EventQueue<GenerateEvent>();
  readonly #waiting: ((outcome: Outcome) => void)[] = [];
  #outcome: Outcome | undefined;
  #begun = false;
  #left = false;
  #ticket: Ticket | undefined;
  #quiet = (): void => {};

  /** @param submit queues the request; an error that it throws is the outcome of the generation */
  constructor(submit: (listener: (event: GenerateEvent) => void) => Ticket, settings: GenerateSettings) {
    this.#submit = submit;
    this.#settings = settings;
  }

  /**
   * The complete result. After an abort or a timeout it is the text so far or an error, depending on `throwOnAbort` and
   * `throwOnTimeout`. @throws LanewiseError, the signal's reason
   */
  get result(): Promise<GenerateResult> {
    this.#begin();
    return this.#end().then((outcome) => {
      if ('error' in outcome) throw outcome.error;
      const error = endError(outcome.result, this.#settings);
      if (error !== undefined) throw error;
      return outcome.result;
    });
  }

  /** The text in non-empty pieces, as they are generated. */
  get textStream(): AsyncGenerator<string, void, undefined> {
    return textOf(this);
  }

  async next(): Promise<IteratorResult<GenerateEvent, void>> {
    if (this.#left) return { done: true, value: undefined };
    this.#begin();
    return this.#events.next();
  }

  /** Ends the request. Resolves when the engine has released its resources. */
  async return(): Promise<IteratorResult<GenerateEvent, void>> {
    this.#left = true;
    if (this.#begun) {
      this.#ticket?.cancel();
      await this.#end();
    } else {
      this.#begun = true;
      this.#settle({ result: emptyResult('aborted', this.#settings.seed) });
    }
    return { done: true, value: undefined };
  }

  async throw(error: unknown): Promise<IteratorResult<GenerateEvent, void>> {
    await this.return();
    throw error;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.return();
  }

  #begin(): void {
    if (this.#begun) return;
    this.#begun = true;
    const { signal, throwOnAbort } = this.#settings;
    try {
      // A request that never started has no `done` event.
      if (throwOnAbort) signal?.throwIfAborted();
      this.#ticket = this.#submit((event) => this.#hear(event));
    } catch (error) {
      this.#settle({ error });
      return;
    }
    if (!this.#outcome) this.#quiet = onAbort(signal, () => this.#ticket!.cancel());
  }

  #hear(event: GenerateEvent): void {
    if (event.type !== 'done') {
      this.#events.push(event);
      return;
    }
    const { type: _, ...result } = event;
    if (result.error) {
      this.#settle({ error: result.error });
      return;
    }
    this.#events.push(event);
    this.#settle({ result });
  }

  #settle(outcome: Outcome): void {
    this.#quiet();
    this.#outcome = outcome;
    this.#events.end('error' in outcome ? outcome.error : endError(outcome.result, this.#settings));
    for (const resolve of this.#waiting.splice(0)) resolve(outcome);
  }

  #end(): Promise<Outcome> {
    if (this.#outcome) return Promise.resolve(this.#outcome);
    return new Promise((resolve) => this.#waiting.push(resolve));
  }
}

async function* textOf(generation: Generation): AsyncGenerator<string, void, undefined> {
  for await (const event of generation) {
    if ((event.type === 'token' || event.type === 'text') && event.text !== '') yield event.text;
  }
}

/** The error to throw after an abort or a timeout, depending on the options. */
export function endError(
  { finishReason }: Pick<GenerateResult, 'finishReason'>,
  { throwOnAbort, throwOnTimeout, timeoutMs, signal }: GenerateSettings,
): unknown {
  if (finishReason === 'aborted' && throwOnAbort && signal?.aborted) return signal.reason;
  if (finishReason === 'timeout' && throwOnTimeout)
    return new LanewiseError(
      'Timeout',
      `the generation took more than timeoutMs ${timeoutMs}, or its deadline has passed`,
    );
  return undefined;
}
