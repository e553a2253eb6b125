/**
 * Checks messages and converts them to the form that a template reads. Templates and clients differ in these forms; the
 * rules follow transformers 5 and servers with an OpenAI-compatible API.
 */
import { OptionError } from '../errors.ts';
import { JsonNumber, parseJson, stringifyJson } from './json.ts';

/** Roles that most templates know. Some know others, such as `ipython`. */
export type Role = 'system' | 'developer' | 'user' | 'assistant' | 'tool' | (string & {});

export interface TextContentPart {
  readonly type?: 'text' | 'input_text' | 'output_text' | null;
  readonly text: string;
  readonly [key: string]: unknown;
}

/** The reasoning of a model before its answer. */
export interface ReasoningContentPart {
  readonly type: 'thinking' | 'reasoning';
  readonly thinking?: string | readonly { readonly text: string }[];
  readonly reasoning?: string | readonly { readonly text: string }[];
  readonly text?: string;
  readonly [key: string]: unknown;
}

/** Media, for templates that render a placeholder. Models refuse them. */
export interface MediaContentPart {
  readonly type: `${'' | 'input_'}${'image' | 'audio' | 'video' | 'file'}` | `${'image' | 'audio' | 'video'}_url`;
  readonly [key: string]: unknown;
}

export type ContentPart = string | TextContentPart | ReasoningContentPart | MediaContentPart;

export interface FunctionCall {
  readonly name: string;
  /** An object, or JSON text of one. */
  readonly arguments?: string | Readonly<Record<string, unknown>> | null;
  readonly [key: string]: unknown;
}

/** A call in the format of OpenAI's API, or only its `function`. */
export type ToolCall =
  | {
      readonly type?: 'function';
      readonly id?: string;
      readonly function: FunctionCall;
      readonly [key: string]: unknown;
    }
  | FunctionCall;

interface MessageFields {
  readonly name?: string | null;
  /** The calls of an assistant message. */
  readonly tool_calls?: readonly ToolCall[] | null;
  /** Id of the call that a tool message answers. */
  readonly tool_call_id?: string | null;
  /** The reasoning before the answer, under one of three names. */
  readonly reasoning_content?: string | null;
  readonly reasoning?: string | null;
  readonly thinking?: string | null;
  /** Further keys, for templates that read them. */
  readonly [key: string]: unknown;
}

export interface ChatMessage extends MessageFields {
  readonly role: Role;
  readonly content?: string | readonly ContentPart[] | null;
}

/** The result of a tool call. Some templates render an object as JSON. */
export interface ToolMessage extends MessageFields {
  readonly role: 'tool';
  readonly content?: string | readonly ContentPart[] | Readonly<Record<string, unknown>> | null;
}

/** A turn of a conversation. */
export type Message = ChatMessage | ToolMessage;

export interface FunctionDescription {
  readonly name: string;
  readonly description?: string;
  /** A JSON schema. */
  readonly parameters?: Readonly<Record<string, unknown>> | null;
  readonly [key: string]: unknown;
}

/** A function that the model may call, in the format of OpenAI's API, or only its description. */
export type Tool =
  | { readonly type: 'function'; readonly function: FunctionDescription; readonly [key: string]: unknown }
  | FunctionDescription;

/** The forms of messages that a template reads. */
export interface TemplateTraits {
  /** The form of content that it renders completely; `part`: a single part. */
  contentOf(role: string): 'text' | 'part' | 'parts' | 'either';
  /** How it renders an object of arguments: `object` as JSON, `repr` in Python's notation; `text`: it needs JSON text. */
  arguments(): 'object' | 'text' | 'repr';
  /** Whether the template mentions this key of a message. */
  reads(key: string): boolean;
}

type Fields = Readonly<Record<string, unknown>>;

/** Names of the reasoning of a message. If a message has several, the first one in this list wins. */
const reasoningNames = ['reasoning_content', 'thinking', 'reasoning'] as const;
const textTypes: readonly unknown[] = [undefined, null, 'text', 'input_text', 'output_text'];
const thoughtTypes: readonly unknown[] = ['thinking', 'reasoning'];

/** @throws OptionError that names the message and the invalid field */
export function checkMessages(messages: readonly Message[]): void {
  if (!Array.isArray(messages)) throw new OptionError('messages', 'an array of {role, content}', messages);
  for (const [i, message] of messages.entries()) {
    if (typeof message !== 'object' || message === null || typeof message.role !== 'string') {
      throw new OptionError(`messages[${i}]`, 'an object with a role', message);
    }
  }
}

/** Copies of the messages in the form that the template reads. @throws OptionError */
export function normaliseMessages(messages: readonly Message[], traits: TemplateTraits): Message[] {
  checkMessages(messages);
  return messages.map((message, i) => {
    const given = withoutNull(message);
    const thought = withReasoning(withCalls(given, `messages[${i}]`, traits), traits);
    return withContent(thought, `messages[${i}]`, traits) as Message;
  });
}

