/** Finds the forms of messages that a template reads, by rendering small test conversations. */
import type { ChatMessage, FunctionCall, Message, TemplateTraits, ToolCall } from './messages.ts';

type Content = ReturnType<TemplateTraits['contentOf']>;
type Arguments = 'object' | 'text' | 'repr';

/** Words that no template contains. Their first letters differ, because templates may cut off texts. */
const marks = ['Ulmprobe', 'Ahornprobe'] as const;
const TEXT = marks.join(' ');
const PARTS = marks.map((text) => ({ type: 'text', text }) as const);
const answering: readonly string[] = ['assistant', 'model'];
const resulting: readonly string[] = ['tool', 'function', 'ipython', 'observation'];

export class ProbedTraits implements TemplateTraits {
  readonly #source: string;
  /** Returns undefined if the template refuses the messages. */
  readonly #render: (messages: readonly Message[]) => string | undefined;
  readonly #contents = new Map<string, Content>();
  #arguments: Arguments | undefined;

  constructor(source: string, render: (messages: readonly Message[]) => string | undefined) {
    this.#source = source;
    this.#render = render;
  }

  contentOf(role: string): Content {
    // Role names come from users: unknown ones share one probe, so that the number of probes is bounded.
    const kind = answering.includes(role) ? 'assistant' : resulting.includes(role) ? 'tool' : role;
    const probed = ['user', 'system', 'assistant', 'tool', 'developer'].includes(kind) ? kind : 'user';
    const known = this.#contents.get(probed);
    if (known) return known;
    const found = this.#probeContent(probed);
    this.#contents.set(probed, found);
    return found;
  }

  arguments(): Arguments {
    this.#arguments ??= this.#probeArguments();
    return this.#arguments;
  }

  reads(key: string): boolean {
    return new RegExp(`(?<![\\w$])${key}(?![\\w$])`).test(this.#source);
  }

  #probeContent(role: string): Content {
    // The messages around the probe may have to be in parts too.
    const shows = (content: Message['content']): boolean =>
      ['.', [{ type: 'text', text: '.' } as const]].some((other) => {
        const text = this.#render(aroundMessage({ role, content } as Message, other));
        return text !== undefined && showsAll(text);
      });
    const text = shows(TEXT);
    if (shows(PARTS)) return text ? 'either' : 'parts';
    return !text && shows([{ type: 'text', text: TEXT }]) ? 'part' : 'text';
  }

  #probeArguments(): Arguments {
    const shown = (given: FunctionCall['arguments']): string | undefined => this.#render(aroundCall(given));
    const object = shown({ [marks[0]]: marks[1] });
    if (object !== undefined) return new RegExp(`'${marks[0]}': '`).test(object) ? 'repr' : 'object';
    return shown(JSON.stringify({ [marks[0]]: marks[1] })) === undefined ? 'object' : 'text';
  }
}

/** Whether both marks were rendered, and not as part of a list printed as JSON. */
const showsAll = (text: string): boolean =>
  marks.every((mark) => text.includes(mark)) && !new RegExp(`["']text["']\\s*:\\s*["']${marks[0]}`).test(text);

/** @param other content of the messages around it */
function aroundMessage(message: Message, other: ChatMessage['content']): Message[] {
  const question: Message = { role: 'user', content: other };
  switch (message.role) {
    case 'user':
      return [message];
    case 'assistant':
      return [question, message, question];
    case 'tool': {
      const call: ToolCall = { type: 'function', id: 'call00001', function: { name: 'probe', arguments: {} } };
      return [
        question,
        { role: 'assistant', content: other, tool_calls: [call] },
        { ...message, tool_call_id: 'call00001', name: 'probe' },
      ];
    }
    default:
      return [message, question];
  }
}

function aroundCall(given: FunctionCall['arguments']): Message[] {
  const call: ToolCall = { type: 'function', id: 'call00001', function: { name: 'probe', arguments: given } };
  return [
    { role: 'user', content: 'q' },
    { role: 'assistant', content: '', tool_calls: [call] },
    { role: 'tool', content: 'r', tool_call_id: 'call00001', name: 'probe' },
  ];
}
