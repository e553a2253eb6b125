/** Builds a tokenizer from tokenizer.json. */
import { TokenizerError } from '../errors.ts';
import { type AddedToken, joinAdded, specialWords } from './added-tokens.ts';
import { Bpe } from './bpe.ts';
import { toByteAlphabet } from './byte-level.ts';
import { readDecoder } from './decoders.ts';
import { type FrameEnds, readFrame, withEnds } from './frame.ts';
import type { TokenModel } from './model.ts';
import { inTurn, readNormalizer } from './normalizers.ts';
import { Pipeline } from './pipeline.ts';
import { readWords } from './pretokenizers.ts';
import { Settings } from './settings.ts';
import { described, parseJson, readSidecars, type Sidecars, type SidecarTexts } from './sidecars.ts';
import type { Tokenizer, TokenRole } from './tokenizer.ts';
import { Unigram } from './unigram.ts';
import { byteTokens, Vocabulary } from './vocabulary.ts';
import { WordLevel, WordPiece } from './words.ts';

export interface TokenizerFiles {
  /** Contents of tokenizer.json. */
  readonly tokenizerJson: string;
  /** Contents of tokenizer_config.json, special_tokens_map.json and added_tokens.json. */
  readonly sidecars?: SidecarTexts;
  /** The folder, named in errors. */
  readonly name: string;
  /** Name of the file in the folder. Default tokenizer.json. */
  readonly file?: string;
}

/** @throws TokenizerError */
export function loadTokenizer({
  tokenizerJson,
  sidecars = {},
  name,
  file = 'tokenizer.json',
}: TokenizerFiles): Tokenizer {
  const path = `${name}/${file}`;
  return buildTokenizer(parseJson(tokenizerJson, path), readSidecars(sidecars, name), path);
}

/**
 * @param json parsed tokenizer.json
 * @param where named in errors
 * @throws TokenizerError
 */
export function buildTokenizer(json: unknown, sidecars: Sidecars, where: string): Tokenizer {
  try {
    return build(new Settings(json, where), sidecars);
  } catch (error) {
    if (error instanceof RangeError) throw new TokenizerError(where, `nested too deeply: ${error.message}`);
    throw error;
  }
}

function build(settings: Settings, sidecars: Sidecars): Tokenizer {
  checkTruncation(settings.optional('truncation'));
  const model = settings.object('model');
  const kind = kindOf(model);
  const vocabulary = readVocabulary(model, kind);
  const own = readAdded(settings, vocabulary);
  const added = joinAdded(own, sidecars.added, vocabulary, { normalizes: true, describes: false });
  vocabulary.check();
  const { words, spellsBytes } = readWords(settings.optional('pre_tokenizer'));
  const roles = roleIds(sidecars, vocabulary);
  const frame = readFrame(settings.optional('post_processor'), vocabulary);
  return new Pipeline({
    kind,
    vocabulary,
    added,
    normalize: inTurn([readNormalizer(settings.optional('normalizer'))]),
    words,
    model: readModel(model, kind, vocabulary, specialWords(added), spellsBytes),
    frame: withEnds(frame, endsOf(sidecars, roles)),
    decoder: readDecoder(settings.optional('decoder')),
    roles,
  });
}

/** Ids of the role tokens that sidecar files name, as far as the vocabulary has them. */
export function roleIds({ roles }: Sidecars, vocabulary: Vocabulary): Map<TokenRole, number> {
  const ids = new Map<TokenRole, number>();
  for (const [role, { content }] of roles) {
    const id = vocabulary.id(content);
    if (id !== undefined) ids.set(role, id);
  }
  return ids;
}

export const endsOf = ({ addBos, addEos }: Sidecars, roles: ReadonlyMap<TokenRole, number>): FrameEnds => ({
  bos: roles.get('bos'),
  eos: roles.get('eos'),
  addBos,
  addEos,
});

/** Checks the settings of truncation. Texts are never truncated here, but invalid files are refused. */
function checkTruncation(truncation: Settings | undefined): void {
  if (!truncation) return;
  const length = truncation.integer('max_length', 0, 2 ** 53);
  const stride = truncation.integer('stride', 0, 2 ** 53, 0);
  if (stride >= length && stride > 0) truncation.fail('stride', `less than max_length ${length}`);
}

