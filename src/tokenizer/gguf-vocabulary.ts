/**
 * Converts the vocabulary of a tokenizer.json to GGUF (tokenizer.ggml.*): tokens with types, and either merges (byte-level
 * BPE) or scores (SentencePiece). Other settings of tokenizer.json are not written: llama.cpp derives them from the name of
 * the pre-tokenizer.
 */
import { ModelError } from '../errors.ts';
import { byteLevelPattern, splittingName } from './gguf-patterns.ts';

/** Values of `tokenizer.ggml.token_type`. */
export const tokenTypes = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

export interface GgufVocabulary {
  readonly model: 'gpt2' | 'llama' | 'bert';
  readonly pre: string;
  readonly tokens: readonly string[];
  readonly types: Int32Array;
  readonly merges?: readonly string[];
  readonly scores?: Float32Array;
  /** Ids by role: bos, eos, unknown, padding, cls, seperator (spelled so in GGUF), mask. */
  readonly ids: Readonly<Record<string, number>>;
  readonly addBos: boolean;
  readonly addSpacePrefix?: boolean;
  readonly chatTemplate?: string;
  readonly warnings: readonly string[];
}

type Json = Readonly<Record<string, unknown>>;

interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly special: boolean;
}

/** Score of tokens that are not the result of a merge. */
const NEVER_MERGED = -1e6;

/** Stands for the Punctuation pre-tokenizer, which has no pattern. */
const PUNCTUATION = 'punctuation';

/** Falcon's patterns, which llama.cpp writes differently. */
const falcon = [PUNCTUATION, byteLevelPattern, '\\p{N}+', '[0-9][0-9][0-9]'].join('\n');

/** The patterns of a pre-tokenizer, in order; undefined if it cannot be expressed by patterns. */
function patternsOf(pretokenizer: Json): readonly string[] | undefined {
  switch (pretokenizer.type) {
    case 'Sequence': {
      const parts = (pretokenizer.pretokenizers as Json[]).map(patternsOf);
      return parts.every((part) => part !== undefined) ? parts.flat() : undefined;
    }
    case 'ByteLevel':
      return pretokenizer.use_regex === false ? [] : [byteLevelPattern];
    case 'Digits':
      return [pretokenizer.individual_digits ? '\\p{N}' : '\\p{N}+'];
    case 'Punctuation':
      return [PUNCTUATION];
    case 'Split': {
      const { Regex: regex } = pretokenizer.pattern as { Regex?: string };
      return regex === undefined ? undefined : [regex];
    }
    default:
      return undefined;
  }
}

function preOf(pretokenizer: unknown, ignoreMerges: boolean): string | undefined {
  const patterns = patternsOf((pretokenizer ?? {}) as Json);
  if (patterns === undefined) return undefined;
  return patterns.join('\n') === falcon ? 'falcon' : splittingName(patterns, ignoreMerges);
}

/**
 * @param vocab number of tokens of the model; ids that the tokenizer lacks become tokens `[PAD<id>]`
 * @throws ModelError for tokenizers that are neither BPE nor WordPiece, and for token ids beyond the model's
 */
