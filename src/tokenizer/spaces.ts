/** SentencePiece's mark of a space, and where it surely begins a word. */
import type { Vocabulary } from './vocabulary.ts';

export const SPACE_MARK = '▁';

/**
 * Cuts a text where no token can reach across: before each mark whose neighbour no token has in front of a mark. What
 * merges by vocabulary alone gives the same tokens word by word, and words can be remembered.
 */
export class WordCutter {
  /** Code units that a token has in front of a mark. */
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
