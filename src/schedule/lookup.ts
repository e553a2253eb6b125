/**
 * Drafts for speculative decoding, looked up in the text itself: what followed the last time that its latest tokens
 * stood in it. Summaries, edits and code repeat much of their prompt (prompt lookup decoding, A. Saxena 2023).
 */

/** Latest tokens that must be found again: as many as possible, at least two. */
const LONGEST_MATCH = 4;
const SHORTEST_MATCH = 2;
/** Steps without drafts after one of which nothing was right; doubled each time, up to the most. */
const FIRST_PAUSE = 2;
const LONGEST_PAUSE = 32;

export class PromptLookup {
  readonly #most: number;
  #length: number;
  #pause = FIRST_PAUSE;
  #waits = 0;
  /** Tokens drafted, and those of them that the model chose too. */
  proposed = 0;
  accepted = 0;

  /** @param most tokens of one draft; 0: no drafts */
  constructor(most: number) {
    this.#most = most;
    this.#length = Math.min(most, 4);
  }

  /** Tokens that may come next, at most `room`; often none. @param history prompt and text so far */
  propose(history: readonly number[], room: number): readonly number[] {
    if (this.#waits > 0) {
      this.#waits--;
      return [];
    }
    const length = Math.min(this.#length, room);
    if (length <= 0) return [];
    const longest = Math.min(LONGEST_MATCH, history.length - 1);
    for (let match = longest; match >= SHORTEST_MATCH; match--) {
      const start = earlier(history, match);
      if (start >= 0) return history.slice(start + match, start + match + length);
    }
    return [];
  }

  /** Tells how many tokens of a draft were right: the next ones become longer or shorter, or pause for a while. */
  judge(proposed: number, accepted: number): void {
    if (proposed === 0) return;
    this.proposed += proposed;
    this.accepted += accepted;
    if (accepted === 0) {
      this.#waits = this.#pause;
      this.#pause = Math.min(LONGEST_PAUSE, this.#pause * 2);
      this.#length = Math.max(1, this.#length >> 1);
      return;
    }
    this.#pause = FIRST_PAUSE;
    this.#length = accepted === proposed ? Math.min(this.#most, this.#length * 2) : Math.max(1, accepted);
  }
}

/** Start of the latest earlier occurrence of the last `match` tokens; -1: none. */
function earlier(history: readonly number[], match: number): number {
  const tail = history.length - match;
  for (let start = tail - 1; start >= 0; start--) {
    let i = 0;
    while (i < match && history[start + i] === history[tail + i]) i++;
    if (i === match) return start;
  }
  return -1;
}
