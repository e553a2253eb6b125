/** Runs the steps of a scheduler, one per turn of the event loop, as long as there is work. */
import { LanewiseError } from '../errors.ts';
import type { Forwards } from '../evaluate/forwards.ts';
import { nextTurn } from '../event-loop.ts';

export interface Stepping {
  readonly forwards: Pick<Forwards, 'exclusive'>;
  busy(): boolean;
  step(): Promise<void>;
  /** Ends requests with the error of a failed step. Must leave fewer requests each time. */
  fail(error: LanewiseError): void;
}

export class Turns {
  readonly #work: Stepping;
  #turning = false;

  constructor(work: Stepping) {
    this.#work = work;
  }

  /** Starts in the next turn, so that requests of one turn share a step. */
  wake(): void {
    if (!this.#turning) void this.#turn();
  }

  async #turn(): Promise<void> {
    this.#turning = true;
    await nextTurn();
    while (this.#work.busy()) {
      try {
        await this.#work.forwards.exclusive(() => this.#work.step());
      } catch (error) {
        this.#work.fail(asError(error));
      }
      await nextTurn();
    }
    this.#turning = false;
  }
}

export const asError = (error: unknown): LanewiseError =>
  error instanceof LanewiseError
    ? error
    : new LanewiseError('Internal', `a step failed: ${(error as Error)?.message ?? error}`, { cause: error });
