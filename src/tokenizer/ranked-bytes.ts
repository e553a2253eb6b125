/** Byte pair encoding by rank of the result, as tiktoken does it: a word that is a token stays whole. */
import { toByteAlphabet } from './byte-level.ts';
import { type TokenModel, WordMemory } from './model.ts';
import { Spm } from './spm.ts';
import type { Vocabulary } from './vocabulary.ts';

export class RankedBytes implements TokenModel {
  readonly #vocabulary: Vocabulary;
  readonly #special: ReadonlySet<number>;
  readonly #merges: Spm;
  readonly #memory = new WordMemory();
  readonly #encodeWord = (word: string, out: number[]): void => this.#encode(word, out);

  /** Lower ids merge first. */
  constructor(vocabulary: Vocabulary, special: ReadonlySet<number>) {
    this.#vocabulary = vocabulary;
    this.#special = special;
    const scores = Float64Array.from({ length: vocabulary.size }, (_, id) => -id);
    this.#merges = new Spm({ vocabulary, scores, excluded: special, unknown: undefined, bytes: undefined });
  }

  encode(piece: string, out: number[]): void {
    this.#memory.encode(piece, out, this.#encodeWord);
  }

  #encode(piece: string, out: number[]): void {
    const word = toByteAlphabet(piece);
    const whole = this.#vocabulary.id(word);
    if (whole !== undefined && !this.#special.has(whole)) out.push(whole);
    else this.#merges.encode(word, out);
  }
}
