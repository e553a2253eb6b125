/** Finds the tokenizer of a model: in a GGUF file's metadata, or in the files beside the weights. */
import { ModelError, TokenizerError } from '../errors.ts';
import type { FileFolder } from '../formats/bytes.ts';
import { readText } from '../formats/checkpoint.ts';
import { firstPart } from '../formats/gguf.ts';
import { readGgufHeader } from '../formats/gguf-header.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { findGguf, type OpenModel } from './open.ts';
import {
  makeTokenizer,
  readSentencePiece,
  readTekken,
  readTokenizerJson,
  readTokenizerSource,
  readVocabularyFiles,
  type TokenizerSource,
} from './tokenizer-source.ts';

/**
 * The tokenizer beside weights, or in the metadata of a GGUF file. Undefined if there is none: the model then takes
 * token ids.
 * @throws TokenizerError, FormatError
 */
export async function tokenizerBeside(
  folder: FileFolder,
  files?: Pick<OpenModel, 'metadata' | 'files'>,
): Promise<Tokenizer | undefined> {
  return made(await readTokenizerSource(folder, files));
}

const made = (source: TokenizerSource | undefined): Tokenizer | undefined => source && makeTokenizer(source);

/**
 * The largest id that encoding text can produce. Control tokens beyond the model's vocabulary (such as that for images
 * in the smallest Gemma 3) and ids without a token are never produced.
 */
export function lastOrdinary(tokenizer: Tokenizer): number {
  const special = new Set(tokenizer.specialIds);
  let id = tokenizer.vocabSize - 1;
  while (id >= 0 && (special.has(id) || tokenizer.token(id) === undefined)) id--;
  return id;
}

/**
 * Restricts a tokenizer to the ids 0 to `vocab - 1` of a model: texts that need other tokens of the tokenizer are
 * refused with a TokenizerError.
 */
export function withinVocabulary(tokenizer: Tokenizer, vocab: number, name: string): Tokenizer {
  if (tokenizer.vocabSize <= vocab) return tokenizer;
  const known = (ids: number[]): number[] => {
    const beyond = ids.find((id) => id >= vocab);
    if (beyond === undefined) return ids;
    const token = JSON.stringify(tokenizer.token(beyond));
    throw new TokenizerError(name, `the text has the token ${beyond} (${token}), the model has ${vocab} tokens`);
  };
  const limited: Pick<Tokenizer, 'encode' | 'encodeParts' | 'encodePair' | 'bytes'> = {
    bytes: (id) => (id < vocab ? tokenizer.bytes(id) : undefined),
    encode: (text, options) => known(tokenizer.encode(text, options)),
    encodeParts: (parts, options) => known(tokenizer.encodeParts(parts, options)),
    encodePair(first, second, options) {
      const pair = tokenizer.encodePair(first, second, options);
      known(pair.ids);
      return pair;
    },
  };
  return new Proxy(tokenizer, {
    get(_, key) {
      if (Object.hasOwn(limited, key)) return limited[key as keyof typeof limited];
      const member: unknown = Reflect.get(tokenizer, key, tokenizer);
      return typeof member === 'function' ? member.bind(tokenizer) : member;
    },
  });
}

/**
 * Opens the tokenizer of a file (a tokenizer.json of any name, a .model or .gguf file, or weights with a tokenizer
 * beside them) or of a folder, without loading weights.
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
  if (file === 'tekken.json') return made(await readTekken(folder));
  if (file === 'vocab.json' || file === 'vocab.txt' || file === 'merges.txt') {
    if ((await readText(folder, file)) === undefined) return undefined;
    return made(await readVocabularyFiles(folder));
  }
  if (file?.endsWith('.json')) return made(await readTokenizerJson(folder, file));
  if (file?.endsWith('.model')) return made(await readSentencePiece(folder, file));
  const gguf = file === undefined ? await findGguf(folder) : file.endsWith('.gguf') ? firstPart(file) : undefined;
  if (gguf === undefined) return tokenizerBeside(folder);
  const source = await folder.open(gguf);
  if (!source) return undefined;
  try {
    return await tokenizerBeside(folder, { ...(await readGgufHeader(source)), files: [gguf] });
  } finally {
    await source.dispose();
  }
}
