/** Text to token ids and back. */

export interface EncodeOptions {
  /** Add the tokens that the model expects around a text (begin of text, ...). Default true. */
  addSpecial?: boolean;
  /**
   * Take text that spells a control token (`<|im_end|>`, `</s>`) for that token. Default false: what people write stays
   * text, and no control token can come out of it.
   */
  parseSpecial?: boolean;
}

/** A stretch of a text that comes from one place: a template, or a person. */
export interface TextPart {
  readonly text: string;
  readonly parseSpecial: boolean;
}

export interface EncodedPair {
  readonly ids: number[];
  /** Which of the two texts a token belongs to, in the model's terms. */
  readonly typeIds: number[];
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

/** What a control token is for. `eot` ends a turn, `eom` a message that more messages follow. */
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
  /** Ids of tokens that are found in a text before it is cut into words, control tokens among them. */
  readonly addedIds: readonly number[];
  /** What it is, in the words of its file: BPE, Unigram, ... */
  readonly kind: string;
  /** @throws OptionError for text that is not well-formed Unicode or longer than MAX_TEXT_BYTES */
  encode(text: string, options?: EncodeOptions): number[];
  /**
   * Encodes parts as the one text that they make. A control token is found only where its whole spelling comes from parts
   * with `parseSpecial`: text cannot complete one that a template has begun.
   * @throws OptionError
   */
  encodeParts(parts: readonly TextPart[], options?: Pick<EncodeOptions, 'addSpecial'>): number[];
  /** Two texts for models that compare them. @throws OptionError */
  encodePair(first: string, second: string, options?: EncodeOptions): EncodedPair;
  /** Never throws: ids without a token are left out. */
  decode(ids: Iterable<number>, options?: DecodeOptions): string;
  incremental(options?: DecodeOptions): IncrementalDecoder;
  /** The token as the vocabulary spells it. */
  token(id: number): string | undefined;
  id(token: string): number | undefined;
  /** The token that the model's files name for a role; undefined where they name none, or one that is not there. */
  role(role: TokenRole): RoleToken | undefined;
}
