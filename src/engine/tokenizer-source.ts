/** Reads the files of a model's tokenizer, and builds a tokenizer from them, which takes longer. */
import { ModelError, TokenizerError } from '../errors.ts';
import type { FileFolder } from '../formats/bytes.ts';
import { readJson, readText } from '../formats/checkpoint.ts';
import { tokenizerFromGguf } from '../tokenizer/gguf.ts';
import { loadTokenizer, type TokenizerFiles } from '../tokenizer/load.ts';
import { loadSentencePiece } from '../tokenizer/sentencepiece.ts';
import { readSidecars, type SidecarTexts } from '../tokenizer/sidecars.ts';
import { loadTekken } from '../tokenizer/tekken.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import {
  composeMerges,
  composeWordPieces,
  loadComposed,
  type MergesFiles,
  type WordPieceFiles,
} from '../tokenizer/vocabulary-files.ts';
import type { OpenModel } from './open.ts';

/** Largest .model file accepted; known ones have up to 10 MB. */
const MOST_MODEL_BYTES = 256 * 2 ** 20;
/** File names of Llama and Gemma, T5, XLM-R, DeBERTa. */
const sentencePieceNames = ['tokenizer.model', 'spiece.model', 'sentencepiece.bpe.model', 'spm.model'];

/** The data of a tokenizer's files, which can be cloned. `name` is the path of the file or folder, for errors. */
export type TokenizerSource =
  /** Metadata values whose keys begin with tokenizer.ggml. */
  | { readonly kind: 'gguf'; readonly values: ReadonlyMap<string, unknown>; readonly name: string }
  | { readonly kind: 'json'; readonly files: TokenizerFiles }
  | {
      readonly kind: 'sentencepiece';
      readonly bytes: Uint8Array<ArrayBuffer>;
      readonly name: string;
      readonly sidecars: SidecarTexts;
      /** That of the sidecars. */
      readonly folder: string;
    }
  | { readonly kind: 'tekken'; readonly text: string; readonly name: string }
  | VocabularyFilesSource;

export type VocabularyFilesSource =
  | { readonly kind: 'merges'; readonly files: MergesFiles }
  | { readonly kind: 'words'; readonly files: WordPieceFiles };

/** Builds the tokenizer; undefined if GGUF metadata has no vocabulary. @throws TokenizerError */
export function makeTokenizer(source: TokenizerSource, onWarning?: (message: string) => void): Tokenizer | undefined {
  switch (source.kind) {
    case 'gguf':
      return tokenizerFromGguf(source.values, source.name, onWarning);
    case 'json':
      return loadTokenizer(source.files);
    case 'sentencepiece':
      return loadSentencePiece(source.bytes, source.name, readSidecars(source.sidecars, source.folder));
    case 'tekken':
      return loadTekken(source.text, source.name);
    default:
      return loadComposed(composeVocabulary(source));
  }
}

/** @throws TokenizerError */
export const composeVocabulary = (source: VocabularyFilesSource): ReturnType<typeof composeMerges> =>
  source.kind === 'merges' ? composeMerges(source.files) : composeWordPieces(source.files);

/**
 * Reads the tokenizer beside weights, or in the metadata of a GGUF file. Undefined if there is none: the model then
 * takes token ids.
 * @throws TokenizerError, FormatError
 */
export async function readTokenizerSource(
  folder: FileFolder,
  { metadata, files }: Pick<OpenModel, 'metadata' | 'files'> = { files: [] },
): Promise<TokenizerSource | undefined> {
  if (metadata) {
    const own = [...metadata].filter(([key]) => key.startsWith('tokenizer.ggml.'));
    return {
      kind: 'gguf',
      values: new Map(own.map(([key, { value }]) => [key, value])),
      name: `${folder.name}/${files[0]}`,
    };
  }
  const json = await readTokenizerJson(folder);
  if (json) return json;
  for (const file of sentencePieceNames) {
    const source = await readSentencePiece(folder, file);
    if (source) return source;
  }
  return (await readTekken(folder)) ?? readVocabularyFiles(folder);
}

/** @throws FormatError */
export async function readTokenizerJson(folder: FileFolder, file?: string): Promise<TokenizerSource | undefined> {
  const tokenizerJson = await readText(folder, file ?? 'tokenizer.json');
  if (tokenizerJson === undefined) return undefined;
  const { name } = folder;
  return { kind: 'json', files: { tokenizerJson, sidecars: await readSidecarTexts(folder), name, file } };
}

