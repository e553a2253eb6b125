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

export class Spm implements TokenModel, MergeRules {
  readonly #options: SpmOptions;
  /** Token that two symbols make. */
  readonly #pairs: PairTable;
  /** By id: how many different scores are higher. */
  readonly #ranks: Int32Array;
  /** Characters as symbols: ids of tokens, and numbers beyond them for characters that only longer tokens have. */
  readonly #symbols = new Map<string, number>();
  readonly #characters: string[] = [];
  readonly #cutter: WordCutter;
  readonly #memory = new WordMemory();
  readonly #encodeWord = (word: string, out: number[]): void => this.#encode(word, out);

  constructor(options: SpmOptions) {
    this.#options = options;
    const { vocabulary, scores, excluded } = options;
    const tokens = [...vocabulary.entries()].filter(([, id]) => !excluded.has(id));
    this.#ranks = ranksOf(scores, vocabulary.size);
    for (const [token, id] of tokens) if (isCharacter(token)) this.#symbols.set(token, id);
    const ids = new Map(tokens);
    const symbolOf = (text: string): number | undefined =>
      ids.get(text) ?? (isCharacter(text) ? this.#symbol(text) : undefined);
    const pairs: [number, number, number][] = [];
    for (const [token, id] of tokens) {
      for (const cut of cuts(token)) {
        const [left, right] = [symbolOf(token.slice(0, cut)), symbolOf(token.slice(cut))];
        if (left !== undefined && right !== undefined) pairs.push([left, right, id]);
      }
    }
    this.#pairs = new PairTable(pairs.length);
    for (const pair of pairs) this.#pairs.set(...pair);
    this.#cutter = new WordCutter(vocabulary);
  }

  rank(left: number, right: number): number {
    const id = this.#pairs.rank(left, right);
    return id < 0 ? -1 : this.#ranks[id]!;
  }

  result(_rank: number, left: number, right: number): number {
    return this.#pairs.rank(left, right);
  }

  encode(piece: string, out: number[]): void {
    this.#cutter.forEach(piece, (word) => this.#memory.encode(word, out, this.#encodeWord));
  }

  #encode(word: string, out: number[]): void {
    const characters = [...word];
    // A text may have characters that no token has: they are symbols that never merge.
    const foreign: string[] = [];
    const size = this.#options.vocabulary.size;
    const firstForeign = size + this.#characters.length;
    const symbols = Int32Array.from(
      characters,
      (character) => this.#symbols.get(character) ?? firstForeign + foreign.push(character) - 1,
    );
    const count = mergeAll(symbols, symbols.length, this);
    for (const symbol of symbols.subarray(0, count)) {
      if (symbol < size) out.push(symbol);
      else this.#spell(this.#characters[symbol - size] ?? foreign[symbol - firstForeign]!, out);
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

/** Places between the characters of a token. */
function* cuts(token: string): Generator<number> {
  let at = 0;
  for (const character of token) {
    if (at > 0) yield at;
    at += character.length;
  }
}

function ranksOf(scores: ArrayLike<number>, size: number): Int32Array {
  const all = Array.from({ length: size }, (_, id) => scores[id] ?? 0);
  const order = new Map([...new Set(all)].sort((a, b) => b - a).map((score, rank) => [score, rank]));
  return Int32Array.from(all, (score) => order.get(score)!);
}
