/**
 * SentencePiece's byte pair encoding, as in Llama 2 and Gemma: neighbours merge if together they are a token, the token with
 * the highest score first. Characters that no token is become bytes.
 */
import { type MergeRules, mergeAll } from './merge.ts';
import { type TokenModel, WordMemory } from './model.ts';
import { PairTable } from './pair-table.ts';
import { WordCutter } from './spaces.ts';
import type { Vocabulary } from './vocabulary.ts';

export interface SpmOptions {
  readonly vocabulary: Vocabulary;
  /** By id. */
  readonly scores: ArrayLike<number>;
  /** Ids that no text may become. */
  readonly excluded: ReadonlySet<number>;
  readonly unknown: number | undefined;
  /** Ids of the 256 bytes. */
  readonly bytes: Int32Array | undefined;
}

const encoder = new TextEncoder();

/** Most pairs that are remembered. */
const MOST_PAIRS = 2 ** 17;
/** A pair that makes no token, among those remembered. */
const NONE = -2;

export class Spm implements TokenModel, MergeRules {
  readonly #options: SpmOptions;
  /**
   * Token that two symbols make, of pairs that have been met: of a vocabulary of 262144 tokens there are millions, and
   * finding all of them took longer than reading the model.
   */
  #pairs = new PairTable(MOST_PAIRS);
  #pairCount = 0;
  /** Of the longest token that a text may become, in code units. */
  readonly #longest: number;
  /** By id: how many different scores are higher. */
  readonly #ranks: Int32Array;
  /** Characters as symbols: ids of tokens, and numbers beyond them for other characters that were met. */
  readonly #symbols = new Map<string, number>();
  readonly #characters: string[] = [];
  readonly #cutter: WordCutter;
  readonly #memory = new WordMemory();
  readonly #encodeWord = (word: string, out: number[]): void => this.#encode(word, out);

  constructor(options: SpmOptions) {
    this.#options = options;
    const { vocabulary, scores, excluded } = options;
    this.#ranks = ranksOf(scores, vocabulary.size);
    let longest = 0;
    for (const [token, id] of vocabulary.entries()) {
      if (excluded.has(id)) continue;
      if (isCharacter(token)) this.#symbols.set(token, id);
      longest = Math.max(longest, token.length);
    }
    this.#longest = longest;
    this.#cutter = new WordCutter(vocabulary);
  }

  rank(left: number, right: number): number {
    const id = this.result(-1, left, right);
    return id < 0 ? -1 : this.#ranks[id]!;
  }

  result(_rank: number, left: number, right: number): number {
    const known = this.#pairs.rank(left, right);
    if (known !== -1) return known;
    const token = this.#join(left, right);
    if (this.#pairCount++ === MOST_PAIRS) {
      this.#pairs = new PairTable(MOST_PAIRS);
      this.#pairCount = 1;
    }
    this.#pairs.set(left, right, token);
    return token;
  }

  #join(left: number, right: number): number {
    const { vocabulary, excluded } = this.#options;
    const [first, second] = [this.#textOf(left), this.#textOf(right)];
    if (first.length + second.length > this.#longest) return NONE;
    const id = vocabulary.id(first + second);
    return id === undefined || excluded.has(id) ? NONE : id;
  }

  /** A symbol's characters. */
  #textOf(symbol: number): string {
    const { vocabulary } = this.#options;
    return symbol < vocabulary.size ? vocabulary.token(symbol)! : this.#characters[symbol - vocabulary.size]!;
  }

  encode(piece: string, out: number[]): void {
    this.#cutter.forEach(piece, (word) => this.#memory.encode(word, out, this.#encodeWord));
  }

  #encode(word: string, out: number[]): void {
    const symbols = Int32Array.from([...word], (character) => this.#symbol(character));
    const count = mergeAll(symbols, symbols.length, this);
    const { size } = this.#options.vocabulary;
    for (const symbol of symbols.subarray(0, count)) {
      if (symbol < size) out.push(symbol);
      else this.#spell(this.#characters[symbol - size]!, out);
    }
  }

  #spell(character: string, out: number[]): void {
    const { bytes, unknown } = this.#options;
    if (bytes) for (const byte of encoder.encode(character)) out.push(bytes[byte]!);
    else if (unknown !== undefined) out.push(unknown);
  }

  #symbol(character: string): number {
    let symbol = this.#symbols.get(character);
    if (symbol === undefined) {
      symbol = this.#options.vocabulary.size + this.#characters.push(character) - 1;
      this.#symbols.set(character, symbol);
    }
    return symbol;
  }
}

const isCharacter = (text: string): boolean => text !== '' && text.length === (text.codePointAt(0)! > 0xffff ? 2 : 1);

function ranksOf(scores: ArrayLike<number>, size: number): Int32Array {
  const all = Float64Array.from({ length: size }, (_, id) => scores[id] ?? 0);
  const different = all.toSorted().filter((score, i, sorted) => i === 0 || score !== sorted[i - 1]);
  return Int32Array.from(all, (score) => different.length - 1 - indexIn(different, score));
}

/** Place of a value in a sorted list that has it. */
function indexIn(sorted: Float64Array, value: number): number {
  let [from, to] = [0, sorted.length];
  while (from + 1 < to) {
    const middle = (from + to) >> 1;
    if (sorted[middle]! <= value) from = middle;
    else to = middle;
  }
  return from;
}
