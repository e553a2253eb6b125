/** Byte pair encoding as in tiktoken: pairs merge by the rank of the result, and a word that is a token is not split. */
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

  /** @param vocabulary its ids are the ranks: lower ids merge first @param special ids that are never produced */
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
