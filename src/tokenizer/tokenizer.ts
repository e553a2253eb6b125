/** Text to token ids and back. */

export interface EncodeOptions {
  /** Add the tokens that the model expects around a text (begin of text, ...). Default true. */
  addSpecial?: boolean;
  /**
   * Whether text that spells a control token (`<|im_end|>`, `</s>`) becomes that token. Default false: user text then never
   * becomes a control token.
   */
  parseSpecial?: boolean;
}

/** A part of a text with one origin: a template or a user. */
export interface TextPart {
  readonly text: string;
  readonly parseSpecial: boolean;
}

export interface EncodedPair {
  readonly ids: number[];
  /** The model's type id of each token, which tells the two texts apart. */
  readonly typeIds: number[];
}

export interface DecodeOptions {
  /** Whether to leave special tokens out of the text. Default false. */
  skipSpecial?: boolean;
}

/** Decodes ids one by one. The pieces joined are the text that `decode` gives for all ids. */
export interface IncrementalDecoder {
  /** The text that later ids cannot change. May be empty; never ends within a character. */
  push(id: number): string;
  /** The rest of the text, after the last id. */
  end(): string;
}

/** The purpose of a control token. `eot` ends a turn, `eom` a message that is followed by more messages. */
export type TokenRole = 'bos' | 'eos' | 'eot' | 'eom' | 'unknown' | 'separator' | 'padding' | 'classifier' | 'mask';

export interface RoleToken {
  readonly id: number;
  readonly text: string;
}

export interface Tokenizer {
  /** One more than the largest token id. */
  readonly vocabSize: number;
  /** Ids of special tokens, ascending. */
  readonly specialIds: readonly number[];
  /** Ids of added tokens: control tokens, and other tokens that are matched before a text is split. */
  readonly addedIds: readonly number[];
  /** Kind of tokenizer as its file names it: BPE, Unigram, ... */
  readonly kind: string;
  /** @throws OptionError for text that is not well-formed Unicode or longer than MAX_TEXT_BYTES */
  encode(text: string, options?: EncodeOptions): number[];
  /**
   * Encodes the parts as one joined text. A control token is matched only if all of it comes from parts with
   * `parseSpecial`: user text cannot complete a control token that a template has begun.
   * @throws OptionError
   */
  encodeParts(parts: readonly TextPart[], options?: Pick<EncodeOptions, 'addSpecial'>): number[];
  /** Encodes a pair of texts, for models that compare them. @throws OptionError */
  encodePair(first: string, second: string, options?: EncodeOptions): EncodedPair;
  /** Decodes ids. Ids without a token are skipped. */
  decode(ids: Iterable<number>, options?: DecodeOptions): string;
  incremental(options?: DecodeOptions): IncrementalDecoder;
  /** Text of a token as the vocabulary has it; undefined for an unknown id. */
  token(id: number): string | undefined;
  /**
   * Bytes that the token adds to a text in the middle of it: parts of a character, or a word with the space in front of it.
   * The bytes of a text's tokens, one after the other, are its UTF-8 where the tokenizer normalizes nothing; tokenizers that
   * put a space in front of each text have it in the first token, and `decode` removes it. Undefined for control tokens, the
   * token for unknown text, and ids without a token.
   */
  bytes(id: number): Uint8Array | undefined;
  id(token: string): number | undefined;
  /** The token that the model's files name for a role; undefined if they name none or the vocabulary lacks it. */
  role(role: TokenRole): RoleToken | undefined;
}
