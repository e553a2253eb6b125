/** Added tokens: control tokens and words that are matched in the text before it is normalized and split. */
import { joinedWordCharacter, whitespace } from './char-set.ts';
import { startOfCharacter } from './pattern-syntax.ts';
import type { NamedToken } from './sidecars.ts';
import { Trie } from './trie.ts';
import type { Vocabulary } from './vocabulary.ts';

export interface AddedToken extends NamedToken {
  readonly id: number;
}

/**
 * Adds the tokens of sidecar files to those of a tokenizer. A new token takes its id if that is free; without an id it is
 * appended to the vocabulary.
 * @param normalizes whether tokens may be matched in normalized text
 * @param describes whether sidecar files override the properties of tokens that the tokenizer has already
 */
export function joinAdded(
  own: readonly AddedToken[],
  more: readonly NamedToken[],
  vocabulary: Vocabulary,
  { normalizes, describes }: { normalizes: boolean; describes: boolean },
): AddedToken[] {
  const byId = new Map(own.map((token) => [token.id, token]));
  for (const token of more) {
    const known = vocabulary.id(token.content);
    // If the vocabulary has another token with this id, that one is kept.
    const free = token.id !== undefined && vocabulary.token(token.id) === undefined;
    if (known === undefined && token.id !== undefined && !free) continue;
    const id = known ?? token.id ?? vocabulary.size;
    if (known === undefined) vocabulary.add(token.content, id);
    if (byId.has(id) && !describes) continue;
    byId.set(id, { ...token, id, normalized: normalizes && token.normalized });
  }
  return [...byId.values()].sort((a, b) => a.id - b.id);
}

/**
 * Ids that the tokenizer's model must not produce from text. Control tokens of a single character are not among them:
 * otherwise no text could contain that character.
 */
export function specialWords(added: readonly AddedToken[]): ReadonlySet<number> {
  return new Set(added.filter(({ special, content }) => special && [...content].length > 1).map(({ id }) => id));
}

/** Whether a control token may be matched from `start` to `end`. */
export type Allowed = (start: number, end: number) => boolean;

export class AddedTokens {
  readonly #tokens: readonly AddedToken[];
  readonly #trie = new Trie();
  /** 1 for each code unit that some token begins with. */
  readonly #begins = new Uint8Array(2 ** 16);

  /** @param spelling the text to match for a token */
  constructor(tokens: readonly AddedToken[], spelling: (token: AddedToken) => string = (token) => token.content) {
    this.#tokens = tokens;
    for (const [i, token] of tokens.entries()) {
      const text = spelling(token);
      if (text === '') continue;
      this.#trie.add(text, i);
      this.#begins[text.charCodeAt(0)] = 1;
    }
  }

  /** Splits a text at its tokens, from left to right, the longest token at each position. */
  split(
    text: string,
    allowed: Allowed,
    plain: (start: number, end: number) => void,
    found: (id: number) => void,
  ): void {
    let done = 0;
    for (let at = 0; at < text.length; ) {
      const match = this.#begins[text.charCodeAt(at)] ? this.#longest(text, at, allowed) : undefined;
      if (!match) {
        at++;
        continue;
      }
      let [start, end] = [at, match.end];
      if (match.token.leftStrip) while (start > done && whitespace.at(text, start - 1)) start--;
      if (match.token.rightStrip) while (whitespace.at(text, end)) end++;
      if (start > done) plain(done, start);
      found(match.token.id);
      done = end;
      at = end;
    }
    if (done < text.length) plain(done, text.length);
  }

  #longest(text: string, start: number, allowed: Allowed): { token: AddedToken; end: number } | undefined {
    let longest: { token: AddedToken; end: number } | undefined;
    let node = 0;
    for (let at = start; at < text.length; ) {
      node = this.#trie.child(node, text.charCodeAt(at++));
      if (node < 0) break;
      const token = this.#tokens[this.#trie.value(node)];
      if (!token || (token.special && !allowed(start, at))) continue;
      if (token.singleWord && !standsAlone(text, start, at)) continue;
      longest = { token, end: at };
    }
    return longest;
  }
}

function standsAlone(text: string, start: number, end: number): boolean {
  const before = start > 0 && joinedWordCharacter.at(text, startOfCharacter(text, start)) > 0;
  return !before && !joinedWordCharacter.at(text, end);
}
