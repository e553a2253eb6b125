/**
 * Reads the sidecar files of a vocabulary: tokenizer_config.json, special_tokens_map.json and added_tokens.json. They name
 * added tokens, the roles of control tokens, and settings of the tokenizer's class in transformers.
 */
import { TokenizerError } from '../errors.ts';
import { Settings } from './settings.ts';
import type { TokenRole } from './tokenizer.ts';

export interface SidecarTexts {
  readonly tokenizerConfig?: string;
  readonly specialTokensMap?: string;
  readonly addedTokens?: string;
  /** `model_type` of config.json, used if tokenizer_config.json names no class. */
  readonly modelType?: string;
}

/** A token as transformers describes it. */
export interface NamedToken {
  readonly content: string;
  readonly id?: number;
  /** A control token, matched only where the caller allows it. */
  readonly special: boolean;
  /** Not matched within a word. */
  readonly singleWord: boolean;
  /** Includes the white space before (left) and after (right) it. */
  readonly leftStrip: boolean;
  readonly rightStrip: boolean;
  /** Matched in the normalized text instead of the original. */
  readonly normalized: boolean;
}

export interface Sidecars {
  readonly config: Settings;
  /** From the class name in transformers: `GPT2` of GPT2TokenizerFast. Empty if unknown. */
  readonly family: string;
  /** Sorted by id; tokens without an id follow. */
  readonly added: readonly NamedToken[];
  readonly roles: ReadonlyMap<TokenRole, NamedToken>;
  /** Undefined if no file says. */
  readonly addBos: boolean | undefined;
  readonly addEos: boolean | undefined;
}

/** In the order in which transformers adds tokens that the vocabulary lacks. */
export const roleKeys: readonly (readonly [TokenRole, string])[] = [
  ['bos', 'bos_token'],
  ['eos', 'eos_token'],
  ['unknown', 'unk_token'],
  ['separator', 'sep_token'],
  ['padding', 'pad_token'],
  ['classifier', 'cls_token'],
  ['mask', 'mask_token'],
  ['eot', 'eot_token'],
  ['eom', 'eom_token'],
];

const listKeys = ['additional_special_tokens', 'extra_special_tokens'];

/** Largest id accepted. */
const MOST_ID = 2 ** 31;

/**
 * @param folder named in errors
 * @throws TokenizerError that names the file
 */
export function readSidecars(texts: SidecarTexts, folder: string): Sidecars {
  const config = settingsOf(texts.tokenizerConfig, `${folder}/tokenizer_config.json`);
  const map = settingsOf(texts.specialTokensMap, `${folder}/special_tokens_map.json`);
  const addedTokens = settingsOf(texts.addedTokens, `${folder}/added_tokens.json`);
  const roles = new Map<TokenRole, NamedToken>();
  for (const [role, key] of roleKeys) {
    // tokenizer_config.json takes precedence if it has added_tokens_decoder; otherwise it may have plain strings where
    // special_tokens_map.json has objects.
    const token = tokenOf(map, key) ?? tokenOf(config, key);
    const newer = config.has('added_tokens_decoder') ? tokenOf(config, key) : undefined;
    if (newer ?? token) roles.set(role, (newer ?? token)!);
  }
  const listed = listKeys.flatMap((key) => [...tokensOf(config, key), ...tokensOf(map, key)]);
  const special = new Set([...roles.values(), ...listed].map(({ content }) => content));
  const added = new Map<string, NamedToken>();
  for (const token of decoderTokens(config, special)) added.set(token.content, token);
  for (const [content, id] of addedTokens.entries()) {
    if (!added.has(content))
      added.set(content, plainToken(content, special.has(content), checkedId(id, addedTokens, content)));
  }
  const byId = [...added.values()].sort((a, b) => a.id! - b.id!);
  const lacking = [...roles.values(), ...listed].filter(({ content }) => !added.has(content));
  return {
    config,
    family: familyOf(config, texts.modelType),
    added: [...byId, ...new Map(lacking.map((token) => [token.content, token])).values()],
    roles,
    addBos: config.has('add_bos_token') ? config.flag('add_bos_token', false) : undefined,
    addEos: config.has('add_eos_token') ? config.flag('add_eos_token', false) : undefined,
  };
}

/** Generic classes, which name no family. */
const anyClass = /^(?:PreTrainedTokenizer|Tokenizers?Backend|AutoTokenizer)$/;

