/** A conversation that keeps what has been computed: each turn reads only the tokens that are new. */
import { LanewiseError } from '../errors.ts';
import { type GenerateEvent, generate } from './generate.ts';
import type { GenerateOptions } from './generation-options.ts';
import type { Sequence } from './kv-cache.ts';
import type { Model, Prompt } from './model.ts';

export class Conversation implements Disposable {
  readonly #model: Model;
  #sequence: Sequence | undefined;
  /** That of the turn that is being answered. */
  #answering: Sequence | undefined;

  constructor(model: Model) {
    this.#model = model;
  }

  /** Tokens whose keys and values are kept. */
  get length(): number {
    return this.#sequence?.length ?? 0;
  }

  /**
   * As `Model.generate`, with the same bits, but what the prompt shares with the tokens before it is not computed again
   * (`usage.cachedTokens`). One turn at a time: it ends with its last event, or when its loop is left.
   * @throws LanewiseError Busy; Disposed when the conversation is disposed meanwhile
   */
  async *generate(prompt: Prompt, options: GenerateOptions = {}): AsyncGenerator<GenerateEvent, void, undefined> {
    this.#sequence ??= this.#model.sequence();
    const sequence = this.#sequence;
    if (this.#answering === sequence)
      throw new LanewiseError(
        'Busy',
        'this conversation is answering: wait for the end of that turn, or begin another one',
      );
    this.#answering = sequence;
    try {
      yield* generate(this.#model, prompt, options, sequence);
    } finally {
      if (this.#answering === sequence) this.#answering = undefined;
    }
  }

  /** Gives the memory back, and ends a turn that is being answered; what comes next is computed from the start. */
  [Symbol.dispose](): void {
    this.#sequence?.release();
    this.#sequence = undefined;
  }
}
