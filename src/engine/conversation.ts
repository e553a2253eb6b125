/** A conversation that keeps what has been computed: each turn reads only the tokens that are new. */
import { type GenerateEvent, generate } from './generate.ts';
import type { GenerateOptions } from './generation-options.ts';
import type { Sequence } from './kv-cache.ts';
import type { Model, Prompt } from './model.ts';

export class Conversation implements Disposable {
  readonly #model: Model;
  readonly #sequence: Sequence;

  constructor(model: Model) {
    this.#model = model;
    this.#sequence = model.sequence();
  }

  /** Tokens whose keys and values are kept. */
  get length(): number {
    return this.#sequence.length;
  }

  /**
   * As `Model.generate`, with the same bits, but what the prompt shares with the tokens before it is not computed again
   * (`usage.cachedTokens`). One turn at a time.
   */
  generate(prompt: Prompt, options: GenerateOptions = {}): AsyncGenerator<GenerateEvent, void, undefined> {
    return generate(this.#model, prompt, options, this.#sequence);
  }

  /** Gives the memory back; what comes next is computed from the start. */
  [Symbol.dispose](): void {
    this.#sequence.release();
  }
}
