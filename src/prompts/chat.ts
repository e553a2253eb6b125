/** Conversations as prompts: choice of the chat template, and rendering. */
import { checkTextOnly, type Message } from '../chat/messages.ts';
import type { ChatTemplate, RenderOptions } from '../chat/template.ts';
import { type LanewiseError, OptionError } from '../errors.ts';
import type { TextPart } from '../tokenizer/tokenizer.ts';

/** Texts of the tokens that templates use as variables. */
export interface TokenTexts {
  readonly bosToken: string | undefined;
  readonly eosToken: string | undefined;
  /** Texts of other tokens by variable name: `unk_token`, `pad_token`, ... */
  readonly specialTokens?: Readonly<Record<string, string>>;
}

export interface ChatFormat extends TokenTexts {
  readonly template: ChatTemplate;
  /** All templates by name (`default`, `tool_use`, ...), if the model has others than `default`. */
  readonly named?: ReadonlyMap<string, ChatTemplate>;
}

/** Chat settings from a model's files. */
export interface ChatFiles {
  readonly tokens: TokenTexts;
  /** The chat templates, or the error that explains why there are none; other prompts still work. */
  readonly format: ChatFormat | LanewiseError;
  /** File and field of the default template. */
  readonly from?: string;
}

/** A conversation as a prompt. */
export interface ChatPrompt extends Pick<RenderOptions, 'tools' | 'continueFinalMessage' | 'now' | 'variables'> {
  readonly messages: readonly Message[];
  /** A template to use instead of the model's, or the name of one of the model's templates. */
  readonly template?: ChatTemplate | string | undefined;
}

/**
 * The template to use.
 * @param named requested name; default: `tool_use` if there are tools, else `default`
 * @throws OptionError
 */
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
 * Renders a conversation, whose messages must be text only. An unfinished answer at its end is continued.
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

/** Whether the last message is an answer with text and without tool calls. */
function isUnfinished(last: Message | undefined): boolean {
  if (last?.role !== 'assistant') return false;
  const { content, tool_calls: calls } = last;
  return (
    (typeof content === 'string' || (Array.isArray(content) && content.length > 0)) && !(calls as unknown[])?.length
  );
}
