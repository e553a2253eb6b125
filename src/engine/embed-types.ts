/** Options and results of encoders. */
import type { Pooling } from '../embedding/pooling.ts';

export interface EmbedOptions {
  /** Pooling. Default: as the model's files say (1_Pooling/config.json), else mean. */
  pooling?: Pooling | 'lasttoken';
  /**
   * Whether to scale to length 1, so that the dot product of two embeddings is their cosine. Default: as modules.json says,
   * else true.
   */
  normalize?: boolean;
  /**
   * Whether to cut texts that are longer than the context instead of failing. Default: they are cut with a warning if the
   * settings of sentence-transformers limit the length (sentence_bert_config.json), else they are an error.
   */
  truncate?: boolean;
  /** Text to put in front of each text. */
  prompt?: string;
  /** Name of a prompt in config_sentence_transformers.json. Default: its default_prompt_name. */
  promptName?: string;
  /** Requests with lower numbers are served first. An integer; default 0. */
  priority?: number;
  /** Whom the request belongs to; keys take turns when texts are computed. Default ''. */
  fairnessKey?: string;
  signal?: AbortSignal;
}

/** A text, or its token ids. */
export type EmbedInput = string | { readonly tokenIds: readonly number[] };

export interface Embedding {
  /** [dim] JSON.stringify writes it as an array of numbers. */
  readonly embedding: Float32Array;
  /** Number of tokens used, including those of the prompt and special tokens. */
  readonly tokens: number;
  /** Whether the text was cut. */
  readonly truncated: boolean;
}

/** Adds `toJSON` to a vector: JSON.stringify would write a typed array as an object with indices as keys. */
export function withJson(vector: Float32Array): Float32Array {
  return Object.defineProperty(vector, 'toJSON', { value: () => numbersOf(vector) });
}

/** Rounded to nine digits, which identify every f32. */
export const numbersOf = (vector: Float32Array): number[] =>
  Array.from(vector, (value) => Number(value.toPrecision(9)));
