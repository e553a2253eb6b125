/**
 * Drafts looked up in the text itself: the tokens that followed the last earlier occurrence of its latest tokens.
 * Summaries, edits and code repeat much of their prompt (prompt lookup decoding, A. Saxena 2023).
 */
import type { Drafter, DraftRequest, DraftWish } from './drafter.ts';

/** Number of latest tokens that are looked up; longer matches are preferred. */
const LONGEST_MATCH = 4;
const SHORTEST_MATCH = 2;

export class PromptLookup implements Drafter {
  readonly name = 'prompt lookup';
  readonly #indexes = new WeakMap<readonly number[], EarlierTokens>();

  async draft(wishes: readonly DraftWish[]): Promise<readonly (readonly number[])[]> {
    return wishes.map(({ request, most }) => this.lookUp(request.history, most));
  }

  /** At most `most` draft tokens. @param history the same array each time, which only grows */
  lookUp(history: readonly number[], most: number): readonly number[] {
    let index = this.#indexes.get(history);
    if (!index) {
      index = new EarlierTokens();
      this.#indexes.set(history, index);
    }
    const start = index.find(history);
    return start === undefined ? [] : history.slice(start, start + most);
  }

  readingMs(): number {
    return 0;
  }

  release({ history }: DraftRequest): void {
    this.#indexes.delete(history);
  }

  async dispose(): Promise<void> {}
}

/** Last positions of all runs of SHORTEST_MATCH to LONGEST_MATCH tokens in a text, by hash. */
class EarlierTokens {
  /** For each length, hash -> position after the run. After a collision of hashes a run may be missed. */
  readonly #positions = Array.from({ length: LONGEST_MATCH + 1 }, () => new Map<number, number>());
  /** Number of positions whose runs are in the index. */
  #indexed = 0;

  /** Position after the last earlier occurrence of the latest tokens, of the longest match. */
  find(history: readonly number[]): number | undefined {
    // The run at the end of the text is not indexed: it is looked up.
    for (; this.#indexed < history.length - 1; this.#indexed++) {
      for (let length = SHORTEST_MATCH; length <= Math.min(LONGEST_MATCH, this.#indexed + 1); length++)
        this.#positions[length]!.set(hashBefore(history, this.#indexed + 1, length), this.#indexed + 1);
    }
    for (let length = Math.min(LONGEST_MATCH, history.length - 1); length >= SHORTEST_MATCH; length--) {
      const found = this.#positions[length]!.get(hashBefore(history, history.length, length));
      if (found !== undefined && sameRun(history, found, length)) return found;
    }
    return undefined;
  }
}

/** FNV-1a over the ids of the `length` tokens before position `end`. */
function hashBefore(history: readonly number[], end: number, length: number): number {
  let hash = 0x811c9dc5;
  for (let i = end - length; i < end; i++) hash = Math.imul(hash ^ history[i]!, 0x01000193);
  return hash;
}

/** Whether the tokens before `end` are those at the end of the text. */
function sameRun(history: readonly number[], end: number, length: number): boolean {
  for (let i = 1; i <= length; i++) if (history[end - i] !== history[history.length - i]) return false;
  return true;
}
