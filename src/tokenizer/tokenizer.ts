/** Text to token ids and back. */

export interface EncodeOptions {
  /** Add the tokens that the model expects around a text (begin of text, ...). Default true. */
  addSpecial?: boolean;
}

export interface DecodeOptions {
  /** Leave special tokens out of the text. Default false. */
  skipSpecial?: boolean;
}

/** Decodes ids as they come: the pieces joined are what `decode` gives for all ids. */
export interface IncrementalDecoder {
  /** Text that is certain now: may be empty, never ends within a character. */
  push(id: number): string;
  /** The rest, once no more ids come. */
  end(): string;
}

export interface Tokenizer {
  /** One more than the largest token id. */
  readonly vocabSize: number;
  /** Ids of special tokens, ascending. */
  readonly specialIds: readonly number[];
  /** @throws OptionError for text that is not well-formed Unicode or longer than MAX_TEXT_BYTES */
  encode(text: string, options?: EncodeOptions): number[];
  /** Never throws: ids without a token are left out. */
  decode(ids: Iterable<number>, options?: DecodeOptions): string;
  incremental(options?: DecodeOptions): IncrementalDecoder;
  /** The token as the vocabulary spells it. */
  token(id: number): string | undefined;
  id(token: string): number | undefined;
}
