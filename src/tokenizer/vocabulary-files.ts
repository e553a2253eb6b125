/**
 * Vocabularies without a tokenizer.json: vocab.json with merges.txt, and vocab.txt. They are converted to the structure of
 * tokenizer.json, as the class of transformers that tokenizer_config.json names does it.
 */
import { TokenizerError } from '../errors.ts';
import { buildTokenizer } from './load.ts';
import { Settings } from './settings.ts';
import { parseJson, readSidecars, type Sidecars, type SidecarTexts, withDefaultRoles } from './sidecars.ts';
import type { Tokenizer, TokenRole } from './tokenizer.ts';

type Json = Record<string, unknown>;

/** Words of Qwen 2, with single digits. */
const QWEN2_PATTERN =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const CLIP_PATTERN = "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+";

export interface MergesFiles {
  readonly vocabJson: string;
  readonly mergesTxt: string;
  readonly sidecars?: SidecarTexts;
  /** The folder, named in errors. */
  readonly name: string;
}

/** A vocabulary converted to the structure of tokenizer.json. */
export interface ComposedTokenizer {
  readonly json: Json;
  readonly sidecars: Sidecars;
  /** Named in errors. */
  readonly where: string;
}

/** @throws TokenizerError that names the file */
export const loadComposed = ({ json, sidecars, where }: ComposedTokenizer): Tokenizer =>
  buildTokenizer(json, sidecars, where);

/** The contents of a tokenizer.json, including the tokens that sidecar files add. */
export function tokenizerJsonOf(composed: ComposedTokenizer, tokenizer: Tokenizer): string {
  const special = new Set(tokenizer.specialIds);
  const added_tokens = tokenizer.addedIds.map((id) => ({ id, content: tokenizer.token(id), special: special.has(id) }));
  return JSON.stringify({ ...composed.json, added_tokens });
}

/** Byte-level BPE of GPT-2 and its family. @throws TokenizerError that names the file */
export function composeMerges({ vocabJson, mergesTxt, sidecars = {}, name }: MergesFiles): ComposedTokenizer {
  const where = `${name}/vocab.json`;
  const tokens = new Settings(parseJson(vocabJson, where), where);
  const vocab = Object.fromEntries(tokens.entries());
  for (const token in vocab) if (typeof vocab[token] !== 'number') tokens.fail(token, 'an id');
  const files = readSidecars(sidecars, name);
  const beside = withDefaultRoles(files, defaultRoles(files.family), (token) => Object.hasOwn(vocab, token));
  const merges = readMerges(mergesTxt, `${name}/merges.txt`, vocab);
  return { json: bytePairs(vocab, merges, beside), sidecars: beside, where };
}

/** Reads one merge per line, in order of rank; the first line may be a version comment. */
function readMerges(text: string, where: string, vocab: Json): string[][] {
  const merges: string[][] = [];
  for (const [i, line] of text.split('\n').entries()) {
    const merge = line.replace(/\r$/, '');
    if (merge === '' || (i === 0 && merge.startsWith('#version'))) continue;
    const pair = merge.split(' ');
    const fail = (expected: string): never => {
      throw new TokenizerError(
        `${where}, line ${i + 1}`,
        `expected ${expected}, found ${JSON.stringify(merge.slice(0, 80))}`,
      );
    };
    if (pair.length !== 2 || pair.includes('')) fail('two tokens with a space between them');
    const lacking = [...pair, pair.join('')].find((token) => !Object.hasOwn(vocab, token));
    if (lacking !== undefined) fail(`tokens of vocab.json (${JSON.stringify(lacking.slice(0, 80))} is none)`);
    merges.push(pair);
  }
  return merges;
}

const robertaLike = new Set(['Roberta', 'Bart', 'Longformer', 'LED', 'Mvp', 'Blenderbot']);

type Roles = Readonly<Partial<Record<TokenRole, string>>>;

const robertaRoles: Roles = {
  bos: '<s>',
  eos: '</s>',
  unknown: '<unk>',
  separator: '</s>',
  padding: '<pad>',
  classifier: '<s>',
  mask: '<mask>',
};
const bertRoles: Roles = {
  unknown: '[UNK]',
  separator: '[SEP]',
  padding: '[PAD]',
  classifier: '[CLS]',
  mask: '[MASK]',
};

function defaultRoles(family: string): Roles {
  if (robertaLike.has(family)) return robertaRoles;
  if (family === 'Deberta') return bertRoles;
  if (/^Qwen[2-9]/.test(family)) return { eos: '<|endoftext|>', padding: '<|endoftext|>' };
  const eos = '<|endoftext|>';
  return { bos: family === 'CLIP' ? '<|startoftext|>' : eos, eos, unknown: eos };
}

