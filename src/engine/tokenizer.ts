/** Finds the tokenizer of a model: in a GGUF file's metadata, or in the files beside the weights. */
import { ModelError, TokenizerError } from '../errors.ts';
import type { FileFolder } from '../formats/bytes.ts';
import { readJson, readText } from '../formats/checkpoint.ts';
import { firstPart } from '../formats/gguf.ts';
import { readGgufHeader } from '../formats/gguf-header.ts';
import { tokenizerFromGguf } from '../tokenizer/gguf.ts';
import { loadTokenizer } from '../tokenizer/load.ts';
import { loadSentencePiece } from '../tokenizer/sentencepiece.ts';
import { readSidecars, type SidecarTexts } from '../tokenizer/sidecars.ts';
import { loadTekken } from '../tokenizer/tekken.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import {
  type ComposedTokenizer,
  composeMerges,
  composeWordPieces,
  loadComposed,
} from '../tokenizer/vocabulary-files.ts';
import { findGguf, type OpenModel } from './open.ts';

/** Longest .model file that is read: the largest known ones have 10 MB. */
const MOST_MODEL_BYTES = 256 * 2 ** 20;
/** Llama and Gemma call it the first way, then T5, XLM-R, DeBERTa. */
const sentencePieceNames = ['tokenizer.model', 'spiece.model', 'sentencepiece.bpe.model', 'spm.model'];

/**
 * The tokenizer that lies beside weights, or in the metadata of a GGUF file. Undefined where there is none: such models take
 * token ids.
 * @throws TokenizerError, FormatError
 */
export async function tokenizerBeside(
  folder: FileFolder,
  { metadata, files }: Pick<OpenModel, 'metadata' | 'files'> = { files: [] },
  onWarning?: (message: string) => void,
): Promise<Tokenizer | undefined> {
  if (metadata) {
    const values = new Map([...metadata].map(([key, { value }]) => [key, value]));
    return tokenizerFromGguf(values, `${folder.name}/${files[0]}`, onWarning);
  }
  const { name } = folder;
  const tokenizerJson = await readText(folder, 'tokenizer.json');
  if (tokenizerJson !== undefined)
    return loadTokenizer({ tokenizerJson, sidecars: await readSidecarTexts(folder), name });
  for (const file of sentencePieceNames) {
    const tokenizer = await readSentencePiece(folder, file);
    if (tokenizer) return tokenizer;
  }
  const tekken = await readText(folder, 'tekken.json');
  if (tekken !== undefined) return loadTekken(tekken, `${name}/tekken.json`);
  const composed = await composeVocabularyFiles(folder);
  return composed && loadComposed(composed);
}

/** vocab.json with merges.txt, or vocab.txt. @throws TokenizerError, FormatError */
export async function composeVocabularyFiles(folder: FileFolder): Promise<ComposedTokenizer | undefined> {
  const { name } = folder;
  const vocabJson = await readText(folder, 'vocab.json');
  const mergesTxt = await readText(folder, 'merges.txt');
  const vocabTxt = vocabJson === undefined ? await readText(folder, 'vocab.txt') : undefined;
  if (vocabTxt !== undefined) return composeWordPieces({ vocabTxt, sidecars: await readSidecarTexts(folder), name });
  if (vocabJson === undefined && mergesTxt === undefined) return undefined;
  if (vocabJson === undefined) throw missing(`${name}/vocab.json`, 'merges.txt');
  if (mergesTxt === undefined) throw missing(`${name}/merges.txt`, 'vocab.json');
  return composeMerges({ vocabJson, mergesTxt, sidecars: await readSidecarTexts(folder), name });
}

const missing = (file: string, beside: string): TokenizerError =>
  new TokenizerError(file, `expected this file beside ${beside}, found none; download it too`);

export async function readSidecarTexts(folder: FileFolder): Promise<SidecarTexts> {
  return {
    tokenizerConfig: await readText(folder, 'tokenizer_config.json'),
    specialTokensMap: await readText(folder, 'special_tokens_map.json'),
    addedTokens: await readText(folder, 'added_tokens.json'),
    modelType: await modelTypeOf(folder),
  };
}

/** `model_type` of config.json; whether the rest of that file is right is asked where the model is loaded. */
async function modelTypeOf(folder: FileFolder): Promise<string | undefined> {
  const config = await readJson(folder, 'config.json').catch(() => undefined);
  const type = (config as { model_type?: unknown } | null | undefined)?.model_type;
  return typeof type === 'string' ? type : undefined;
}

