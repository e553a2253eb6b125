/** How a model wants to be talked to: its chat template and the tokens that the template names. */
import { ChatTemplate, type Message, type RenderOptions } from '../chat/template.ts';
import { LanewiseError, TemplateError } from '../errors.ts';
import type { FileFolder } from '../formats/bytes.ts';
import { readJson, readText } from '../formats/checkpoint.ts';
import { firstPart } from '../formats/gguf.ts';
import { readGgufHeader } from '../formats/gguf-header.ts';
import type { GgufMetadata } from '../formats/gguf-types.ts';
import type { TextPart, Tokenizer } from '../tokenizer/tokenizer.ts';
import { findGguf } from './open.ts';
import { tokenizerBeside } from './tokenizer.ts';

export interface ChatFormat {
  readonly template: ChatTemplate;
  /** Texts of tokens, for the template's variables. */
  readonly bosToken: string | undefined;
  readonly eosToken: string | undefined;
}

/** A conversation as a prompt. */
export interface ChatPrompt extends Pick<RenderOptions, 'tools' | 'continueFinalMessage' | 'now' | 'variables'> {
  readonly messages: readonly Message[];
  /** Instead of the model's own. */
  readonly template?: ChatTemplate;
}

interface TemplateSource {
  readonly text: unknown;
  readonly bosToken: string | undefined;
  readonly eosToken: string | undefined;
}

/** The format, or why there is none: other prompts work all the same. */
export async function readChatFormat(
  folder: FileFolder,
  metadata: GgufMetadata | undefined,
  tokenizer: Tokenizer | undefined,
): Promise<ChatFormat | LanewiseError> {
  const { text, ...tokens } = metadata ? ggufSource(metadata, tokenizer) : await folderSource(folder);
  if (text === undefined) {
    return new LanewiseError(
      'NoChatTemplate',
      `${folder.name} has no chat template: it was not made for chats; give it a prompt, or a template (--chat-template FILE)`,
    );
  }
  try {
    return { template: new ChatTemplate(text as string), ...tokens };
  } catch (error) {
    if (error instanceof TemplateError) return error;
    throw error;
  }
}

/** The format of a model, without its weights. @throws LanewiseError NoChatTemplate, TemplateError, FormatError */
export async function openChatFormat(folder: FileFolder, file?: string): Promise<ChatFormat> {
  const gguf = file === undefined ? await findGguf(folder) : file.endsWith('.gguf') ? firstPart(file) : undefined;
  const source = gguf === undefined ? undefined : await folder.open(gguf);
  const metadata = source && (await readGgufHeader(source).finally(() => source.close())).metadata;
  const tokenizer = metadata && (await tokenizerBeside(folder, { metadata, files: [gguf!] }));
  const format = await readChatFormat(folder, metadata, tokenizer);
  if (format instanceof LanewiseError) throw format;
  return format;
}

function ggufSource(metadata: GgufMetadata, tokenizer: Tokenizer | undefined): TemplateSource {
  const token = (name: string): string | undefined => {
    const id = metadata.get(`tokenizer.ggml.${name}_token_id`)?.value;
    return typeof id === 'number' ? tokenizer?.token(id) : undefined;
  };
  return { text: metadata.get('tokenizer.chat_template')?.value, bosToken: token('bos'), eosToken: token('eos') };
}

/** chat_template.jinja, then tokenizer_config.json, then chat_template.json, as transformers looks for them. */
async function folderSource(folder: FileFolder): Promise<TemplateSource> {
  const config = asObject(await readJson(folder, 'tokenizer_config.json'));
  const special = asObject(await readJson(folder, 'special_tokens_map.json'));
  const text =
    (await readText(folder, 'chat_template.jinja')) ??
    defaultOf(config.chat_template) ??
    defaultOf(asObject(await readJson(folder, 'chat_template.json')).chat_template);
  const token = (name: string): string | undefined => tokenText(config[name]) ?? tokenText(special[name]);
  return { text, bosToken: token('bos_token'), eosToken: token('eos_token') };
}

const asObject = (json: unknown): Record<string, unknown> =>
  typeof json === 'object' && json !== null && !Array.isArray(json) ? (json as Record<string, unknown>) : {};

/** One template, or the one called default of a list of {name, template}. */
function defaultOf(given: unknown): unknown {
  if (!Array.isArray(given)) return given ?? undefined;
  return (given.find((entry) => asObject(entry).name === 'default') ?? given[0])?.template;
}

/** A token as text, or as {content}. */
function tokenText(token: unknown): string | undefined {
  const text = typeof token === 'string' ? token : asObject(token).content;
  return typeof text === 'string' ? text : undefined;
}

/** @throws TemplateError, OptionError */
export function renderChat(
  format: Omit<ChatFormat, 'template'>,
  template: ChatTemplate,
  prompt: ChatPrompt,
): readonly TextPart[] {
  const { messages, tools, continueFinalMessage = false, now, variables } = prompt;
  const { bosToken, eosToken } = format;
  return template.render(messages, {
    tools,
    continueFinalMessage,
    addGenerationPrompt: !continueFinalMessage,
    bosToken,
    eosToken,
    now,
    variables,
  }).parts;
}
