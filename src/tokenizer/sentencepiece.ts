/** Builds a tokenizer from a SentencePiece .model file: a protocol buffer with pieces, kind of model and normalization. */
import { TokenizerError } from '../errors.ts';
import { type AddedToken, joinAdded, specialWords } from './added-tokens.ts';
import { CharsMap } from './charsmap.ts';
import { sentencePieceDecoder } from './decoders.ts';
import { type FrameEnds, noFrame, withEnds } from './frame.ts';
import { tokenTypes } from './gguf-vocabulary.ts';
import { endsOf, roleIds } from './load.ts';
import type { TokenModel } from './model.ts';
import { inTurn, lowercase, type Normalizer } from './normalizers.ts';
import { Pipeline } from './pipeline.ts';
import { whole } from './pretokenizers.ts';
import { protobufFields } from './protobuf.ts';
import { type Piece, sentencePieceFamily } from './sentencepiece-families.ts';
import { sentencePieceNormalizer } from './sentencepiece-normalizer.ts';
import { noSidecars, type Sidecars } from './sidecars.ts';
import { Spm } from './spm.ts';
import type { Tokenizer } from './tokenizer.ts';
import { Unigram } from './unigram.ts';
import { byteTokens, Vocabulary } from './vocabulary.ts';

interface SentencePieceModel {
  readonly pieces: Piece[];
  readonly trainer: { kind: number; byteFallback: boolean; unknown: number; bos: number; eos: number; suffix: boolean };
  readonly normalizer: { map?: Uint8Array; prefix: boolean; mergeSpaces: boolean; escapes: boolean };
}

const UNIGRAM = 1;
const BPE = 2;

/**
 * The file does not say which tokens go around a text. As in llama.cpp, BPE models get a bos and unigram models an eos
 * token, unless the sidecar files say otherwise.
 * @param name path of the file, named in errors
 * @throws TokenizerError
 */
export function loadSentencePiece(bytes: Uint8Array, name: string, sidecars: Sidecars = noSidecars(name)): Tokenizer {
  const { pieces, trainer, normalizer } = readModel(bytes, name);
  const { kind, byteFallback } = trainer;
  if (kind !== UNIGRAM && kind !== BPE) throw new TokenizerError(name, 'expected a unigram or BPE model');
  if (trainer.suffix || !normalizer.escapes) throw new TokenizerError(name, 'expected spaces as marks before words');
  if (pieces.length === 0) throw new TokenizerError(name, 'expected pieces, found none');
  const family = sentencePieceFamily(sidecars);
  const listed = family.arrange ? family.arrange(pieces, sidecars) : pieces;
  const vocabulary = new Vocabulary(`${name}: pieces`);
  const texts = renamed(listed, sidecars);
  for (const [id, text] of texts.entries()) vocabulary.add(text, id);
  const own = listed.flatMap(({ type }, id) => addedToken(texts[id]!, type, id));
  // Not matched in normalized text, because normalization puts a mark in front of it.
  const added = joinAdded(own, sidecars.added, vocabulary, { normalizes: false, describes: true });
  vocabulary.check();
  const unknown = family.arrange ? listed.findIndex(({ type }) => type === tokenTypes.unknown) : trainer.unknown;
  const parts = { pieces: listed, texts, vocabulary, unknown, byteFallback, special: specialWords(added) };
  const roles = roleIds(sidecars, vocabulary);
  for (const [role, id] of [
    ['bos', trainer.bos],
    ['eos', trainer.eos],
    ['unknown', unknown],
  ] as const) {
    if (!family.arrange && !roles.has(role) && vocabulary.token(id) !== undefined) roles.set(role, id);
  }
  const ends = { addBos: kind === BPE, addEos: kind === UNIGRAM, ...defined(endsOf(sidecars, roles)) };
  const { frame = withEnds(noFrame, ends) } = family.frame ? { frame: family.frame(vocabulary, sidecars) } : {};
  const { config } = sidecars;
  const prefix = normalizer.prefix && config.flag('add_prefix_space', true);
  const map = normalizer.map?.length ? new CharsMap(normalizer.map, `${name}: precompiled_charsmap`) : undefined;
  const normalizerOf = (withPrefix: boolean): Normalizer => {
    const marks = sentencePieceNormalizer({ map, prefix: withPrefix, mergeSpaces: normalizer.mergeSpaces });
    return family.lowercases?.(sidecars) ? inTurn([lowercase, marks]) : marks;
  };
  return new Pipeline({
    kind: kind === UNIGRAM ? 'Unigram' : 'BPE',
    vocabulary,
    added,
    normalize: normalizerOf(prefix),
    // Legacy tokenizers add a space after each control token, as if the text after it were a text of its own.
    normalizeRest: config.flag('legacy', true) ? undefined : normalizerOf(false),
    words: whole,
    model: kind === UNIGRAM ? unigram(parts) : merges(parts),
    frame,
    decoder: sentencePieceDecoder(prefix ? 1 : 0),
    roles,
  });
}