const kinds = ['BPE', 'Unigram', 'WordPiece', 'WordLevel'] as const;
type Kind = (typeof kinds)[number];

/** Old files have no `type`. */
function kindOf(model: Settings): Kind {
  if (model.has('type')) return model.oneOf('type', kinds);
  if (model.has('merges')) return 'BPE';
  if (Array.isArray(model.get('vocab'))) return 'Unigram';
  return model.has('continuing_subword_prefix') ? 'WordPiece' : 'WordLevel';
}

function readVocabulary(model: Settings, kind: Kind): Vocabulary {
  const vocabulary = new Vocabulary(`${model.where}.vocab`);
  if (kind === 'Unigram') {
    for (const [id, piece] of model.list('vocab').entries()) vocabulary.add((piece as unknown[] | undefined)?.[0], id);
  } else for (const [token, id] of model.object('vocab').entries()) vocabulary.add(token, id);
  return vocabulary;
}

/** Reads `added_tokens`. A token that the vocabulary has keeps the vocabulary's id. */
function readAdded(settings: Settings, vocabulary: Vocabulary): AddedToken[] {
  return settings.objects('added_tokens', []).map((token) => {
    const content = token.string('content');
    const known = vocabulary.id(content);
    if (known === undefined) vocabulary.add(content, token.get('id'));
    return { ...described(token), id: known ?? token.integer('id', 0, 2 ** 31) };
  });
}

function readModel(
  model: Settings,
  kind: Kind,
  vocabulary: Vocabulary,
  special: ReadonlySet<number>,
  spellsBytes: boolean,
): TokenModel {
  const spell = spellsBytes ? toByteAlphabet : undefined;
  switch (kind) {
    case 'BPE':
      return new Bpe({
        vocabulary,
        merges: model.list('merges'),
        special,
        unknown: model.has('unk_token') ? vocabulary.id(model.string('unk_token')) : undefined,
        fuseUnknown: model.flag('fuse_unk', false),
        byteFallback: model.flag('byte_fallback', false),
        ignoreMerges: model.flag('ignore_merges', false),
        prefix: model.string('continuing_subword_prefix', ''),
        suffix: model.string('end_of_word_suffix', ''),
        spell,
        where: model.where,
      });
    case 'Unigram':
      return spelled(readUnigram(model, vocabulary, special), spell);
    case 'WordPiece':
      return spelled(
        new WordPiece({
          vocabulary,
          special,
          unknown: vocabulary.required(model.string('unk_token', '[UNK]'), 'unk_token'),
          prefix: model.string('continuing_subword_prefix', '##'),
          longestWord: model.integer('max_input_chars_per_word', 0, 2 ** 31, 100),
        }),
        spell,
      );
    case 'WordLevel':
      return spelled(new WordLevel(vocabulary, special, vocabulary.id(model.string('unk_token', '<unk>'))), spell);
  }
}

function spelled(model: TokenModel, spell: ((word: string) => string) | undefined): TokenModel {
  return spell ? { encode: (piece, out) => model.encode(spell(piece), out) } : model;
}

function readUnigram(model: Settings, vocabulary: Vocabulary, special: ReadonlySet<number>): Unigram {
  let minScore = Number.POSITIVE_INFINITY;
  const pieces = model.list('vocab').map((piece, id): [string, number, number] => {
    const [text, score] = piece as [string, unknown];
    if (typeof score !== 'number') model.fail('vocab', `pairs of a text and a score at [${id}]`);
    minScore = Math.min(minScore, score);
    return [text, score, id];
  });
  return new Unigram({
    pieces: pieces.filter(([, , id]) => !special.has(id)),
    minScore,
    unknown: model.has('unk_id') ? model.integer('unk_id', 0, pieces.length - 1) : undefined,
    bytes: model.flag('byte_fallback', false) ? byteTokens(vocabulary) : undefined,
  });
}