/**
 * The largest id that ordinary text may need. Control tokens beyond a model's own, as that for images in the smallest Gemma 3,
 * and ids without a token come out of no text.
 */
export function lastOrdinary(tokenizer: Tokenizer): number {
  const special = new Set(tokenizer.specialIds);
  let id = tokenizer.vocabSize - 1;
  while (id >= 0 && (special.has(id) || tokenizer.token(id) === undefined)) id--;
  return id;
}

/**
 * The tokenizer of a model that has tokens 0 to `vocab - 1`: texts that need others, which the tokenizer may have, are refused
 * with a TokenizerError.
 */
export function withinVocabulary(tokenizer: Tokenizer, vocab: number, name: string): Tokenizer {
  if (tokenizer.vocabSize <= vocab) return tokenizer;
  const known = (ids: number[]): number[] => {
    const beyond = ids.find((id) => id >= vocab);
    if (beyond === undefined) return ids;
    const token = JSON.stringify(tokenizer.token(beyond));
    throw new TokenizerError(name, `the text has the token ${beyond} (${token}), the model has ${vocab} tokens`);
  };
  return {
    vocabSize: tokenizer.vocabSize,
    specialIds: tokenizer.specialIds,
    addedIds: tokenizer.addedIds,
    kind: tokenizer.kind,
    encode: (text, options) => known(tokenizer.encode(text, options)),
    encodeParts: (parts, options) => known(tokenizer.encodeParts(parts, options)),
    encodePair(first, second, options) {
      const pair = tokenizer.encodePair(first, second, options);
      known(pair.ids);
      return pair;
    },
    decode: (ids, options) => tokenizer.decode(ids, options),
    incremental: (options) => tokenizer.incremental(options),
    token: (id) => tokenizer.token(id),
    id: (token) => tokenizer.id(token),
    role: (role) => tokenizer.role(role),
  };
}

/**
 * The tokenizer of a file (a tokenizer.json of any name, a .model, a .gguf, or weights that it lies beside) or of a folder,
 * without weights.
 * @throws ModelError, TokenizerError, FormatError
 */
export async function openTokenizer(folder: FileFolder, file?: string): Promise<Tokenizer> {
  const name = `${folder.name}/${file ?? ''}`;
  const tokenizer = await openNamed(folder, file);
  if (tokenizer) return tokenizer;
  throw new ModelError(
    'NoTokenizer',
    `${name}: expected a tokenizer.json, .model or .gguf file, tekken.json, vocab.json with merges.txt, or vocab.txt, found none`,
  );
}

async function openNamed(folder: FileFolder, file: string | undefined): Promise<Tokenizer | undefined> {
  const { name } = folder;
  if (file === 'tekken.json' || file === 'vocab.json' || file === 'vocab.txt' || file === 'merges.txt') {
    const text = await readText(folder, file);
    if (text === undefined) return undefined;
    if (file === 'tekken.json') return loadTekken(text, `${name}/${file}`);
    const composed = await composeVocabularyFiles(folder);
    return composed && loadComposed(composed);
  }
  if (file?.endsWith('.json')) {
    const tokenizerJson = await readText(folder, file);
    if (tokenizerJson === undefined) return undefined;
    return loadTokenizer({ tokenizerJson, sidecars: await readSidecarTexts(folder), name, file });
  }
  if (file?.endsWith('.model')) return readSentencePiece(folder, file);
  const gguf = file === undefined ? await findGguf(folder) : file.endsWith('.gguf') ? firstPart(file) : undefined;
  if (gguf === undefined) return tokenizerBeside(folder);
  const source = await folder.open(gguf);
  if (!source) return undefined;
  try {
    return await tokenizerBeside(folder, { ...(await readGgufHeader(source)), files: [gguf] });
  } finally {
    await source.close();
  }
}

async function readSentencePiece(folder: FileFolder, file: string): Promise<Tokenizer | undefined> {
  const source = await folder.open(file);
  if (!source) return undefined;
  try {
    if (source.byteLength > MOST_MODEL_BYTES) {
      const what = `expected at most ${MOST_MODEL_BYTES} bytes, found ${source.byteLength}`;
      throw new ModelError('InvalidTokenizer', `${source.name}: ${what}`);
    }
    const bytes = await source.read(0, source.byteLength);
    return loadSentencePiece(bytes, source.name, readSidecars(await readSidecarTexts(folder), folder.name));
  } finally {
    await source.close();
  }
}