/** The keys that are not undefined. */
const defined = (ends: FrameEnds): FrameEnds =>
  Object.fromEntries(Object.entries(ends).filter(([, value]) => value !== undefined));

/** Texts of the pieces. Sidecar files may rename pieces, for example unused ones to chat tokens. */
function renamed(pieces: readonly Piece[], { added }: Sidecars): string[] {
  const names = new Map(added.flatMap(({ id, content }) => (id === undefined ? [] : [[id, content]])));
  const kept = new Set(pieces.filter((_, id) => !names.has(id)).map(({ text }) => text));
  return pieces.map(({ text }, id) => {
    const name = names.get(id);
    return name === undefined || kept.has(name) ? text : name;
  });
}

function addedToken(content: string, type: number, id: number): AddedToken[] {
  const special = type === tokenTypes.control || type === tokenTypes.unknown;
  if (!special && type !== tokenTypes.userDefined) return [];
  return [{ id, content, special, singleWord: false, leftStrip: false, rightStrip: false, normalized: false }];
}

interface ModelParts {
  readonly pieces: readonly Piece[];
  /** Texts of the pieces by id, as renamed by sidecar files. */
  readonly texts: readonly string[];
  readonly vocabulary: Vocabulary;
  readonly unknown: number;
  readonly byteFallback: boolean;
  readonly special: ReadonlySet<number>;
}

function unigram({ pieces, texts, vocabulary, unknown, byteFallback }: ModelParts): TokenModel {
  let minScore = Number.POSITIVE_INFINITY;
  for (const { score, type } of pieces) if (type === tokenTypes.normal) minScore = Math.min(minScore, score);
  const matched = pieces.flatMap(({ score, type }, id): [string, number, number][] => {
    const text = texts[id]!;
    if (type === tokenTypes.normal) return [[text, score, id]];
    return type === tokenTypes.userDefined ? [[text, 0, id]] : [];
  });
  return new Unigram({
    pieces: matched,
    minScore,
    unknown,
    bytes: byteFallback ? byteTokens(vocabulary) : undefined,
    singlePrecision: true,
  });
}

function merges({ pieces, vocabulary, unknown, byteFallback, special }: ModelParts): TokenModel {
  const unused = pieces.flatMap(({ type }, id) => (type === tokenTypes.unused ? [id] : []));
  return new Spm({
    vocabulary,
    scores: pieces.map(({ score }) => score),
    excluded: new Set([...special, ...unused]),
    unknown,
    bytes: byteFallback ? byteTokens(vocabulary) : undefined,
  });
}

/** Reads the fields of sentencepiece_model.proto, with its defaults. */
function readModel(bytes: Uint8Array, name: string): SentencePieceModel {
  const model: SentencePieceModel = {
    pieces: [],
    trainer: { kind: UNIGRAM, byteFallback: false, unknown: 0, bos: 1, eos: 2, suffix: false },
    normalizer: { prefix: true, mergeSpaces: true, escapes: true },
  };
  for (const { number, wire, value } of protobufFields(bytes, name)) {
    if (wire !== 'bytes') continue;
    if (number === 1) model.pieces.push(readPiece(value, `${name}: piece ${model.pieces.length}`));
    else if (number === 2) readTrainer(value, model.trainer, `${name}: trainer_spec`);
    else if (number === 3) readNormalizer(value, model.normalizer, `${name}: normalizer_spec`);
  }
  return model;
}

function readPiece(bytes: Uint8Array, where: string): Piece {
  const piece: Piece = { text: '', score: 0, type: tokenTypes.normal };
  for (const { number, wire, value } of protobufFields(bytes, where)) {
    if (number === 1 && wire === 'bytes') piece.text = textOf(value, where);
    else if (number === 2 && wire === 'fixed32') piece.score = value.getFloat32(0, true);
    else if (number === 3 && wire === 'varint') piece.type = value;
  }
  if (Number.isNaN(piece.score)) throw new TokenizerError(where, 'expected a score, found NaN');
  return piece;
}

function textOf(bytes: Uint8Array, where: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new TokenizerError(where, 'expected valid UTF-8');
  }
}

function readTrainer(bytes: Uint8Array, trainer: SentencePieceModel['trainer'], where: string): void {
  for (const { number, wire, value } of protobufFields(bytes, where)) {
    if (wire !== 'varint') continue;
    if (number === 3) trainer.kind = value;
    else if (number === 24) trainer.suffix = value !== 0;
    else if (number === 35) trainer.byteFallback = value !== 0;
    else if (number === 40) trainer.unknown = value;
    else if (number === 41) trainer.bos = value;
    else if (number === 42) trainer.eos = value;
  }
}

function readNormalizer(bytes: Uint8Array, normalizer: SentencePieceModel['normalizer'], where: string): void {
  for (const { number, wire, value } of protobufFields(bytes, where)) {
    if (number === 2 && wire === 'bytes') normalizer.map = value;
    else if (wire !== 'varint') continue;
    else if (number === 3) normalizer.prefix = value !== 0;
    else if (number === 4) normalizer.mergeSpaces = value !== 0;
    else if (number === 5) normalizer.escapes = value !== 0;
  }
}
