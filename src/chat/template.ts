/** Chat templates: render messages to the prompt format that a model was trained on. */
import { OptionError, TemplateError } from '../errors.ts';
import type { TextPart } from '../tokenizer/tokenizer.ts';
import { globalsOf } from './globals.ts';
import { interpret } from './interpreter.ts';
import { templateError } from './lexer.ts';
import { type Message, normaliseMessages, type Tool } from './messages.ts';
import { parseTemplate } from './parser.ts';
import { Text } from './text.ts';
import { strip } from './text-cuts.ts';
import { ProbedTraits } from './traits.ts';
import type { Statement } from './tree.ts';
import { Dict, Fault, fromData, List, type Value } from './values.ts';

export interface RenderOptions {
  /** Functions that the model may call. */
  readonly tools?: readonly Tool[] | null;
  /** Whether the text ends with the beginning of an answer. Default false. */
  readonly addGenerationPrompt?: boolean;
  /** Whether the text ends within the last message, for the model to continue it. Default false. */
  readonly continueFinalMessage?: boolean;
  /** Texts of the model's tokens. Omitted ones are undefined in the template. */
  readonly bosToken?: string | null;
  readonly eosToken?: string | null;
  /** Texts of other tokens by variable name, such as `pad_token`. */
  readonly specialTokens?: Readonly<Record<string, string>>;
  /** The time for `strftime_now`. Default: the clock. */
  readonly now?: Date;
  /** Further variables of the template. */
  readonly variables?: Readonly<Record<string, unknown>>;
}

export interface RenderedChat {
  readonly text: string;
  /** The text as parts that come from the template (`parseSpecial`) or from messages. */
  readonly parts: readonly TextPart[];
}

export type { Message, Tool };

const LONGEST_TEMPLATE = 2 ** 20;
const BASE_STEPS = 500_000;
/** Steps for each message: a loop over the messages runs a part of the template for each. */
const STEPS_PER_MESSAGE = 2_000;
/** Steps for each pair of messages, for loops over the messages within such a loop. */
const STEPS_PER_PAIR = 16;
/** Steps for each character of the messages: Llama 3.2's template loops over characters to find images. */
const STEPS_PER_CHARACTER = 12;
const BASE_CHARACTERS = 2 ** 20;
/** Characters that a template may produce per character of the messages. */
const GROWTH = 16;
const reserved = [
  'messages',
  'tools',
  'add_generation_prompt',
  'continue_final_message',
  'bos_token',
  'eos_token',
  'tokenize',
];

export class ChatTemplate {
  readonly source: string;
  readonly #program: readonly Statement[];
  readonly #traits: ProbedTraits;

  /** @throws TemplateError with line and column */
  constructor(source: string) {
    if (typeof source !== 'string' || source.trim() === '')
      throw new TemplateError('InvalidTemplate', 'chat template: expected a text, found nothing');
    if (source.length > LONGEST_TEMPLATE) {
      throw new TemplateError(
        'InvalidTemplate',
        `chat template: expected at most ${LONGEST_TEMPLATE} characters, found ${source.length}`,
      );
    }
    this.source = source;
    try {
      this.#program = parseTemplate(source);
    } catch (error) {
      if (error instanceof RangeError) throw templateError(source, 0, 'expected less nesting');
      throw error;
    }
    this.#traits = new ProbedTraits(source, (messages) => this.#tried(messages));
  }

  /**
   * Renders messages, after converting them to the form that the template reads (src/chat/messages.ts).
   * @throws TemplateError, with code Raised and the template's own message if it refuses the messages; OptionError
   */
  render(messages: readonly Message[], options: RenderOptions = {}): RenderedChat {
    return this.#rendered(normaliseMessages(messages, this.#traits), options);
  }

