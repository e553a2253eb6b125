/**
 * What messages must look like before a template sees them. Templates differ in what they can read, and clients in what they
 * send: the rules are those of transformers 5 and of servers for the same API.
 */
import { OptionError } from '../errors.ts';
import { JsonNumber, parseJson, stringifyJson } from './json.ts';

/** Roles that most templates know; some know others, such as `ipython`. */
export type Role = 'system' | 'developer' | 'user' | 'assistant' | 'tool' | (string & {});

export interface TextContentPart {
  readonly type?: 'text' | 'input_text' | 'output_text' | null;
  readonly text: string;
  readonly [key: string]: unknown;
}

/** What a model thought before its answer. */
export interface ReasoningContentPart {
  readonly type: 'thinking' | 'reasoning';
  readonly thinking?: string | readonly { readonly text: string }[];
  readonly reasoning?: string | readonly { readonly text: string }[];
  readonly text?: string;
  readonly [key: string]: unknown;
}

/** For templates that have a place for them: models refuse them. */
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

/** A call as the API of OpenAI has it, or the function's call alone. */
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
  /** Of an answer. */
  readonly tool_calls?: readonly ToolCall[] | null;
  /** Of a result: the call that it answers. */
  readonly tool_call_id?: string | null;
  /** What the model thought before its answer, under one of three names. */
  readonly reasoning_content?: string | null;
  readonly reasoning?: string | null;
  readonly thinking?: string | null;
  /** Templates may know more. */
  readonly [key: string]: unknown;
}

export interface ChatMessage extends MessageFields {
  readonly role: Role;
  readonly content?: string | readonly ContentPart[] | null;
}

/** The result of a tool call; some templates show an object as JSON. */
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

/** A function that the model may call, as the API of OpenAI has it, or its description alone. */
export type Tool =
  | { readonly type: 'function'; readonly function: FunctionDescription; readonly [key: string]: unknown }
  | FunctionDescription;

/** What a template can read. */
export interface TemplateTraits {
  /** In which form it shows all text of a message; `part`: as the only part. */
  contentOf(role: string): 'text' | 'part' | 'parts' | 'either';
  /** `object` is shown as an object, `text` fails on one, `repr` shows it in Python's spelling instead of JSON. */
  arguments(): 'object' | 'text' | 'repr';
  /** Whether it reads this key of a message. */
  reads(key: string): boolean;
}

type Fields = Readonly<Record<string, unknown>>;

/** Most specific name first: it wins where a message has several. */
const reasoningNames = ['reasoning_content', 'thinking', 'reasoning'] as const;
const textTypes: readonly unknown[] = [undefined, null, 'text', 'input_text', 'output_text'];
const thoughtTypes: readonly unknown[] = ['thinking', 'reasoning'];

/** @throws OptionError naming the message and what in it cannot be read */
export function checkMessages(messages: readonly Message[]): void {
  if (!Array.isArray(messages)) throw new OptionError('messages', 'an array of {role, content}', messages);
  for (const [i, message] of messages.entries()) {
    if (typeof message !== 'object' || message === null || typeof message.role !== 'string') {
      throw new OptionError(`messages[${i}]`, 'an object with a role', message);
    }
  }
}

/** The messages as a template can read them; those given stay as they are. @throws OptionError */
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

/** Fills the names of reasoning that the message lacks. `reasoning` only where the template reads it. */
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

/** Arguments of a call as the template can show them. */
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

/** Content in the form that the template shows for this role. */
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

/** For models, which read nothing but text, whatever their template has a place for. @throws OptionError */
export function checkTextOnly(messages: readonly Message[]): void {
  checkMessages(messages);
  for (const [i, { content }] of messages.entries()) {
    if (!Array.isArray(content)) continue;
    for (const [k, part] of content.entries()) {
      if (thoughtIn(part) === undefined) textIn(part, `messages[${i}].content[${k}]`);
    }
  }
}

/** @throws OptionError for a part that is no text */
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

/** A part in the spelling that templates know. */
function partOf(part: unknown): unknown {
  if (typeof part === 'string') return { type: 'text', text: part };
  if (!isFields(part)) return part;
  const { type, text } = part;
  return typeof text === 'string' && textTypes.includes(type) && type !== 'text' ? { ...part, type: 'text' } : part;
}

const isFields = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof JsonNumber);
