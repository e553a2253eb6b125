/** Byte pair encoding as in tokenizer.json: the characters of a word are merged in order of rank. */
import { TokenizerError } from '../errors.ts';
import { type MergeRules, mergeAll } from './merge.ts';
import { type TokenModel, WordMemory } from './model.ts';
import { PairTable } from './pair-table.ts';
import { SPACE_MARK, WordCutter } from './spaces.ts';
import { byteTokens, type Vocabulary } from './vocabulary.ts';

export interface BpeOptions {
  readonly vocabulary: Vocabulary;
  /** Merges in order of rank, each "left right" or a pair. */
  readonly merges: readonly unknown[];
  /** Ids that are never produced, neither by merging nor by lookup. */
  readonly special: ReadonlySet<number>;
  readonly unknown?: number;
  readonly fuseUnknown?: boolean;
  readonly byteFallback?: boolean;
  /** Whether a word that is a token becomes that token without merging. */
  readonly ignoreMerges?: boolean;
  /** Like `ignoreMerges`, for the words for which it returns true. */
  readonly isToken?: (word: string) => boolean;
  /** `prefix` marks characters that do not begin a word, `suffix` the last character of a word. */
  readonly prefix?: string;
  readonly suffix?: string;
  /** Rewrites a word in the vocabulary's alphabet (byte level). */
  readonly spell?: (word: string) => string;
  /** Named in errors. */
  readonly where: string;
}

const encoder = new TextEncoder();

export class Bpe implements TokenModel, MergeRules {
  readonly #options: Omit<BpeOptions, 'merges'>;
  readonly #pairs: PairTable;
  /** Merged token by rank. */
  readonly #results: Int32Array;
  readonly #bytes: Int32Array | undefined;
  readonly #characters = new Map<string, number>();
  readonly #memory = new WordMemory();
  readonly #encodeWord = (word: string, out: number[]): void => this.#encode(word, out);
  /** Cuts pieces before space marks, unless the vocabulary needs whole pieces (`prefix`, `suffix`, `spell`). */
  readonly #cutter: WordCutter | undefined;
  #symbols = new Int32Array(256);

  /** @throws TokenizerError for a merge whose parts or result are not in the vocabulary */
  constructor(options: BpeOptions) {
    const { merges, ...kept } = options;
    this.#options = kept;
    const { vocabulary, special, prefix = '', where } = kept;
    const required = (token: string, rank: number): number =>
      vocabulary.id(token) ?? vocabulary.required(token, `merges[${rank}]`);
    this.#pairs = new PairTable(merges.length);
    this.#results = new Int32Array(merges.length);
    let result = -1;
    for (let rank = 0; rank < merges.length; rank++) {
      const [left, right] = parts(merges[rank]) ?? refuse(`${where}.merges[${rank}]`);
      const rest = prefix !== '' && right.startsWith(prefix) ? right.slice(prefix.length) : right;
      const [first, second] = [required(left, rank), required(right, rank)];
      // The results of consecutive merges usually have consecutive ids: comparing is faster than a lookup.
      if (!isJoined(vocabulary.token(++result), left, rest)) result = required(left + rest, rank);
      if (special.has(result)) continue;
      this.#pairs.set(first, second, rank);
      this.#results[rank] = result;
    }
    this.#bytes = kept.byteFallback ? byteTokens(vocabulary) : undefined;
    if (!kept.spell && !prefix && !kept.suffix && vocabulary.id(SPACE_MARK) !== undefined)
      this.#cutter = new WordCutter(vocabulary);
  }

  rank(left: number, right: number): number {
    return this.#pairs.rank(left, right);
  }

  result(rank: number): number {
    return this.#results[rank]!;
  }

  encode(piece: string, out: number[]): void {
    const whole = this.#whole(piece);
    if (whole !== undefined) {
      out.push(whole);
      return;
    }
    if (!this.#cutter) {
      this.#memory.encode(piece, out, this.#encodeWord);
      return;
    }
    this.#cutter.forEach(piece, (word) => this.#memory.encode(word, out, this.#encodeWord));
  }

  #whole(piece: string): number | undefined {
    const { ignoreMerges, isToken, spell, vocabulary, special } = this.#options;
    // Rewritten words are looked up in #encode.
    if (spell || !(ignoreMerges || isToken?.(piece))) return undefined;
    const id = vocabulary.id(piece);
    return id === undefined || special.has(id) ? undefined : id;
  }

  #encode(piece: string, out: number[]): void {
    const { spell, ignoreMerges, vocabulary, special } = this.#options;
    const word = spell ? spell(piece) : piece;
    const whole = ignoreMerges ? vocabulary.id(word) : undefined;
    if (whole !== undefined && !special.has(whole)) {
      out.push(whole);
      return;
    }
    const characters = this.#lookUp(word);
    const count = mergeAll(this.#symbols, characters, this);
    for (let i = 0; i < count; i++) out.push(this.#symbols[i]!);
    if (this.#symbols.length > 2 ** 16) this.#symbols = new Int32Array(256);
  }

  /** Writes the ids of the characters to #symbols and returns their number. */
  #lookUp(word: string): number {
    const { prefix = '', suffix = '', unknown, fuseUnknown } = this.#options;
    let count = 0;
    let lastUnknown = false;
    for (let start = 0; start < word.length; ) {
      const end = start + (word.codePointAt(start)! > 0xffff ? 2 : 1);
      let character = word.slice(start, end);
      if (start > 0) character = prefix + character;
      if (end === word.length) character += suffix;
      const id = this.#character(character);
      if (id >= 0) count = this.#push(count, id);
      else if (this.#bytes) for (const byte of encoder.encode(character)) count = this.#push(count, this.#bytes[byte]!);
      else if (unknown !== undefined && !(fuseUnknown && lastUnknown)) count = this.#push(count, unknown);
      lastUnknown = id < 0 && !this.#bytes;
      start = end;
    }
    return count;
  }

  #push(count: number, id: number): number {
    if (count === this.#symbols.length) {
      const grown = new Int32Array(2 * count);
      grown.set(this.#symbols);
      this.#symbols = grown;
    }
    this.#symbols[count] = id;
    return count + 1;
  }

  /** Id of a character, or -1. */
  #character(character: string): number {
    const known = this.#characters.get(character);
    if (known !== undefined) return known;
    const id = this.#options.vocabulary.id(character) ?? -1;
    const found = this.#options.special.has(id) ? -1 : id;
    this.#characters.set(character, found);
    return found;
  }
}

const isJoined = (token: string | undefined, left: string, right: string): boolean =>
  token !== undefined && token.length === left.length + right.length && token.startsWith(left) && token.endsWith(right);

function parts(merge: unknown): readonly [left: string, right: string] | undefined {
  const pair = typeof merge === 'string' ? merge.split(' ') : merge;
  const isPair = Array.isArray(pair) && pair.length === 2 && typeof pair[0] === 'string' && typeof pair[1] === 'string';
  return isPair ? (pair as [string, string]) : undefined;
}

function refuse(where: string): never {
  throw new TokenizerError(where, 'expected two tokens');
}
