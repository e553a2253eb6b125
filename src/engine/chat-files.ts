/** Reads chat templates from a model's files, and the tokens that templates use. */
import { ChatTemplate } from '../chat/template.ts';
import { LanewiseError, TemplateError } from '../errors.ts';
import type { FileFolder } from '../formats/bytes.ts';
import { firstPart } from '../formats/gguf.ts';
import { readGgufHeader } from '../formats/gguf-header.ts';
import type { GgufMetadata } from '../formats/gguf-types.ts';
import { isObject, readJson, readText } from '../formats/json.ts';
import type { ChatFiles, ChatFormat, TokenTexts } from '../prompts/chat.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { findGguf } from './open.ts';
import { tokenizerBeside } from './tokenizer.ts';

/** The files of a model. */
interface ChatSource {
  readonly metadata?: GgufMetadata | undefined;
  readonly files: readonly string[];
}

/** Template texts by name, each with its file and field. */
type Sources = ReadonlyMap<string, { readonly text: unknown; readonly from: string }>;

const tokenNames = ['bos', 'eos', 'unk', 'sep', 'pad', 'cls', 'mask'] as const;
const ggufNames: Readonly<Record<(typeof tokenNames)[number], string>> = {
  bos: 'bos',
  eos: 'eos',
  unk: 'unknown',
  sep: 'seperator',
  pad: 'padding',
  cls: 'cls',
  mask: 'mask',
};

export async function readChatFormat(
  folder: FileFolder,
  { metadata, files }: ChatSource,
  tokenizer: Tokenizer | undefined,
): Promise<ChatFiles> {
  const name = metadata ? `${folder.name}/${files[0]}` : folder.name;
  const { sources, tokens } = metadata
    ? { sources: ggufTemplates(metadata), tokens: ggufTokens(metadata, tokenizer) }
    : await readFolder(folder, tokenizer);
  const [first] = sources.keys();
  if (first === undefined) {
    const format = new LanewiseError(
      'NoChatTemplate',
      `${name} has no chat template, so it was not trained for chats; give it a prompt, or a chat template`,
    );
    return { tokens, format };
  }
  try {
    const named = new Map([...sources].map(([key, { text }]) => [key, new ChatTemplate(text as string)]));
    const [name, template] = named.has('default') ? ['default', named.get('default')!] : [first, named.get(first)!];
    const format = { template, ...(named.size > 1 || name !== 'default' ? { named } : {}), ...tokens };
    return { tokens, format, from: sources.get(name)!.from };
  } catch (error) {
    if (error instanceof TemplateError) return { tokens, format: error };
    throw error;
  }
}

/**
 * Reads the chat format of a model, without its weights.
 * @throws LanewiseError NoChatTemplate, TemplateError, FormatError
 */
export async function openChatFormat(folder: FileFolder, file?: string): Promise<ChatFormat> {
  const gguf = file === undefined ? await findGguf(folder) : file.endsWith('.gguf') ? firstPart(file) : undefined;
  const source = gguf === undefined ? undefined : await folder.open(gguf);
  const metadata = source && (await readGgufHeader(source).finally(() => source.dispose())).metadata;
  const files = metadata ? { metadata, files: [gguf!] } : { files: [] };
  const { format } = await readChatFormat(folder, files, metadata && (await tokenizerBeside(folder, files)));
  if (format instanceof LanewiseError) throw format;
  return format;
}

const GGUF_TEMPLATE = 'tokenizer.chat_template';

function ggufTemplates(metadata: GgufMetadata): Sources {
  const sources = new Map<string, { text: unknown; from: string }>();
  for (const [key, { value: text }] of metadata) {
    const name = key === GGUF_TEMPLATE ? 'default' : key.slice(GGUF_TEMPLATE.length + 1);
    if (key === GGUF_TEMPLATE || key.startsWith(`${GGUF_TEMPLATE}.`))
      sources.set(name, { text, from: `GGUF metadata, ${key}` });
  }
  return sources;
}

