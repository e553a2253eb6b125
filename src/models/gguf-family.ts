/** Describes families of GGUF files: settings, names, and how rows and settings differ from Hugging Face's. */
import type { GgufValue } from '../formats/gguf-types.ts';
import type { RowOrder } from '../formats/views.ts';
import type { ModelSizes } from './architecture.ts';
import type { GgufConfig } from './gguf-config.ts';
import type { TensorNames } from './gguf-names.ts';

/** Settings by their keys in config.json. */
export type Settings = Record<string, unknown>;

export interface Field {
  /** Metadata key without the architecture's name. */
  readonly key: string;
  readonly kind: 'size' | 'positive' | 'flag';
  readonly setting: string;
  /** Value if the file has no such key. Without it the setting is left out if `optional`, else the file is refused. */
  readonly fallback?: number | boolean;
  readonly optional?: true;
  /** Whether 0 means absent, for optional fields. */
  readonly zeroIsNone?: true;
}

export interface Family {
  /** `model_type` of config.json. */
  readonly modelType: string;
  readonly names: TensorNames;
  readonly fields: readonly Field[];
  /** Settings of all files of the family, for which there are no keys. */
  readonly constants: Settings;
  /** Whether attention is not causal, which the files state. */
  readonly encoder?: true;
  /** Settings derived from tensors or from several keys. */
  readonly derived?: (file: GgufFacts, settings: Settings) => Settings;
  /** Whether heads and ffn differ between layers; `derived` then reads them. */
  readonly layerwise?: true;
  /** Metadata to write besides `fields`; overrides the metadata that all families write. */
  readonly metadata?: (settings: Settings, sizes: ModelSizes) => readonly (readonly [key: string, value: GgufValue])[];
  /** Values of `rope_freqs.weight`, for families that always have this tensor. */
  readonly ropeFactors?: (settings: Settings) => Float32Array;
  /** Value of `attention.scale`, if readers would assume another scale of scores. */
  readonly scale?: (settings: Settings) => number | undefined;
  /** Whether the norm weights of the file are 1 + w. */
  readonly onePlusNorms?: true;
  /** Names of matrices that are [in, out] in Hugging Face. */
  readonly transposed?: RegExp;
  /** The row order of a tensor, by its GGUF name, in the file. */
  readonly rows?: (name: string, heads: HeadCounts) => RowOrder | undefined;
}

/** Metadata and tensor names of a GGUF file. */
export interface GgufFacts {
  readonly metadata: GgufConfig;
  has(tensor: string): boolean;
  shapeOf(tensor: string): readonly number[] | undefined;
}

export interface HeadCounts {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
}

export const field = (key: string, kind: Field['kind'], setting: string, more: Partial<Field> = {}): Field => ({
  key,
  kind,
  setting,
  ...more,
});
export const optional = { optional: true } as const;

export const sizes = [
  field('context_length', 'size', 'max_position_embeddings'),
  field('embedding_length', 'size', 'hidden_size'),
  field('block_count', 'size', 'num_hidden_layers'),
  field('feed_forward_length', 'size', 'intermediate_size'),
  field('attention.head_count', 'size', 'num_attention_heads'),
  field('attention.head_count_kv', 'size', 'num_key_value_heads', optional),
  field('attention.key_length', 'size', 'head_dim', optional),
];
export const rms = field('attention.layer_norm_rms_epsilon', 'positive', 'rms_norm_eps');
export const layerNorm = (setting: string): Field => field('attention.layer_norm_epsilon', 'positive', setting);
export const rope = field('rope.freq_base', 'positive', 'rope_theta', { fallback: 10_000 });
export const window = field('attention.sliding_window', 'size', 'sliding_window', {
  optional: true,
  zeroIsNone: true,
});
export const decoder = [...sizes, rms, rope];
export const experts = [
  field('expert_count', 'size', 'num_local_experts'),
  field('expert_used_count', 'size', 'num_experts_per_tok'),
];
/** Settings of encoders with a layer norm after each half of a block. */
export const encoder = [
  ...sizes.filter(({ optional }) => !optional),
  layerNorm('layer_norm_eps'),
  field('tokenizer.ggml.token_type_count', 'size', 'type_vocab_size', { fallback: 2 }),
];
export const silu = { hidden_act: 'silu' };

/**
 * Rope rotates adjacent values in llama.cpp, values of the two halves of a head in Hugging Face: pair i is rows 2i and
 * 2i + 1 in the file.
 */
export const interleaved: Family['rows'] = (name, { headDim }) =>
  /\.attn_[qk]\.(weight|bias)$/.test(name)
    ? { run: 1, order: Array.from({ length: headDim }, (_, i) => (i < headDim / 2 ? 2 * i : 2 * i - headDim + 1)) }
    : undefined;

/**
 * Fused q, k, v: all q, all k, all v in the file; in Hugging Face per key/value head its queries, its key, its value.
 */
export const grouped: Family['rows'] = (name, { heads, kvHeads, headDim }) => {
  if (!/\.attn_qkv\.(weight|bias)$/.test(name)) return undefined;
  const queries = heads / kvHeads;
  const order = Array.from({ length: heads + 2 * kvHeads }, (_, i) => {
    const [group, part] = [Math.floor(i / (queries + 2)), i % (queries + 2)];
    return part < queries ? group * queries + part : heads + (part - queries) * kvHeads + group;
  });
  return { run: headDim, order };
};

/** The fraction of a head that is rotated, if not all of it. */
export const partialRotary =
  (setting: string): NonNullable<Family['derived']> =>
  ({ metadata }, settings) => {
    const headDim = (settings.head_dim ??
      Number(settings.hidden_size) / Number(settings.num_attention_heads)) as number;
    return { [setting]: metadata.size('rope.dimension_count', headDim) / headDim };
  };

export const biases: NonNullable<Family['derived']> = ({ has }) => ({
  attention_bias: has('blk.0.attn_q.bias'),
  mlp_bias: has('blk.0.ffn_up.bias'),
});

export const falconNorms: NonNullable<Family['derived']> = ({ has }, { num_kv_heads, intermediate_size }) => ({
  new_decoder_architecture: num_kv_heads !== 1,
  num_ln_in_parallel_attn: has('blk.0.attn_norm_2.weight') ? 2 : 1,
  multi_query: true,
  ffn_hidden_size: intermediate_size,
});
