/** End tokens: ids named by the files of a model, and tokens recognized by their text. */
import type { FileFolder } from '../formats/bytes.ts';
import { readJson } from '../formats/checkpoint.ts';
import type { GgufMetadata, GgufValue } from '../formats/gguf-types.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';

/** Texts that do not occur in ordinary text. */
const turnEnds = [
  '<|im_end|>',
  '<|eot_id|>',
  '<end_of_turn>',
  '<|end_of_turn|>',
  '<turn|>',
  '<|end|>',
  '<|return|>',
  '<|call|>',
  '<|calls|>',
  '<|flush|>',
  '<|tool_response>',
  '<end_of_utterance>',
  '<|EOT|>',
];
const messageEnds = ['<|eom_id|>'];
const textEnds = ['<|endoftext|>', '<|end_of_text|>', '<｜end▁of▁sentence｜>', '<|end▁of▁sentence|>'];
/** End tokens only if they are control tokens of the vocabulary; as ordinary tokens they are markup. */
const controlEnds = ['<EOT>', '_<EOT>', '▁<EOT>', '[EOT]', '[e~[', '<eos>', '[EOS]', '</s>'];

/**
 * Ids of known end tokens. A token counts if it is a control token, an added token, or cannot be produced by encoding text.
 */
export function knownEnds(tokenizer: Tokenizer): number[] {
  const special = new Set(tokenizer.specialIds);
  const added = new Set(tokenizer.addedIds);
  const find = (texts: readonly string[], accepts: (id: number, text: string) => boolean): number[] =>
    texts.flatMap((text) => {
      const id = tokenizer.id(text);
      return id !== undefined && accepts(id, text) ? [id] : [];
    });
  const isWord = (id: number, text: string): boolean =>
    !added.has(id) && tokenizer.encode(text, { addSpecial: false }).includes(id);
  const found = [
    ...find([...turnEnds, ...messageEnds, ...textEnds], (id, text) => !isWord(id, text)),
    ...find(controlEnds, (id) => special.has(id)),
  ];
  // With channels (gpt-oss, Solar), <|end|> ends a message and other tokens end the turn.
  const has = (text: string): boolean => found.includes(tokenizer.id(text) ?? -1);
  const channels =
    (has('<|return|>') && has('<|call|>')) || (has('<|flush|>') && (has('<|calls|>') || has('<|call|>')));
  return channels ? found.filter((id) => id !== tokenizer.id('<|end|>')) : found;
}

/** Known end tokens that are added tokens, control tokens or not. */
export function addedEnds(tokenizer: Tokenizer): number[] {
  const added = new Set(tokenizer.addedIds);
  return knownEnds(tokenizer).filter((id) => added.has(id));
}

/** Data of a model's files from which its end tokens are found. */
export interface EndSources {
  /** Parsed config.json, including its `text_config`. */
  readonly config?: unknown;
  /** Parsed generation_config.json. */
  readonly generation?: unknown;
  /** Text of the tokenizer's end token. */
  readonly eosToken?: string | undefined;
  /** File that names it. */
  readonly eosFile?: string | undefined;
  readonly metadata?: GgufMetadata | undefined;
  readonly tokenizer: Tokenizer | undefined;
  /** Size of the model's vocabulary; ids beyond it are ignored. */
  readonly vocab: number;
}

/** All end tokens of a model; ids named by its files come first. */
export const endTokens = (sources: EndSources): number[] => [...endTokenSources(sources).keys()];