export function ggufVocabulary(
  tokenizerJson: string,
  tokenizerConfig: string | undefined,
  vocab: number,
): GgufVocabulary {
  const data = JSON.parse(tokenizerJson) as Json;
  const settings = (tokenizerConfig === undefined ? {} : JSON.parse(tokenizerConfig)) as Json;
  const model = (data.model ?? {}) as Json;
  const isWordPiece = model.type === 'WordPiece';
  const isBpe = model.type === 'BPE' || (model.type === undefined && Array.isArray(model.merges));
  if (!isBpe && !isWordPiece) {
    const found = JSON.stringify(model.type ?? null);
    throw new ModelError(
      'NotWritable',
      `tokenizer.json: model.type must be BPE or WordPiece to be written as GGUF, found ${found}`,
    );
  }
  const added = (data.added_tokens ?? []) as AddedToken[];
  const merges = ((model.merges ?? []) as (string | string[])[]).map((m) => (typeof m === 'string' ? m : m.join(' ')));
  const byteFallback = model.byte_fallback === true;
  const entries = new Map(Object.entries((model.vocab ?? {}) as Record<string, number>));
  for (const { id, content } of added) entries.set(content, id);
  const { tokens, types } = tokenTable(entries, added, vocab, byteFallback ? String(model.unk_token) : undefined);
  const ids: Record<string, number> = {};
  for (const [role, key] of [
    ['bos', 'bos_token'],
    ['eos', 'eos_token'],
    ['unknown', 'unk_token'],
    ['padding', 'pad_token'],
    ['cls', 'cls_token'],
    // Misspelled in the format.
    ['seperator', 'sep_token'],
    ['mask', 'mask_token'],
  ] as const) {
    const id = entries.get(contentOf(settings[key]) ?? '');
    if (id !== undefined) ids[role] = id;
  }
  const warnings: string[] = [];
  const common = {
    tokens,
    types,
    ids,
    addBos: startsWithBos(data, settings),
    chatTemplate: templateOf(settings),
    warnings,
  };
  if (isWordPiece) {
    const prefix = String(model.continuing_subword_prefix ?? '##');
    const marked = tokens.map((token, i) => {
      if (types[i] === tokenTypes.control) return token;
      return token.startsWith(prefix) ? token.slice(prefix.length) : `▁${token}`;
    });
    // llama.cpp reads the tokens around a text from bos and eos.
    const { cls = 101, seperator = 102 } = ids;
    const framed = { bos: cls, eos: seperator, ...ids };
    return { ...common, model: 'bert', pre: 'jina-v2-en', tokens: marked, ids: framed, addBos: true };
  }
  if (byteFallback) {
    const prefix = JSON.stringify([data.normalizer, data.pre_tokenizer]);
    return {
      ...common,
      model: 'llama',
      pre: 'default',
      tokens: tokens.map((token) => token.replaceAll(' ', '▁')),
      scores: scoresOf(tokens, types, merges),
      addSpacePrefix: /"Prepend"|"prepend_scheme":"(first|always)"/.test(prefix),
    };
  }
  const pre = preOf(data.pre_tokenizer, model.ignore_merges === true);
  if (pre === undefined)
    warnings.push('llama.cpp has no name for this pre-tokenizer and will split text by its default');
  return { ...common, model: 'gpt2', pre: pre ?? 'default', merges };
}

function tokenTable(
  entries: ReadonlyMap<string, number>,
  added: readonly AddedToken[],
  vocab: number,
  unknown: string | undefined,
): { tokens: string[]; types: Int32Array } {
  const tokens = Array.from({ length: vocab }, (_, i) => `[PAD${i}]`);
  const types = new Int32Array(vocab).fill(tokenTypes.unused);
  for (const [token, id] of entries) {
    if (!(Number.isInteger(id) && id >= 0 && id < vocab)) {
      const what = `${JSON.stringify(token.slice(0, 80))} has the id ${id}, the model has ${vocab} tokens`;
      throw new ModelError('NotWritable', `tokenizer.json: ${what}`);
    }
    tokens[id] = token;
    types[id] = tokenTypes.normal;
    if (unknown !== undefined && /^<0x[0-9A-F]{2}>$/.test(token)) types[id] = tokenTypes.byte;
  }
  for (const { id, content, special } of added) {
    types[id] = content === unknown ? tokenTypes.unknown : special ? tokenTypes.control : tokenTypes.userDefined;
  }
  return { tokens, types };
}

/** Scores that give the order of `merges`: SentencePiece merges the pair whose result has the highest score first. */
function scoresOf(tokens: readonly string[], types: Int32Array, merges: readonly string[]): Float32Array {
  const rank = new Map<string, number>();
  for (const [i, merge] of merges.entries()) {
    const result = merge.replace(' ', '');
    if (!rank.has(result)) rank.set(result, i);
  }
  return Float32Array.from(tokens, (token, i) => {
    if (types[i] === tokenTypes.byte || types[i] === tokenTypes.unknown) return 0;
    const place = rank.get(token);
    return place === undefined ? NEVER_MERGED : -place;
  });
}

/** A token of tokenizer_config.json: a string, or an object with `content`. */
function contentOf(token: unknown): string | undefined {
  if (typeof token === 'string') return token;
  const content = (token as Json | null | undefined)?.content;
  return typeof content === 'string' ? content : undefined;
}

function startsWithBos(data: Json, settings: Json): boolean {
  if (typeof settings.add_bos_token === 'boolean') return settings.add_bos_token;
  const bos = contentOf(settings.bos_token);
  return (
    bos !== undefined &&
    JSON.stringify(data.post_processor ?? null).includes(`"single":[{"SpecialToken":{"id":${JSON.stringify(bos)}`)
  );
}

/** The chat template; of several the one named default. */
function templateOf({ chat_template }: Json): string | undefined {
  if (typeof chat_template === 'string') return chat_template;
  if (!Array.isArray(chat_template)) return undefined;
  const named = chat_template as { name?: unknown; template?: unknown }[];
  const template = named.find(({ name }) => name === 'default')?.template;
  return typeof template === 'string' ? template : undefined;
}
