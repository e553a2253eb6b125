/** A conversation that keeps what has been computed: each turn reads only the tokens that are new. */
import { LanewiseError } from '../errors.ts';
import type { GenerateOptions } from '../schedule/generation-options.ts';
import type { KeptState } from '../schedule/run.ts';
import { type GenerateEvent, generate } from './generate.ts';
import type { Model, Prompt } from './model.ts';

export class Conversation implements Disposable {
  readonly #model: Model;
  #state: KeptState | undefined;
  /** That of the turn that is being answered. */
  #answering: KeptState | undefined;

  constructor(model: Model) {
    this.#model = model;
  }

  /** Tokens whose keys and values are kept. */
  get length(): number {
    return this.#state?.sequence.length ?? 0;
  }

  /**
   * As `Model.generate`, with the same bits, but what the prompt shares with the tokens before it is not computed again
   * (`usage.cachedTokens`). One turn at a time: it ends with its last event, or when its loop is left.
   * With `contextShift` the turns that one answer leaves out stay left out.
   * @throws OptionError; LanewiseError Busy; Disposed when the conversation is disposed meanwhile
   */
  generate(prompt: Prompt, options: GenerateOptions = {}): AsyncGenerator<GenerateEvent, void, undefined> {
    this.#state ??= { sequence: this.#model.sequence(), dropped: 0 };
    return this.#turn(this.#state, generate(this.#model, prompt, options, this.#state));
  }

  async *#turn(
    state: KeptState,
    events: AsyncGenerator<GenerateEvent, void, undefined>,
  ): AsyncGenerator<GenerateEvent, void, undefined> {
    if (this.#answering === state)
      throw new LanewiseError(
        'Busy',
        'this conversation is answering: wait for the end of that turn, or begin another one',
      );
    this.#answering = state;
    try {
      yield* events;
    } finally {
      if (this.#answering === state) this.#answering = undefined;
    }
  }

  /** Gives the memory back, and ends a turn that is being answered; what comes next is computed from the start. */
  dispose(): void {
    this.#state?.sequence.release();
    this.#state = undefined;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
