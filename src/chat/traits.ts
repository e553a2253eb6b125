/** What a template can read, found by rendering small conversations once and comparing what comes out. */
import type { ChatMessage, FunctionCall, Message, TemplateTraits, ToolCall } from './messages.ts';

type Content = ReturnType<TemplateTraits['contentOf']>;
type Arguments = 'object' | 'text' | 'repr';

/** Words that no template contains. They differ in their first letters, as templates may cut texts. */
const marks = ['Ulmprobe', 'Ahornprobe'] as const;
const TEXT = marks.join(' ');
const PARTS = marks.map((text) => ({ type: 'text', text }) as const);
const answering: readonly string[] = ['assistant', 'model'];
const resulting: readonly string[] = ['tool', 'function', 'ipython', 'observation'];

export class ProbedTraits implements TemplateTraits {
  readonly #source: string;
  /** Undefined where the template refuses the messages. */
  readonly #render: (messages: readonly Message[]) => string | undefined;
  readonly #contents = new Map<string, Content>();
  #arguments: Arguments | undefined;

  constructor(source: string, render: (messages: readonly Message[]) => string | undefined) {
    this.#source = source;
    this.#render = render;
  }

  contentOf(role: string): Content {
    // Roles are text of people: few kinds of probes, however many names.
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
    // A template may know nothing but parts, in the messages around too.
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

/** Both marks, and not as part of a list that was written out. */
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
