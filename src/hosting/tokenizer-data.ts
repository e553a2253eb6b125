/** Sends the data of a tokenizer to the caller of a hosted engine, as bytes; the tokenizer is built at first use. */
import { withinVocabulary } from '../engine/tokenizer.ts';
import { makeTokenizer, type TokenizerSource } from '../engine/tokenizer-source.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';

/** Longer texts are sent as bytes, which are transferred instead of copied. */
const LONG_TEXT = 4096;

interface PackedText {
  readonly packed: 'text';
  readonly bytes: Uint8Array;
}

interface PackedList {
  readonly packed: 'list';
  /** All texts, concatenated. */
  readonly bytes: Uint8Array;
  /** Number of code units of each text. */
  readonly lengths: Uint32Array;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { ignoreBOM: true });

/** @param value a TokenizerSource, or part of one @param buffers receives the buffers to transfer to the caller */
export function packTokenizer(value: unknown, buffers: ArrayBuffer[]): unknown {
  const move = <A extends { readonly buffer: ArrayBufferLike }>(array: A): A => {
    buffers.push(array.buffer as ArrayBuffer);
    return array;
  };
  if (typeof value === 'string')
    return value.length < LONG_TEXT ? value : { packed: 'text', bytes: move(encoder.encode(value)) };
  if (typeof value !== 'object' || value === null) return value;
  // Copied, because the tokenizer of this thread still uses its own.
  if (ArrayBuffer.isView(value)) return move((value as Uint8Array).slice());
  if (Array.isArray(value) && value.length > 0 && value.every((item) => typeof item === 'string')) {
    const lengths = Uint32Array.from(value, ({ length }: string) => length);
    return { packed: 'list', bytes: move(encoder.encode(value.join(''))), lengths: move(lengths) };
  }
  if (Array.isArray(value)) return value;
  if (value instanceof Map) return new Map([...value].map(([key, item]) => [key, packTokenizer(item, buffers)]));
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, packTokenizer(item, buffers)]));
}

function unpack(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value) || ArrayBuffer.isView(value)) return value;
  if (value instanceof Map) return new Map([...value].map(([key, item]) => [key, unpack(item)]));
  const { packed } = value as Partial<PackedText | PackedList>;
  if (packed === 'text') return decoder.decode((value as PackedText).bytes);
  if (packed === 'list') {
    const { bytes, lengths } = value as PackedList;
    const text = decoder.decode(bytes);
    let at = 0;
    return Array.from(lengths, (length) => text.slice(at, (at += length)));
  }
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, unpack(item)]));
}

/** A tokenizer that is built at first use. */
export class LazyTokenizer {
  readonly #vocab: number;
  readonly #name: string;
  #source: unknown;
  #tokenizer: Tokenizer | undefined;

  /**
   * @param source result of packTokenizer
   * @param vocab number of tokens of the model
   * @param name name of the model, for errors
   */
  constructor(source: unknown, vocab: number, name: string) {
    this.#source = source;
    this.#vocab = vocab;
    this.#name = name;
  }

  get(): Tokenizer | undefined {
    if (this.#source !== undefined) {
      const made = makeTokenizer(unpack(this.#source) as TokenizerSource);
      this.#tokenizer = made && withinVocabulary(made, this.#vocab, this.#name);
      this.#source = undefined;
    }
    return this.#tokenizer;
  }
}
