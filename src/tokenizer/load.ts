/** Tokenizers of tokenizer.json, by @huggingface/tokenizers. */
import { Tokenizer as Library } from '@huggingface/tokenizers';
import { ModelError, OptionError } from '../errors.ts';
import type { DecodeOptions, EncodeOptions, IncrementalDecoder, Tokenizer } from './tokenizer.ts';

/** Longer texts are refused before they are tokenized. */
export const MAX_TEXT_BYTES = 32 * 2 ** 20;

export interface TokenizerFiles {
  /** Text of tokenizer.json. */
  readonly tokenizerJson: string;
  /** Text of tokenizer_config.json, where there is one. */
  readonly tokenizerConfig?: string;
  /** For messages. */
  readonly name: string;
}

/** @throws ModelError InvalidTokenizer */
export function loadTokenizer({ tokenizerJson, tokenizerConfig, name }: TokenizerFiles): Tokenizer {
  const json = parse(tokenizerJson, `${name}/tokenizer.json`);
  const config = tokenizerConfig === undefined ? {} : parse(tokenizerConfig, `${name}/tokenizer_config.json`);
  try {
    return new JsonTokenizer(new Library(json, config), specialIdsOf(json));
  } catch (error) {
    if (error instanceof ModelError) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new ModelError('InvalidTokenizer', `${name}/tokenizer.json: not a tokenizer that can be used: ${reason}`);
  }
}

function parse(text: string, file: string): object {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new ModelError('InvalidTokenizer', `${file}: invalid JSON: ${(error as Error).message}`);
  }
  if (typeof json !== 'object' || json === null)
    throw new ModelError('InvalidTokenizer', `${file}: expected an object`);
  return json;
}

function specialIdsOf(json: { added_tokens?: unknown }): number[] {
  const added = Array.isArray(json.added_tokens) ? json.added_tokens : [];
  return added
    .filter((token) => token?.special === true && Number.isInteger(token.id))
    .map((token) => token.id as number)
    .sort((a, b) => a - b);
}

class JsonTokenizer implements Tokenizer {
  readonly vocabSize: number;
  readonly specialIds: readonly number[];
  readonly #library: Library;
  readonly #special: ReadonlySet<number>;

  constructor(library: Library, specialIds: readonly number[]) {
    this.#library = library;
    this.specialIds = specialIds;
    this.#special = new Set(specialIds);
    let largest = -1;
    for (const id of library.get_vocab().values()) largest = Math.max(largest, id);
    this.vocabSize = largest + 1;
  }

  encode(text: string, { addSpecial = true }: EncodeOptions = {}): number[] {
    const half = text.search(/\p{Surrogate}/u);
    if (half >= 0)
      throw new OptionError(
        'text',
        `well-formed Unicode (half of a surrogate pair at ${half})`,
        text.slice(half, half + 8),
      );
    if (text.length * 3 > MAX_TEXT_BYTES && new TextEncoder().encode(text).length > MAX_TEXT_BYTES) {
      throw new OptionError('text', `at most ${MAX_TEXT_BYTES} bytes`, `${text.length} characters`);
    }
    return text === '' && !addSpecial ? [] : this.#library.encode(text, { add_special_tokens: addSpecial }).ids;
  }

  decode(ids: Iterable<number>, { skipSpecial = false }: DecodeOptions = {}): string {
    const known = [...ids].filter((id) => this.token(id) !== undefined && !(skipSpecial && this.#special.has(id)));
    // The library refuses an empty list.
    return known.length ? this.#library.decode(known, { clean_up_tokenization_spaces: false }) : '';
  }

  incremental(options: DecodeOptions = {}): IncrementalDecoder {
    return new Window((ids) => this.decode(ids, options));
  }

  token(id: number): string | undefined {
    return this.#library.id_to_token(id);
  }

  id(token: string): number | undefined {
    return this.#library.token_to_id(token);
  }
}

/** Tokens behind the last one shown that are decoded again: what a decoder may still look back at. */
const LOOK_BACK = 6;
/** A character has at most four bytes, each maybe a token of its own. */
const LONGEST_CHARACTER = 4;

/**
 * Decodes a window of recent ids twice, with and without the new ones, and shows the difference: the cost of a token does
 * not depend on the length of the text. Text that ends within a character waits for the rest of it.
 */
class Window implements IncrementalDecoder {
  readonly #decode: (ids: readonly number[]) => string;
  /** Ids whose text has been shown, then those still waiting. */
  #shown: number[] = [];
  #waiting: number[] = [];

  constructor(decode: (ids: readonly number[]) => string) {
    this.#decode = decode;
  }

  push(id: number): string {
    this.#waiting.push(id);
    const text = this.#difference();
    if (text.endsWith('\ufffd') && this.#waiting.length < LONGEST_CHARACTER) return '';
    return this.#show(text);
  }

  end(): string {
    return this.#waiting.length ? this.#show(this.#difference()) : '';
  }

  #difference(): string {
    const before = this.#decode(this.#shown);
    return this.#decode([...this.#shown, ...this.#waiting]).slice(before.length);
  }

  #show(text: string): string {
    this.#shown = [...this.#shown, ...this.#waiting].slice(-LOOK_BACK);
    this.#waiting = [];
    return text;
  }
}
