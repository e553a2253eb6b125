/** A conversation as a prompt: which template puts it into words, and how. */
import { checkTextOnly, type Message } from '../chat/messages.ts';
import type { ChatTemplate, RenderOptions } from '../chat/template.ts';
import { type LanewiseError, OptionError } from '../errors.ts';
import type { TextPart } from '../tokenizer/tokenizer.ts';

/** Texts of the tokens that templates name. */
export interface TokenTexts {
  readonly bosToken: string | undefined;
  readonly eosToken: string | undefined;
  /** Others, by the names of their variables: `unk_token`, `pad_token`, ... */
  readonly specialTokens?: Readonly<Record<string, string>>;
}

export interface ChatFormat extends TokenTexts {
  readonly template: ChatTemplate;
  /** All templates by name (`default`, `tool_use`, ...), where the model has any besides `default`. */
  readonly named?: ReadonlyMap<string, ChatTemplate>;
}

/** What a model's files say about chats. */
export interface ChatFiles {
  readonly tokens: TokenTexts;
  /** Or why there is none: other prompts work all the same. */
  readonly format: ChatFormat | LanewiseError;
}

/** A conversation as a prompt. */
export interface ChatPrompt extends Pick<RenderOptions, 'tools' | 'continueFinalMessage' | 'now' | 'variables'> {
  readonly messages: readonly Message[];
  /** Instead of the model's own; or the name of one of its own. */
  readonly template?: ChatTemplate | string | undefined;
}

/** @param named the one asked for, or `tool_use` where there are tools @throws OptionError */
export function templateOf(format: ChatFormat, named: string | undefined, tools: ChatPrompt['tools']): ChatTemplate {
  if (named !== undefined) {
    const found = format.named?.get(named) ?? (named === 'default' ? format.template : undefined);
    if (found) return found;
    const names = [...(format.named?.keys() ?? ['default'])].join(', ');
    throw new OptionError('chatTemplate', `one of the model's chat templates (${names})`, named);
  }
  return (tools?.length ? format.named?.get('tool_use') : undefined) ?? format.template;
}

/**
 * Text of a conversation for a model that reads text only. An answer at the end is gone on with.
 * @throws TemplateError, OptionError
 */
export function renderChat(tokens: TokenTexts, template: ChatTemplate, prompt: ChatPrompt): readonly TextPart[] {
  const { messages, tools, now, variables } = prompt;
  checkTextOnly(messages);
  const continueFinalMessage = prompt.continueFinalMessage ?? isUnfinished(messages.at(-1));
  const { bosToken, eosToken, specialTokens } = tokens;
  return template.render(messages, {
    tools,
    continueFinalMessage,
    addGenerationPrompt: !continueFinalMessage,
    bosToken,
    eosToken,
    specialTokens,
    now,
    variables,
  }).parts;
}

/** An answer with text, which calls no tools. */
function isUnfinished(last: Message | undefined): boolean {
  if (last?.role !== 'assistant') return false;
  const { content, tool_calls: calls } = last;
  return (
    (typeof content === 'string' || (Array.isArray(content) && content.length > 0)) && !(calls as unknown[])?.length
  );
}
