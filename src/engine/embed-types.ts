/** What an encoder is asked, and what it answers. */
import type { Pooling } from '../embedding/pooling.ts';

export interface EmbedOptions {
  /** Instead of the pooling that the model's files name (1_Pooling/config.json); mean where they name none. */
  pooling?: Pooling | 'lasttoken';
  /**
   * Scale to length 1, so that a product of two embeddings is their cosine. Default: what modules.json says, else true.
   */
  normalize?: boolean;
  /**
   * Cut texts that are longer than the context (true) or fail (false). Default: cut them with a warning where
   * sentence-transformers' settings limit the length (sentence_bert_config.json), else fail.
   */
  truncate?: boolean;
  /** Put in front of each text. */
  prompt?: string;
  /** The name of a prompt of config_sentence_transformers.json. Default: its default_prompt_name. */
  promptName?: string;
  /** Requests with lower numbers are served first. An integer; default 0. */
  priority?: number;
  /** Whose request it is: texts are computed in turns of such keys. Default ''. */
  fairnessKey?: string;
  signal?: AbortSignal;
}

/** A text, or the ids of its tokens. */
export type EmbedInput = string | { readonly tokenIds: readonly number[] };

export interface Embedding {
  /** [dim] JSON.stringify makes an array of numbers of it. */
  readonly embedding: Float32Array;
  /** Tokens of the text that were used, those of its prompt and special tokens too. */
  readonly tokens: number;
  /** Whether the text was cut. */
  readonly truncated: boolean;
}

/** JSON.stringify writes typed arrays as objects with indices for keys. */
export function withJson(vector: Float32Array): Float32Array {
  return Object.defineProperty(vector, 'toJSON', { value: () => numbersOf(vector) });
}

/** Nine digits tell every f32 from its neighbours. */
export const numbersOf = (vector: Float32Array): number[] =>
  Array.from(vector, (value) => Number(value.toPrecision(9)));
