/** Converts prompts for messages to another thread, so that templates see the same values there. */
import { JsonNumber } from '../chat/json.ts';
import { ChatTemplate } from '../chat/template.ts';
import type { ChatPrompt } from '../prompts/chat.ts';
import type { Prompt } from '../prompts/prompt.ts';

/** Templates refuse data nested more deeply than this. */
const MOST_LEVELS = 1200;

/** A Map, which plain data cannot contain, stands for a value that cannot be cloned directly. */
type Mark = ReadonlyMap<'number' | 'type', string>;

/** Converts objects to what templates see of them: their own enumerable properties. */
function plain(data: unknown, level = 0): unknown {
  if (typeof data === 'function' || typeof data === 'symbol') return new Map([['type', typeof data]]);
  if (typeof data !== 'object' || data === null) return data;
  if (data instanceof JsonNumber) return new Map([['number', data.source]]);
  if (level > MOST_LEVELS) return null;
  if (Array.isArray(data)) return Array.from(data, (item) => plain(item, level + 1));
  return Object.fromEntries(Object.entries(data).map(([key, value]) => [key, plain(value, level + 1)]));
}

function original(data: unknown): unknown {
  if (typeof data !== 'object' || data === null) return data;
  if (data instanceof Map) return ofMark(data as Mark);
  if (Array.isArray(data)) return data.map(original);
  return Object.fromEntries(Object.entries(data).map(([key, value]) => [key, original(value)]));
}

function ofMark(mark: Mark): unknown {
  const number = mark.get('number');
  if (number !== undefined) return new JsonNumber(number);
  // Templates say what they found.
  return mark.get('type') === 'symbol' ? Symbol('of the caller') : () => {};
}

/** @param prompt checked by `checkPrompt` */
export function packPrompt(prompt: Prompt): unknown {
  if (typeof prompt === 'string') return prompt;
  if ('tokenIds' in prompt) return { tokenIds: prompt.tokenIds };
  if ('text' in prompt) return { text: prompt.text, parseSpecial: prompt.parseSpecial };
  const { messages, tools, variables, template, now, continueFinalMessage } = prompt;
  return {
    ...{ now, continueFinalMessage },
    ...{ messages: plain(messages), tools: plain(tools), variables: plain(variables) },
    template: template instanceof ChatTemplate ? { source: template.source } : template,
  };
}

export function unpackPrompt(packed: unknown): Prompt {
  if (typeof packed !== 'object' || packed === null || !('messages' in packed)) return packed as Prompt;
  const { messages, tools, variables, template, ...rest } = packed as ChatPrompt & {
    readonly template?: string | { readonly source: string };
  };
  return {
    ...rest,
    messages: original(messages) as ChatPrompt['messages'],
    tools: original(tools) as ChatPrompt['tools'],
    variables: original(variables) as ChatPrompt['variables'],
    template: typeof template === 'object' ? templateOf(template.source) : template,
  };
}

/** Parsed templates of callers, cached because the same template comes with each turn. */
const templates = new Map<string, ChatTemplate>();
const MOST_TEMPLATES = 8;

function templateOf(source: string): ChatTemplate {
  const template = templates.get(source) ?? new ChatTemplate(source);
  templates.delete(source);
  templates.set(source, template);
  const [oldest] = templates.keys();
  if (templates.size > MOST_TEMPLATES) templates.delete(oldest!);
  return template;
}
