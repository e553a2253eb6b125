/** Decodes the tokens of a generation to text, cut before stop strings. */

import { continueText } from '../prompts/continuation.ts';
import type { IncrementalDecoder, Tokenizer } from '../tokenizer/tokenizer.ts';
import { StopMatcher } from './stop.ts';

interface Piece {
  readonly text: string;
  /** The stop string that was completed; no text follows. */
  readonly stop?: string | undefined;
}

/** Text without stop strings. They are also matched in the text with control tokens, if the shown text has none. */
export class ShownText {
  readonly #decoder: IncrementalDecoder | undefined;
  readonly #stops: StopMatcher;
  /** Shown text that is held back only because of the full text. */
  #pending = '';
  /** The text with control tokens; undefined if these are shown anyway, or if there are no stop strings. */
  readonly #full: { readonly decoder: IncrementalDecoder; readonly stops: StopMatcher } | undefined;
  readonly #special: ReadonlySet<number>;
  /** For each character held back in the full text, whether it is shown. */
  #heldShown: boolean[] = [];

  /** @param before token ids of the prompt */
  constructor(
    tokenizer: Tokenizer | undefined,
    before: readonly number[],
    { stop, hideSpecial }: { stop: readonly string[]; hideSpecial: boolean },
  ) {
    this.#decoder = tokenizer && continueText(tokenizer, before, { skipSpecial: hideSpecial });
    this.#stops = new StopMatcher(stop);
    this.#special = new Set(tokenizer?.specialIds);
    if (tokenizer && hideSpecial && stop.length > 0 && this.#special.size > 0)
      this.#full = { decoder: continueText(tokenizer, before, { skipSpecial: false }), stops: new StopMatcher(stop) };
  }

  /** Adds a token and returns the text that later tokens cannot change. */
  push(id: number): Piece {
    return this.#take(this.#decoder?.push(id) ?? '', this.#full?.decoder.push(id) ?? '', !this.#special.has(id));
  }

  /** The rest of the text, after the last token. */
  end(): Piece {
    const last = this.#take(this.#decoder?.end() ?? '', this.#full?.decoder.end() ?? '', true);
    if (last.stop !== undefined) return last;
    const text = last.text + this.#pending + this.#stops.end();
    this.#pending = '';
    return { text };
  }

  #take(shown: string, full: string, isShown: boolean): Piece {
    const held = this.#stops.heldLength;
    const own = this.#stops.push(shown);
    if (!this.#full) return own;
    const all = this.#full.stops.push(full);
    for (let i = 0; i < full.length; i++) this.#heldShown.push(isShown);
    // Characters after the text that the matcher has released.
    this.#heldShown = this.#heldShown.slice(all.text.length);
    const back = this.#heldShown.filter(Boolean).length;
    const before = this.#pending.length + held + shown.length;
    const pending = this.#pending + own.text;
    this.#pending = '';
    if (all.stop !== undefined) {
      // Text held back by the matcher of the shown text is released now, or cut off below.
      const rest = own.stop === undefined ? pending + this.#stops.end() : pending;
      return { text: rest.slice(0, Math.max(0, before - back)), stop: all.stop };
    }
    if (own.stop !== undefined) return { text: pending, stop: own.stop };
    const release = Math.min(pending.length, Math.max(0, before - back));
    this.#pending = pending.slice(release);
    return { text: pending.slice(0, release) };
  }
}