function bytePairs(vocab: Json, merges: string[][], { family, config, roles }: Sidecars): Json {
  const byteLevel = (prefix: boolean, pattern: boolean): Json => ({
    type: 'ByteLevel',
    add_prefix_space: prefix,
    use_regex: pattern,
  });
  const prefix = config.flag('add_prefix_space', family === 'Blenderbot');
  const decoder: Json = { type: 'ByteLevel' };
  const model: Json = { type: 'BPE', vocab, merges };
  const token = (role: 'classifier' | 'separator', names: string[]): unknown[] => {
    const content = roles.get(role)?.content ?? names.find((name) => Object.hasOwn(vocab, name)) ?? names[0]!;
    return [content, vocab[content]];
  };
  if (/^Qwen[2-9]/.test(family)) {
    const split = { type: 'Split', pattern: { Regex: QWEN2_PATTERN }, behavior: 'Isolated', invert: false };
    const words = { type: 'Sequence', pretokenizers: [split, byteLevel(prefix, false)] };
    return { normalizer: { type: 'NFC' }, pre_tokenizer: words, model, decoder };
  }
  if (family === 'CLIP') {
    const normalizers = [
      { type: 'NFC' },
      { type: 'Replace', pattern: { Regex: '\\s+' }, content: ' ' },
      { type: 'Lowercase' },
    ];
    const split = { type: 'Split', pattern: { Regex: CLIP_PATTERN }, behavior: 'Removed', invert: true };
    const unknown = roles.get('unknown')?.content ?? '<|endoftext|>';
    const [first, last] = [
      roles.get('bos')?.content ?? '<|startoftext|>',
      roles.get('eos')?.content ?? '<|endoftext|>',
    ];
    return {
      normalizer: { type: 'Sequence', normalizers },
      pre_tokenizer: { type: 'Sequence', pretokenizers: [split, byteLevel(false, true)] },
      post_processor: { type: 'RobertaProcessing', cls: [first, vocab[first]], sep: [last, vocab[last]] },
      model: { ...model, unk_token: unknown, end_of_word_suffix: '</w>' },
      decoder,
    };
  }
  const post_processor = robertaLike.has(family)
    ? { type: 'RobertaProcessing', cls: token('classifier', ['<s>']), sep: token('separator', ['</s>']) }
    : family === 'Deberta'
      ? { type: 'BertProcessing', cls: token('classifier', ['[CLS]']), sep: token('separator', ['[SEP]']) }
      : undefined;
  return { pre_tokenizer: byteLevel(prefix, true), post_processor, model, decoder };
}

export interface WordPieceFiles {
  readonly vocabTxt: string;
  readonly sidecars?: SidecarTexts;
  /** The folder, named in errors. */
  readonly name: string;
}

/** WordPiece of BERT and its family, one token per line. @throws TokenizerError that names the file */
export function composeWordPieces({ vocabTxt, sidecars = {}, name }: WordPieceFiles): ComposedTokenizer {
  const where = `${name}/vocab.txt`;
  const lines = vocabTxt.split('\n').map((line) => line.replace(/\r$/, ''));
  if (lines.at(-1) === '') lines.pop();
  const vocab: Record<string, number> = Object.create(null);
  // For equal lines, transformers keeps the last id.
  for (const [id, token] of lines.entries()) vocab[token] = id;
  const has = (token: string): boolean => Object.hasOwn(vocab, token);
  const files = readSidecars(sidecars, name);
  const isMpnet = files.family === 'MPNet' || (!has('[CLS]') && has('<s>') && has('</s>'));
  const beside = withDefaultRoles(files, isMpnet ? { ...robertaRoles, unknown: '[UNK]' } : bertRoles, has);
  const { config, roles } = beside;
  const named = (role: 'unknown' | 'classifier' | 'separator', fallback: string): string => {
    const token = roles.get(role)?.content ?? fallback;
    if (has(token)) return token;
    throw new TokenizerError(where, `expected the token ${JSON.stringify(token)} on a line of its own, found none`);
  };
  const unknown = named('unknown', '[UNK]');
  const first = named('classifier', isMpnet ? '<s>' : '[CLS]');
  const last = named('separator', isMpnet ? '</s>' : '[SEP]');
  const stripAccents = config.has('strip_accents') ? config.flag('strip_accents', false) : null;
  const json = {
    normalizer: {
      type: 'BertNormalizer',
      clean_text: true,
      handle_chinese_chars: config.flag('tokenize_chinese_chars', true),
      strip_accents: stripAccents,
      lowercase: config.flag('do_lower_case', true),
    },
    pre_tokenizer: { type: 'BertPreTokenizer' },
    post_processor: {
      type: isMpnet ? 'RobertaProcessing' : 'BertProcessing',
      cls: [first, vocab[first]],
      sep: [last, vocab[last]],
    },
    model: { type: 'WordPiece', vocab: { ...vocab }, unk_token: unknown, continuing_subword_prefix: '##' },
    decoder: { type: 'WordPiece', prefix: '##', cleanup: true },
  };
  return { json, sidecars: beside, where };
}