/** The same, with the file and field that names each first. */
export function endTokenSources(sources: EndSources): Map<number, string> {
  const { config, generation, eosToken, eosFile = 'tokenizer', metadata, tokenizer, vocab } = sources;
  const named = eosToken === undefined ? undefined : tokenizer?.id(eosToken);
  const field = 'eos_token_id';
  const found: readonly (readonly [string, readonly number[]])[] = [
    [metadata ? 'GGUF metadata' : `config.json, ${field}`, idsOf(config, field)],
    [`config.json, text_config.${field}`, idsOf(fieldOf(config, 'text_config'), field)],
    [`generation_config.json, ${field}`, idsOf(generation, field)],
    ['GGUF metadata', metadata ? idsOfGguf(metadata) : []],
    [`${eosFile}, eos_token`, named === undefined ? [] : [named]],
    ['known by its text', tokenizer ? knownEnds(tokenizer) : []],
  ];
  const ends = new Map<number, string>();
  for (const [from, ids] of found)
    for (const id of ids) if (Number.isInteger(id) && id >= 0 && id < vocab && !ends.has(id)) ends.set(id, from);
  return ends;
}

/** Ids from `eos_token_id`, `eot_token_id`, `eom_token_id`, and lists of them. */
function idsOfGguf(metadata: GgufMetadata): number[] {
  return [...metadata].flatMap(([key, { type, value }]) => {
    if (!/^tokenizer\.ggml\.(eos|eot|eom|eog)_(token_)?ids?$/.test(key) || type === 'string' || type === 'bool')
      return [];
    return type === 'array' ? Array.from(value as Iterable<number | bigint>, Number) : [Number(value)];
  });
}

/** Reads the files of a model folder, other than config.json, that name end tokens. */
export async function readEnds(folder: FileFolder): Promise<Pick<EndSources, 'generation' | 'eosToken' | 'eosFile'>> {
  const generation = await readJson(folder, 'generation_config.json');
  for (const file of ['tokenizer_config.json', 'special_tokens_map.json']) {
    const token = fieldOf(await readJson(folder, file), 'eos_token');
    const eosToken = typeof token === 'string' ? token : fieldOf(token, 'content');
    if (typeof eosToken === 'string') return { generation, eosToken, eosFile: file };
  }
  return { generation };
}

/**
 * End tokens as `tokenizer.ggml.*` entries. llama.cpp reads one id per role; `eos_token_ids` has all of them.
 * @param eos id of the tokenizer's eos token
 */
export function endEntries(
  ends: readonly number[],
  eos: number | undefined,
  tokenOf: (id: number) => string | undefined,
): Map<string, GgufValue> {
  const ids = new Map<string, number>();
  const first = eos ?? ends[0];
  if (first !== undefined) ids.set('eos', first);
  const others = ends.filter((id) => id !== first);
  for (const id of others) {
    const role = roleOfEnd(tokenOf(id) ?? '');
    if (role !== undefined && role !== 'eos' && !ids.has(role)) ids.set(role, id);
  }
  // An end token with an unknown text gets a free role.
  const rest = others.filter((id) => ![...ids.values()].includes(id));
  if (!ids.has('eot') && rest.length > 0) ids.set('eot', rest[0]!);
  const entries = new Map<string, GgufValue>(
    [...ids].map(([role, value]) => [`${role}_token_id`, { type: 'uint32', value }]),
  );
  if (others.length > 0) {
    const all = Int32Array.from(new Set([first!, ...ends]));
    entries.set('eos_token_ids', { type: 'array', of: 'int32', value: all });
  }
  return entries;
}

const fieldOf = (json: unknown, key: string): unknown =>
  typeof json === 'object' && json !== null ? (json as Record<string, unknown>)[key] : undefined;

function idsOf(json: unknown, key: string): number[] {
  const ids = fieldOf(json, key);
  return (Array.isArray(ids) ? ids : [ids]).filter((id) => typeof id === 'number');
}

/** Role in GGUF of an end token by its text; undefined if unknown. */
function roleOfEnd(text: string): 'eot' | 'eom' | 'eos' | undefined {
  if (messageEnds.includes(text)) return 'eom';
  if (turnEnds.includes(text) || /^[_▁]?[<[]EOT[\]>]$/.test(text)) return 'eot';
  return textEnds.includes(text) || controlEnds.includes(text) ? 'eos' : undefined;
}