/** Families by model type, for those that differ in behaviour. */
const familiesByType: readonly (readonly [RegExp, string])[] = [
  [/^(?:gpt2|opt|codegen|phi)$/, 'GPT2'],
  [/^qwen[2-9]/, 'Qwen2'],
  [/^(?:roberta|bart|longformer|led|mvp)$/, 'Roberta'],
  [/^(?:xlm-roberta|xlm-roberta-xl)$/, 'XLMRoberta'],
  [/^camembert$/, 'Camembert'],
  [/^mpnet$/, 'MPNet'],
  [/^(?:t5|mt5|umt5)$/, 'T5'],
  [/^deberta$/, 'Deberta'],
  [/^deberta-v2$/, 'DebertaV2'],
  [/^albert$/, 'Albert'],
  [/^clip/, 'CLIP'],
];

function familyOf(config: Settings, modelType = ''): string {
  const named = config.has('tokenizer_class') ? config.string('tokenizer_class').replace(/Fast$/, '') : '';
  if (named !== '' && !anyClass.test(named)) return named.replace(/Tokenizer$/, '');
  return familiesByType.find(([type]) => type.test(modelType))?.[1] ?? '';
}

/**
 * Adds the default tokens of the class for roles that no file names, as far as the vocabulary has them.
 * @param has whether the vocabulary has a token
 */
export function withDefaultRoles(
  sidecars: Sidecars,
  defaults: Readonly<Partial<Record<TokenRole, string>>>,
  has: (token: string) => boolean,
): Sidecars {
  const roles = new Map(sidecars.roles);
  const added = [...sidecars.added];
  for (const [role, content] of Object.entries(defaults) as [TokenRole, string][]) {
    if (roles.has(role) || !has(content)) continue;
    // The mask token includes the space before it.
    const token = { ...plainToken(content, true), leftStrip: role === 'mask' };
    roles.set(role, token);
    if (!added.some((one) => one.content === content)) added.push(token);
  }
  return { ...sidecars, roles, added };
}

export const noSidecars = (folder: string): Sidecars => readSidecars({}, folder);

/** @throws TokenizerError */
export function parseJson(text: string, file: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new TokenizerError(file, `invalid JSON: ${(error as Error).message}`);
  }
}

function settingsOf(text: string | undefined, file: string): Settings {
  return new Settings(text === undefined ? {} : parseJson(text, file), file);
}

/** Reads `added_tokens_decoder`: id -> token. */
function decoderTokens(config: Settings, special: ReadonlySet<string>): NamedToken[] {
  const decoder = config.optional('added_tokens_decoder');
  if (!decoder) return [];
  return [...decoder.entries()].map(([key]) => {
    if (!/^\d{1,9}$/.test(key)) decoder.fail(key, 'ids as keys');
    const token = described(decoder.object(key));
    return { ...token, id: Number(key), special: token.special || special.has(token.content) };
  });
}

/** Reads a token: a string, or an object with `content`. */
function tokenOf(settings: Settings, key: string): NamedToken | undefined {
  const value = settings.get(key);
  if (value === undefined || value === '') return undefined;
  if (typeof value === 'string') return plainToken(settings.string(key), true);
  // Some files have false or a number instead of no token.
  if (typeof value !== 'object') return undefined;
  return { ...described(settings.object(key)), special: true };
}

/** Reads a list of tokens, or an object of tokens by name. */
function tokensOf(settings: Settings, key: string): NamedToken[] {
  const value = settings.get(key);
  if (value === undefined) return [];
  const inner = new Settings(Array.isArray(value) ? { ...value } : value, `${settings.where}.${key}`);
  return [...inner.entries()].flatMap(([name]) => tokenOf(inner, name) ?? []);
}

/** Reads the object that describes a token, without its id. */
export function described(token: Settings): NamedToken {
  const special = token.flag('special', false);
  return {
    content: token.string('content'),
    special,
    singleWord: token.flag('single_word', false),
    leftStrip: token.flag('lstrip', false),
    rightStrip: token.flag('rstrip', false),
    normalized: token.flag('normalized', !special),
  };
}

function plainToken(content: string, special: boolean, id?: number): NamedToken {
  return { content, id, special, singleWord: false, leftStrip: false, rightStrip: false, normalized: !special };
}

function checkedId(id: unknown, settings: Settings, key: string): number {
  if (typeof id === 'number' && Number.isInteger(id) && id >= 0 && id < MOST_ID) return id;
  return settings.fail(key, 'an id');
}