const withoutNull = (message: Fields): Fields =>
  Object.fromEntries(Object.entries(message).filter(([, value]) => value !== null && value !== undefined));

/** Copies the reasoning to the other names that the template may read; to `reasoning` only if it mentions it. */
function withReasoning(message: Fields, traits: TemplateTraits): Fields {
  const name = reasoningNames.find((name) => message[name] !== undefined);
  if (name === undefined) return message;
  const thought = message[name];
  const filled: Fields = { thinking: thought, ...message, reasoning_content: thought };
  return filled.reasoning === undefined && traits.reads('reasoning') ? { ...filled, reasoning: thought } : filled;
}

function withCalls(message: Fields, place: string, traits: TemplateTraits): Fields {
  const calls = message.tool_calls;
  if (!Array.isArray(calls)) return message;
  return {
    ...message,
    tool_calls: calls.map((call, i) => {
      if (!isFields(call)) return call;
      const at = `${place}.tool_calls[${i}]`;
      if (isFields(call.function))
        return { ...call, function: withArguments(call.function, `${at}.function.arguments`, traits) };
      return withArguments(call, `${at}.arguments`, traits);
    }),
  };
}

/** A call with its arguments in the form that the template renders. */
function withArguments(call: Fields, place: string, traits: TemplateTraits): Fields {
  const { arguments: given } = call;
  if (!('arguments' in call) || given === undefined) return call;
  if (given === null || (typeof given === 'string' && given.trim() === '')) return { ...call, arguments: {} };
  if (typeof given === 'string') {
    const parsed = objectIn(given, place);
    return { ...call, arguments: traits.arguments() === 'object' ? parsed : given };
  }
  return isFields(given) && traits.arguments() === 'text' ? { ...call, arguments: stringifyJson(given) } : call;
}

function objectIn(text: string, place: string): Fields {
  let value: unknown;
  try {
    value = parseJson(text);
  } catch {
    throw new OptionError(place, 'an object, or JSON text of one', text);
  }
  if (!isFields(value)) throw new OptionError(place, 'an object, or JSON text of one', text);
  return value;
}

/** A message with its content in the form that the template renders for this role. */
function withContent(message: Fields, place: string, traits: TemplateTraits): Fields {
  const { content } = message;
  const role = String(message.role);
  if (typeof content === 'string') {
    const asParts = content !== '' && traits.contentOf(role).startsWith('part');
    return asParts ? { ...message, content: [{ type: 'text', text: content }] } : message;
  }
  if (!Array.isArray(content)) return message;
  const form = traits.contentOf(role);
  if (form === 'parts' || form === 'either') return { ...message, content: content.map(partOf) };
  const thoughts = content.map(thoughtIn).filter((thought) => thought !== undefined);
  const text = content
    .flatMap((part, i) => (thoughtIn(part) === undefined ? [textIn(part, `${place}.content[${i}]`)] : []))
    .join('\n');
  const joined = { ...message, content: form === 'part' ? [{ type: 'text', text }] : text };
  const hasThought = reasoningNames.some((name) => message[name] !== undefined);
  return thoughts.length === 0 || hasThought
    ? joined
    : withReasoning({ ...joined, reasoning_content: thoughts.join('\n') }, traits);
}

/** Checks that messages contain only text: the model reads nothing else, even if its template does. @throws OptionError */
export function checkTextOnly(messages: readonly Message[]): void {
  checkMessages(messages);
  for (const [i, { content }] of messages.entries()) {
    if (!Array.isArray(content)) continue;
    for (const [k, part] of content.entries()) {
      if (thoughtIn(part) === undefined) textIn(part, `messages[${i}].content[${k}]`);
    }
  }
}

/** @throws OptionError for a part that is not text */
function textIn(part: unknown, place: string): string {
  if (typeof part === 'string') return part;
  if (isFields(part) && textTypes.includes(part.type) && typeof part.text === 'string') return part.text;
  const found = isFields(part) ? (part.type ?? part) : part;
  throw new OptionError(place, 'a text, as in {"type": "text", "text": "..."} (no images, sound or files)', found);
}

function thoughtIn(part: unknown): string | undefined {
  if (!isFields(part) || !thoughtTypes.includes(part.type)) return undefined;
  const text = part.thinking ?? part.reasoning ?? part.text;
  if (Array.isArray(text) && text.every((inner) => isFields(inner) && typeof inner.text === 'string'))
    return text.map((inner) => inner.text).join('');
  return typeof text === 'string' ? text : undefined;
}

/** A part with the keys that templates know. */
function partOf(part: unknown): unknown {
  if (typeof part === 'string') return { type: 'text', text: part };
  if (!isFields(part)) return part;
  const { type, text } = part;
  return typeof text === 'string' && textTypes.includes(type) && type !== 'text' ? { ...part, type: 'text' } : part;
}

const isFields = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof JsonNumber);
