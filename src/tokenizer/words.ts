/** WordPiece (the longest token at each position of a word) and WordLevel (whole words only). */
import type { TokenModel } from './model.ts';
import { WordMemory } from './model.ts';
import type { Vocabulary } from './vocabulary.ts';

export interface WordPieceOptions {
  readonly vocabulary: Vocabulary;
  readonly special: ReadonlySet<number>;
  readonly unknown: number;
  /** Prefix of tokens that begin a word (`firstPrefix`) and of the others (`prefix`). */
  readonly firstPrefix?: string;
  readonly prefix: string;
  /** Longest word in characters; longer words become the unknown token. */
  readonly longestWord: number;
}

export class WordPiece implements TokenModel {
  readonly #options: WordPieceOptions;
  readonly #longestToken: number;
  readonly #memory = new WordMemory();
  readonly #encodeWord = (word: string, out: number[]): void => this.#encode(word, out);

  constructor(options: WordPieceOptions) {
    this.#options = options;
    let longest = 1;
    for (const [token] of options.vocabulary.entries()) longest = Math.max(longest, token.length);
    this.#longestToken = longest;
  }

  encode(piece: string, out: number[]): void {
    this.#memory.encode(piece, out, this.#encodeWord);
  }

  #encode(word: string, out: number[]): void {
    const { unknown, longestWord } = this.#options;
    const before = out.length;
    const tooLong = word.length > longestWord && [...word].length > longestWord;
    for (let start = 0; start < word.length; ) {
      const end = tooLong ? start : this.#longest(word, start, out);
      if (end === start) {
        out.length = before;
        out.push(unknown);
        return;
      }
      start = end;
    }
  }

  /** Appends the longest token at `start` and returns its end, or `start` if there is none. */
  #longest(word: string, start: number, out: number[]): number {
    const { vocabulary, special, prefix, firstPrefix = '' } = this.#options;
    const before = start > 0 ? prefix : firstPrefix;
    for (let end = Math.min(word.length, start + this.#longestToken); end > start; end--) {
      const id = vocabulary.id(before + word.slice(start, end));
      if (id === undefined || special.has(id)) continue;
      out.push(id);
      return end;
    }
    return start;
  }
}

export class WordLevel implements TokenModel {
  readonly #vocabulary: Vocabulary;
  readonly #special: ReadonlySet<number>;
  readonly #unknown: number | undefined;

  constructor(vocabulary: Vocabulary, special: ReadonlySet<number>, unknown: number | undefined) {
    this.#vocabulary = vocabulary;
    this.#special = special;
    this.#unknown = unknown;
  }

  encode(piece: string, out: number[]): void {
    const id = this.#vocabulary.id(piece);
    if (id !== undefined && !this.#special.has(id)) out.push(id);
    else if (this.#unknown !== undefined) out.push(this.#unknown);
  }
}
