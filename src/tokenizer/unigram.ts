/** Unigram language models of SentencePiece: of all ways to cut a text into pieces, the most probable one (Viterbi). */
import { type TokenModel, WordMemory } from './model.ts';
import { Trie } from './trie.ts';

export interface UnigramOptions {
  /** Pieces that text may become, with the logarithms of their probabilities. */
  readonly pieces: Iterable<readonly [text: string, score: number, id: number]>;
  /** Score of the least probable piece. */
  readonly minScore: number;
  /** Undefined: unknown characters are left out. */
  readonly unknown: number | undefined;
  /** For unknown characters: ids of the 256 bytes. */
  readonly bytes?: Int32Array;
  /** Sums are rounded to float32, as in SentencePiece: of paths that cost the same, rounding chooses. */
  readonly singlePrecision?: boolean;
}

/** What an unknown character costs more than the least probable piece. */
const UNKNOWN_PENALTY = 10;
const encoder = new TextEncoder();

export class Unigram implements TokenModel {
  readonly #trie = new Trie();
  /** By id. */
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
      // Unknown characters in a row are one.
      if (id < 0) while (i > 0 && ids[path[i - 1]!]! < 0) i--;
      const stop = path[i]!;
      if (id >= 0) out.push(id);
      else if (this.#bytes) for (const byte of encoder.encode(text.slice(start, stop))) out.push(this.#bytes[byte]!);
      else if (this.#unknown !== undefined) out.push(this.#unknown);
      start = stop;
    }
  }

  /** For every end: where the last piece of the best path begins, and its id (-1: unknown). */
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
