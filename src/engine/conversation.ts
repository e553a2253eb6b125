/** A conversation, one turn at a time. A turn finds what earlier turns have computed in the cache. */
import { LanewiseError } from '../errors.ts';
import { checkPrompt } from '../prompts/limits.ts';
import type { Prompt } from '../prompts/prompt.ts';
import type { GenerateEvent } from '../schedule/events.ts';
import { type GenerateOptions, validateGenerate } from '../schedule/generation-options.ts';
import type { Ticket } from '../schedule/scheduler.ts';
import type { Engine } from './engine.ts';
import { Generation } from './generation.ts';
import { generationRules } from './sampling-defaults.ts';

export class Conversation implements Disposable {
  readonly #engine: Engine;
  /** Ticket of the turn that is being answered. */
  #answering: Ticket | undefined;
  #length = 0;
  /** Number of messages that the last turn dropped. */
  #dropped = 0;

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  /** Number of tokens of the last turn, prompt and answer. */
  get length(): number {
    return this.#length;
  }

  /**
   * Like `Model.generate`, but one turn at a time: a turn ends with its last event, or when its loop is left. Turns
   * dropped by `contextShift` stay dropped.
   * @throws OptionError; the generation throws LanewiseError Busy, or Disposed if the conversation is disposed meanwhile
   */
  generate(prompt: Prompt, options: GenerateOptions = {}): Generation {
    const settings = validateGenerate(options, { ...generationRules(this.#engine.info), single: true });
    checkPrompt(prompt);
    return new Generation((listener) => {
      if (this.#answering)
        throw new LanewiseError(
          'Busy',
          'this conversation is answering: wait for the end of that turn, or start another conversation',
        );
      let ticket: Ticket | undefined;
      let ended = false;
      const hear = (event: GenerateEvent): void => {
        if (event.type === 'done') ended = true;
        if (event.type === 'done' && (ticket === undefined || this.#answering === ticket)) {
          this.#answering = undefined;
          const { promptTokens, completionTokens, droppedMessages = 0 } = event.usage;
          this.#length = promptTokens + completionTokens;
          this.#dropped = droppedMessages;
        }
        listener(event);
      };
      ticket = this.#engine.submit({ prompt, settings, dropped: this.#dropped }, hear);
      if (!ended) this.#answering = ticket;
      return ticket;
    }, settings);
  }

  /** Ends the turn that is being answered. The next turn starts a new conversation. */
  dispose(): void {
    const ticket = this.#answering;
    this.#answering = undefined;
    this.#length = 0;
    this.#dropped = 0;
    ticket?.cancel(new LanewiseError('Disposed', 'the conversation has been disposed'));
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
