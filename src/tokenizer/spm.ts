/**
 * SentencePiece's byte pair encoding, as in Llama 2 and Gemma: adjacent symbols merge if their joined text is a token, the
 * token with the highest score first. Characters without a token become bytes.
 */
import { type MergeRules, mergeAll } from './merge.ts';
import { type TokenModel, WordMemory } from './model.ts';
import { PairTable } from './pair-table.ts';
import { WordCutter } from './spaces.ts';
import type { Vocabulary } from './vocabulary.ts';

export interface SpmOptions {
  readonly vocabulary: Vocabulary;
  /** Score of each token. */
  readonly scores: ArrayLike<number>;
  /** Ids that are never produced. */
  readonly excluded: ReadonlySet<number>;
  readonly unknown: number | undefined;
  /** Ids of the 256 byte tokens. */
  readonly bytes: Int32Array | undefined;
}

const encoder = new TextEncoder();

/** Most pairs that are cached. */
const MOST_PAIRS = 2 ** 17;
/** Cached result of a pair that is not a token. */
const NONE = -2;

export class Spm implements TokenModel, MergeRules {
  readonly #options: SpmOptions;
  /**
   * Cache: pair of symbols -> token. A vocabulary of 262144 tokens has millions of pairs; finding all of them takes longer
   * than reading the model.
   */
  #pairs = new PairTable(MOST_PAIRS);
  #pairCount = 0;
  /** Code units of the longest token. */
  readonly #longest: number;
  /** By id: number of distinct higher scores. */
  readonly #ranks: Int32Array;
  /** Symbol of each character: its token id, or a number beyond all ids for characters without a token. */
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

  /** Text of a symbol. */
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

/** Index of a value that a sorted list contains. */
function indexIn(sorted: Float64Array, value: number): number {
  let [from, to] = [0, sorted.length];
  while (from + 1 < to) {
    const middle = (from + to) >> 1;
    if (sorted[middle]! <= value) from = middle;
    else to = middle;
  }
  return from;
}
