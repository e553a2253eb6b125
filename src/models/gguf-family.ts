/** What a family of GGUF files says, and the ways in which its rows and settings differ from Hugging Face's. */
import type { GgufValue } from '../formats/gguf-types.ts';
import type { RowOrder } from '../formats/views.ts';
import type { Sizes } from './architecture.ts';
import type { GgufConfig } from './gguf-config.ts';
import type { TensorNames } from './gguf-names.ts';

/** Settings in the words of config.json. */
export type Settings = Record<string, unknown>;

export interface Field {
  /** Without the architecture's name. */
  readonly key: string;
  readonly kind: 'size' | 'positive' | 'flag';
  readonly setting: string;
  /** Taken where the file has no such key; `optional` fields are then left out. */
  readonly fallback?: number | boolean;
  readonly optional?: true;
  /** Optional fields that say by 0 that there is none. */
  readonly zeroIsNone?: true;
}

export interface Family {
  /** `model_type` of config.json. */
  readonly modelType: string;
  readonly names: TensorNames;
  readonly fields: readonly Field[];
  /** Settings that all such files have and no key says. */
  readonly constants: Settings;
  /** Every token sees all others: files say so. */
  readonly encoder?: true;
  /** Settings that follow from the tensors and several keys. */
  readonly derived?: (file: GgufFacts, settings: Settings) => Settings;
  /** Heads and ffn differ from layer to layer: `derived` reads them. */
  readonly layerwise?: true;
  /** What a file says besides `fields`, and instead of what all files say. */
  readonly metadata?: (settings: Settings, sizes: Sizes) => readonly (readonly [key: string, value: GgufValue])[];
  /** Values of `rope_freqs.weight`, for models that always have it. */
  readonly ropeFactors?: (settings: Settings) => Float32Array;
  /** What `attention.scale` must say where readers would take another scale of scores. */
  readonly scale?: (settings: Settings) => number | undefined;
  /** The file's norm weights hold 1 + w. */
  readonly onePlusNorms?: true;
  /** Matrices that Hugging Face has as [in, out]. */
  readonly transposed?: RegExp;
  /** How the rows of a tensor, by its GGUF name, stand in the file. */
  readonly rows?: (name: string, heads: HeadCounts) => RowOrder | undefined;
}

/** A GGUF file's metadata and names of tensors. */
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
/** One layer norm behind each half of a block. */
export const encoder = [
  ...sizes.filter(({ optional }) => !optional),
  layerNorm('layer_norm_eps'),
  field('tokenizer.ggml.token_type_count', 'size', 'type_vocab_size', { fallback: 2 }),
];
export const silu = { hidden_act: 'silu' };

/** llama.cpp turns neighbours, Hugging Face the two halves of a head: pair i is rows 2i and 2i + 1 in the file. */
export const interleaved: Family['rows'] = (name, { headDim }) =>
  /\.attn_[qk]\.(weight|bias)$/.test(name)
    ? { run: 1, order: Array.from({ length: headDim }, (_, i) => (i < headDim / 2 ? 2 * i : 2 * i - headDim + 1)) }
    : undefined;

/** Fused q, k, v in the file; per group of heads that share a key in Hugging Face: its queries, its key, its value. */
export const grouped: Family['rows'] = (name, { heads, kvHeads, headDim }) => {
  if (!/\.attn_qkv\.(weight|bias)$/.test(name)) return undefined;
  const queries = heads / kvHeads;
  const order = Array.from({ length: heads + 2 * kvHeads }, (_, i) => {
    const [group, part] = [Math.floor(i / (queries + 2)), i % (queries + 2)];
    return part < queries ? group * queries + part : heads + (part - queries) * kvHeads + group;
  });
  return { run: headDim, order };
};

/** Part of a head that rotates, where it is not all of it. */
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
