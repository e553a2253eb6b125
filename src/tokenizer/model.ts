/** The interface of tokenizer models (pieces of text to ids), and a cache of words. */

export interface TokenModel {
  /** Appends the ids of `piece`, which is not empty. */
  encode(piece: string, out: number[]): void;
}

/** Longer words are not cached: JavaScript engines store them as slices, which keep the whole text alive. */
const LONGEST_REMEMBERED = 12;
const MOST_REMEMBERED = 2 ** 16;

/** Caches the ids of short words. */
export class WordMemory {
  #words = new Map<string, number | readonly number[]>();

  /** Appends the ids of `word`, from the cache or from `encode`. */
  encode(word: string, out: number[], encode: (word: string, out: number[]) => void): void {
    if (word.length > LONGEST_REMEMBERED) {
      encode(word, out);
      return;
    }
    const known = this.#words.get(word);
    if (typeof known === 'number') out.push(known);
    else if (known !== undefined) for (let i = 0; i < known.length; i++) out.push(known[i]!);
    else {
      const ids: number[] = [];
      encode(word, ids);
      if (this.#words.size === MOST_REMEMBERED) this.#words.clear();
      this.#words.set(word, ids.length === 1 ? ids[0]! : ids);
      for (const id of ids) out.push(id);
    }
  }
}