  /** Renders messages without converting them; undefined if the template refuses them. */
  #tried(messages: readonly Message[]): string | undefined {
    try {
      return this.#rendered(messages, { addGenerationPrompt: true, bosToken: '', eosToken: '' }).text;
    } catch (error) {
      if (error instanceof TemplateError) return undefined;
      throw error;
    }
  }

  #rendered(messages: readonly Message[], options: RenderOptions): RenderedChat {
    const { tools, addGenerationPrompt = false, continueFinalMessage = false, variables = {} } = options;
    if (addGenerationPrompt && continueFinalMessage) {
      throw new OptionError('continueFinalMessage', 'false if addGenerationPrompt is true', true);
    }
    const globals = new Map<string, Value>(globalsOf(options.now));
    const given = this.#guarded(() => {
      for (const [name, value] of Object.entries(variables)) {
        if (reserved.includes(name)) throw new OptionError('variables', `without the reserved name ${name}`, value);
        globals.set(name, fromData(value));
      }
      return {
        messages: (continueFinalMessage ? marked(messages) : messages).map(messageValue),
        tools: fromData(tools ?? null),
      };
    });
    if (!globals.has('documents')) globals.set('documents', null);
    globals.set('messages', new List(given.messages));
    globals.set('tools', given.tools);
    globals.set('add_generation_prompt', addGenerationPrompt);
    for (const [name, token] of Object.entries({
      ...options.specialTokens,
      bos_token: options.bosToken,
      eos_token: options.eosToken,
    })) {
      if (typeof token === 'string') globals.set(name, new Text(token));
    }
    const length = charactersOf(messages) + charactersOf(tools) + charactersOf(variables);
    const text = interpret(this.source, this.#program, globals, {
      steps: stepsFor(this.source.length, messages.length + (tools?.length ?? 0), length),
      characters: BASE_CHARACTERS + GROWTH * length,
    });
    const whole = continueFinalMessage ? cutAtMark(text) : text;
    return { text: whole.value, parts: whole.parts() };
  }

  #guarded<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      if (error instanceof Fault) throw new TemplateError('InvalidData', `chat template: ${error.message}`);
      throw error;
    }
  }
}

/** Limit of steps. @param template its length @param items messages and tools @param characters in messages and tools */
const stepsFor = (template: number, items: number, characters: number): number =>
  Math.round(
    BASE_STEPS +
      items * (STEPS_PER_MESSAGE + template) +
      items ** 2 * STEPS_PER_PAIR +
      characters * STEPS_PER_CHARACTER,
  );

/**
 * Roles that may be part of a control token: many templates write `'<|' + message.role + '|>'`. Any other role counts as
 * user text, since a user could call a role `im_end`.
 */
const knownRoles: readonly string[] = [
  'system',
  'developer',
  'user',
  'assistant',
  'model',
  'tool',
  'function',
  'ipython',
  'observation',
];

function messageValue(message: Message): Value {
  const value = fromData(message);
  if (value instanceof Dict && knownRoles.includes(message.role)) value.set(new Text('role'), new Text(message.role));
  return value;
}

function charactersOf(data: unknown): number {
  if (typeof data === 'string') return data.length;
  if (typeof data !== 'object' || data === null) return 8;
  let sum = 8;
  for (const [key, value] of Object.entries(data)) sum += key.length + charactersOf(value);
  return sum;
}

/** Appended to the last message while it is rendered. Its final space shows whether the template trims messages. */
const END_MARK = '\u{f8a3}end of the last message\u{f8a3} ';

/** The messages with the mark appended to the last one. @throws OptionError */
function marked(messages: readonly Message[]): readonly Message[] {
  const last = messages.at(-1);
  const content = last?.content;
  if (typeof content === 'string') return [...messages.slice(0, -1), { ...last!, content: content + END_MARK }];
  const at = Array.isArray(content) ? content.findLastIndex((part) => typeof part?.text === 'string') : -1;
  if (at < 0) throw new OptionError('continueFinalMessage', 'false if the last message has no text', true);
  const parts = (content as { text: string }[]).map((part, i) =>
    i === at ? { ...part, text: part.text + END_MARK } : part,
  );
  return [...messages.slice(0, -1), { ...last!, content: parts }];
}

/** The text before the mark, without trailing white space if the template trims messages. @throws TemplateError */
function cutAtMark(text: Text): Text {
  const found = text.value.lastIndexOf(END_MARK.trim());
  if (found < 0) {
    throw new TemplateError(
      'InvalidTemplate',
      'chat template: the last message cannot be continued, because the template omits or changes it',
    );
  }
  const kept = text.slice(0, found);
  return text.value.startsWith(END_MARK, found) ? kept : strip(kept, undefined, 'right');
}