/** @throws FormatError */
export async function readTekken(folder: FileFolder): Promise<TokenizerSource | undefined> {
  const text = await readText(folder, 'tekken.json');
  return text === undefined ? undefined : { kind: 'tekken', text, name: `${folder.name}/tekken.json` };
}

/** @throws ModelError, FormatError */
export async function readSentencePiece(folder: FileFolder, file: string): Promise<TokenizerSource | undefined> {
  const source = await folder.open(file);
  if (!source) return undefined;
  try {
    if (source.byteLength > MOST_MODEL_BYTES) {
      const what = `expected at most ${MOST_MODEL_BYTES} bytes, found ${source.byteLength}`;
      throw new ModelError('InvalidTokenizer', `${source.name}: ${what}`);
    }
    const bytes = await source.read(0, source.byteLength);
    const sidecars = await readSidecarTexts(folder);
    return { kind: 'sentencepiece', bytes, name: source.name, sidecars, folder: folder.name };
  } finally {
    await source.dispose();
  }
}

/** vocab.json with merges.txt, or vocab.txt. @throws TokenizerError, FormatError */
export async function readVocabularyFiles(folder: FileFolder): Promise<VocabularyFilesSource | undefined> {
  const { name } = folder;
  const vocabJson = await readText(folder, 'vocab.json');
  const mergesTxt = await readText(folder, 'merges.txt');
  const vocabTxt = vocabJson === undefined ? await readText(folder, 'vocab.txt') : undefined;
  if (vocabTxt !== undefined)
    return { kind: 'words', files: { vocabTxt, sidecars: await readSidecarTexts(folder), name } };
  if (vocabJson === undefined && mergesTxt === undefined) return undefined;
  if (vocabJson === undefined) throw missing(`${name}/vocab.json`, 'merges.txt');
  if (mergesTxt === undefined) throw missing(`${name}/merges.txt`, 'vocab.json');
  return { kind: 'merges', files: { vocabJson, mergesTxt, sidecars: await readSidecarTexts(folder), name } };
}

const missing = (file: string, beside: string): TokenizerError =>
  new TokenizerError(file, `expected this file beside ${beside}, found none; download it too`);

/** @throws FormatError */
export async function readSidecarTexts(folder: FileFolder): Promise<SidecarTexts> {
  return {
    tokenizerConfig: await readText(folder, 'tokenizer_config.json'),
    specialTokensMap: await readText(folder, 'special_tokens_map.json'),
    addedTokens: await readText(folder, 'added_tokens.json'),
    modelType: await modelTypeOf(folder),
  };
}

/** `model_type` of config.json. The rest of that file is checked when the model is loaded. */
async function modelTypeOf(folder: FileFolder): Promise<string | undefined> {
  const config = await readJson(folder, 'config.json').catch(() => undefined);
  const type = (config as { model_type?: unknown } | null | undefined)?.model_type;
  return typeof type === 'string' ? type : undefined;
}

/** The file that a tokenizer comes from. */
export function fileOf(source: TokenizerSource): string {
  switch (source.kind) {
    case 'gguf':
      return 'GGUF metadata';
    case 'json':
      return source.files.file ?? 'tokenizer.json';
    case 'merges':
      return 'vocab.json, merges.txt';
    case 'words':
      return 'vocab.txt';
    default:
      return source.name.slice(source.name.lastIndexOf('/') + 1);
  }
}

/** The file and field that name the token of a role. */
export function roleFrom(source: TokenizerSource, role: 'bos' | 'eos'): string {
  if (source.kind === 'gguf') {
    const key = `tokenizer.ggml.${role}_token_id`;
    return source.values.has(key) ? `GGUF metadata, ${key}` : 'default of the tokenizer model';
  }
  if (source.kind === 'tekken') return fileOf(source);
  const texts: SidecarTexts = source.kind === 'sentencepiece' ? source.sidecars : (source.files.sidecars ?? {});
  const field = new RegExp(`"${role}_token"\\s*:\\s*(?!null)`);
  for (const [file, text] of [
    ['special_tokens_map.json', texts.specialTokensMap],
    ['tokenizer_config.json', texts.tokenizerConfig],
  ] as const)
    if (text !== undefined && field.test(text)) return `${file}, ${role}_token`;
  return source.kind === 'sentencepiece' ? fileOf(source) : "default of the tokenizer's class";
}
