/** A conversation, one turn at a time. What its turns have computed is found in the cache by the next one. */
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
  /** Of the turn that is being answered. */
  #answering: Ticket | undefined;
  #length = 0;
  /** Messages that the last turn left out. */
  #dropped = 0;

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  /** Tokens of the last turn: prompt and answer. */
  get length(): number {
    return this.#length;
  }

  /**
   * As `Model.generate`. One turn at a time: it ends with its last event, or when its loop is left. With `contextShift` the turns
   * that one answer leaves out stay left out.
   * @throws OptionError; the generation: LanewiseError Busy; Disposed when the conversation is disposed meanwhile
   */
  generate(prompt: Prompt, options: GenerateOptions = {}): Generation {
    const settings = validateGenerate(options, { ...generationRules(this.#engine.info), single: true });
    checkPrompt(prompt);
    return new Generation((listener) => {
      if (this.#answering)
        throw new LanewiseError(
          'Busy',
          'this conversation is answering: wait for the end of that turn, or begin another one',
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

  /** Ends a turn that is being answered; the conversation begins anew with the next one. */
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
