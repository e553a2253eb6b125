/** SentencePiece's unigram language model: finds the most probable segmentation of a text (Viterbi). */
import { type TokenModel, WordMemory } from './model.ts';
import { Trie } from './trie.ts';

export interface UnigramOptions {
  /** Pieces that may be produced; the score is the logarithm of the probability. */
  readonly pieces: Iterable<readonly [text: string, score: number, id: number]>;
  /** Lowest score of all pieces. */
  readonly minScore: number;
  /** Id for unknown characters; undefined: they are left out. */
  readonly unknown: number | undefined;
  /** Ids of the 256 byte tokens, used for unknown characters. */
  readonly bytes?: Int32Array;
  /** Whether sums are rounded to f32, as in SentencePiece. Rounding decides between paths of equal score. */
  readonly singlePrecision?: boolean;
}

/** The score of an unknown character is this much below the lowest score. */
const UNKNOWN_PENALTY = 10;
const encoder = new TextEncoder();

export class Unigram implements TokenModel {
  readonly #trie = new Trie();
  /** Score by id. */
  readonly #scores: number[] = [];
  readonly #unknownScore: number;
  readonly #unknown: number | undefined;
  readonly #bytes: Int32Array | undefined;
  readonly #singlePrecision: boolean;
  readonly #memory = new WordMemory();
  readonly #encodeWord = (word: string, out: number[]): void => this.#encode(word, out);

  constructor({ pieces, minScore, unknown, bytes, singlePrecision = false }: UnigramOptions) {
    for (const [text, score, id] of pieces) {
      if (text === '') continue;
      this.#trie.add(text, id);
      this.#scores[id] = score;
    }
    this.#unknownScore = minScore - UNKNOWN_PENALTY;
    this.#unknown = unknown;
    this.#bytes = bytes;
    this.#singlePrecision = singlePrecision;
  }

  encode(piece: string, out: number[]): void {
    this.#memory.encode(piece, out, this.#encodeWord);
  }

  #encode(text: string, out: number[]): void {
    const { starts, ids } = this.#bestPath(text);
    let end = text.length;
    const path: number[] = [];
    while (end > 0) {
      path.push(end);
      end = starts[end]!;
    }
    let start = 0;
    for (let i = path.length - 1; i >= 0; i--) {
      const id = ids[path[i]!]!;
      // A run of unknown characters is one token.
      if (id < 0) while (i > 0 && ids[path[i - 1]!]! < 0) i--;
      const stop = path[i]!;
      if (id >= 0) out.push(id);
      else if (this.#bytes) for (const byte of encoder.encode(text.slice(start, stop))) out.push(this.#bytes[byte]!);
      else if (this.#unknown !== undefined) out.push(this.#unknown);
      start = stop;
    }
  }

  /** For every end position: start and id (-1: unknown) of the last piece of the best path. */
  #bestPath(text: string): { starts: Int32Array; ids: Int32Array } {
    const starts = new Int32Array(text.length + 1).fill(-1);
    const ids = new Int32Array(text.length + 1);
    const round = this.#singlePrecision ? Math.fround : (sum: number): number => sum;
    const best = new Float64Array(text.length + 1);
    const offer = (start: number, end: number, id: number, sum: number): void => {
      const score = round(sum);
      if (starts[end] !== -1 && score <= best[end]!) return;
      starts[end] = start;
      ids[end] = id;
      best[end] = score;
    };
    for (let start = 0; start < text.length; ) {
      const next = start + (text.codePointAt(start)! > 0xffff ? 2 : 1);
      const score = best[start]!;
      let single = false;
      let node = 0;
      for (let at = start; at < text.length; ) {
        node = this.#trie.child(node, text.charCodeAt(at++));
        if (node < 0) break;
        const id = this.#trie.value(node);
        if (id < 0) continue;
        offer(start, at, id, score + this.#scores[id]!);
        single ||= at === next;
      }
      if (!single) offer(start, next, -1, score + this.#unknownScore);
      start = next;
    }
    return { starts, ids };
  }
}
