/** SentencePiece's mark for a space, and cutting of texts before marks. */
import type { Vocabulary } from './vocabulary.ts';

export const SPACE_MARK = '▁';

/**
 * Cuts a text into words at positions that no token spans: before a mark, if no token has the preceding code unit followed
 * by a mark. A model that merges by vocabulary alone gives the same tokens word by word, and words can be cached.
 */
export class WordCutter {
  /** Code units that occur before a mark within a token. */
  readonly #before = new Set<string>();

  constructor(vocabulary: Vocabulary) {
    for (const [token] of vocabulary.entries()) {
      for (let at = token.indexOf(SPACE_MARK, 1); at > 0; at = token.indexOf(SPACE_MARK, at + 1)) {
        this.#before.add(token[at - 1]!);
      }
    }
  }

  forEach(text: string, word: (word: string) => void): void {
    let start = 0;
    for (let at = text.indexOf(SPACE_MARK, 1); at > 0; at = text.indexOf(SPACE_MARK, at + 1)) {
      if (this.#before.has(text[at - 1]!)) continue;
      word(text.slice(start, at));
      start = at;
    }
    word(text.slice(start));
  }
}