function ggufTokens(metadata: GgufMetadata, tokenizer: Tokenizer | undefined): TokenTexts {
  return tokenTexts((name) => {
    const id = metadata.get(`tokenizer.ggml.${ggufNames[name]}_token_id`)?.value;
    return typeof id === 'number' ? tokenizer?.token(id) : undefined;
  });
}

/** Finds templates as transformers does: .jinja files first, then tokenizer_config.json, then chat_template.json. */
async function readFolder(
  folder: FileFolder,
  tokenizer: Tokenizer | undefined,
): Promise<{ sources: Sources; tokens: TokenTexts }> {
  const config = asObject(await readJson(folder, 'tokenizer_config.json'));
  const special = asObject(await readJson(folder, 'special_tokens_map.json'));
  const sources = new Map<string, { text: unknown; from: string }>();
  const add = (templates: Iterable<[string, unknown]>, from: string): void => {
    for (const [name, text] of templates) sources.set(name, { text, from });
  };
  add(namedTemplates(config.chat_template), 'tokenizer_config.json, chat_template');
  if (sources.size === 0) {
    const { chat_template } = asObject(await readJson(folder, 'chat_template.json'));
    add(namedTemplates(chat_template), 'chat_template.json, chat_template');
  }
  const whole = await readText(folder, 'chat_template.jinja');
  if (whole !== undefined) add([['default', whole]], 'chat_template.jinja');
  add(await additionalTemplates(folder), 'additional_chat_templates');
  const tokens = tokenTexts((name) => tokenText(config[`${name}_token`]) ?? tokenText(special[`${name}_token`]));
  if (Object.keys(config).length > 0 || Object.keys(special).length > 0 || !tokenizer) return { sources, tokens };
  // Without these files, config.json has the ids.
  const ids = asObject(await readJson(folder, 'config.json'));
  return {
    sources,
    tokens: tokenTexts((name) => {
      const id = ids[`${name}_token_id`];
      return typeof id === 'number' ? tokenizer.token(id) : undefined;
    }),
  };
}

/** If the folder cannot be listed, only the usual name is tried. */
async function additionalTemplates(folder: FileFolder): Promise<[name: string, text: string][]> {
  const inside = folder.folder('additional_chat_templates');
  // Listing a missing folder fails under Node.
  const listed = (await inside.list().catch((): string[] => [])).filter((file) => file.endsWith('.jinja'));
  const found: [string, string][] = [];
  for (const file of listed.length > 0 ? listed : ['tool_use.jinja']) {
    const text = await readText(inside, file);
    if (text !== undefined) found.push([file.slice(0, -'.jinja'.length), text]);
  }
  return found;
}

const asObject = (json: unknown): Record<string, unknown> => (isObject(json) ? json : {});

/** Reads one template, a list of {name, template}, or an object of templates by name. */
function namedTemplates(given: unknown): [string, unknown][] {
  if (given === undefined || given === null) return [];
  if (Array.isArray(given)) {
    return given.map((entry) => {
      const { name, template } = asObject(entry);
      return [typeof name === 'string' ? name : 'default', template];
    });
  }
  return typeof given === 'object' ? Object.entries(given) : [['default', given]];
}

function tokenTexts(textOf: (name: (typeof tokenNames)[number]) => string | undefined): TokenTexts {
  const texts = tokenNames.map((name) => [`${name}_token`, textOf(name)] as const);
  const { bos_token: bosToken, eos_token: eosToken, ...others } = Object.fromEntries(texts);
  const specialTokens: Record<string, string> = {};
  for (const [name, text] of Object.entries(others)) if (text !== undefined) specialTokens[name] = text;
  return { bosToken, eosToken, specialTokens };
}

/** The text of a token: a string, or an object with `content`. */
function tokenText(token: unknown): string | undefined {
  const text = typeof token === 'string' ? token : asObject(token).content;
  return typeof text === 'string' ? text : undefined;
}
