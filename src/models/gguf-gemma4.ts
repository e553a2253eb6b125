/** GGUF family of Gemma 4, with widths of heads and ffn per layer and the proportional rope as frequency factors. */
import type { GgufValue } from '../formats/gguf-types.ts';
import type { ModelSizes } from './architecture.ts';
import { type Family, field, type GgufFacts, optional, rms, type Settings, sizes } from './gguf-family.ts';
import { gemma2Names, type TensorNames } from './gguf-names.ts';

/** Divisor of the frequency of pairs that are not rotated. */
const UNROTATED = 1e30;
const byLayer = ['intermediate_size', 'num_key_value_heads', 'head_dim'];

/** Names of Gemma 4's own tensors. Some have no `.weight` in one of the formats. */
const gemma4Names: TensorNames = {
  ...gemma2Names,
  per_layer_token_embd: 'model.embed_tokens_per_layer',
  per_layer_model_proj: 'model.per_layer_model_projection',
  per_layer_proj_norm: 'model.per_layer_projection_norm',
  'blk.N.inp_gate': 'model.layers.N.per_layer_input_gate',
  'blk.N.proj': 'model.layers.N.per_layer_projection',
  'blk.N.post_norm': 'model.layers.N.post_per_layer_input_norm',
  'blk.N.layer_output_scale.weight': 'model.layers.N.layer_scalar',
  'blk.N.post_ffw_norm_1': 'model.layers.N.post_feedforward_layernorm_1',
  'blk.N.post_ffw_norm_2': 'model.layers.N.post_feedforward_layernorm_2',
  'blk.N.pre_ffw_norm_2': 'model.layers.N.pre_feedforward_layernorm_2',
  'blk.N.ffn_gate_inp': 'model.layers.N.router.proj',
  'blk.N.ffn_gate_inp.scale': 'model.layers.N.router.scale',
  'blk.N.ffn_gate_up_exps.weight': 'model.layers.N.experts.gate_up_proj',
  'blk.N.ffn_gate_exps.weight': 'model.layers.N.experts.gate_proj',
  'blk.N.ffn_up_exps.weight': 'model.layers.N.experts.up_proj',
  'blk.N.ffn_down_exps.weight': 'model.layers.N.experts.down_proj',
  'blk.N.ffn_down_exps.scale': 'model.layers.N.router.per_expert_scale',
};

function derived({ metadata, has, shapeOf }: GgufFacts, settings: Settings): Settings {
  const layers = Number(settings.num_hidden_layers);
  const sliding = metadata.flags('attention.sliding_window_pattern', layers);
  const kvHeads = metadata.sizes('attention.head_count_kv', layers);
  const ffn = metadata.sizes('feed_forward_length', layers);
  const shared = metadata.count('attention.shared_kv_layers') ?? 0;
  const full = sliding.indexOf(false);
  const headDim = metadata.size('attention.key_length');
  const experts = metadata.count('expert_count') ?? 0;
  const inputDim = metadata.count('embedding_length_per_layer_input') ?? 0;
  const base = metadata.positive('rope.freq_base', 1e6);
  return {
    layer_types: sliding.map((is) => (is ? 'sliding_attention' : 'full_attention')),
    intermediate_size: ffn[0],
    use_double_wide_mlp: ffn.at(-1) !== ffn[0],
    num_key_value_heads: kvHeads[Math.max(sliding.indexOf(true), 0)],
    num_global_key_value_heads: kvHeads[Math.max(full, 0)],
    attention_k_eq_v: full >= 0 && !has(`blk.${full}.attn_v.weight`),
    num_kv_shared_layers: shared,
    head_dim: metadata.size('attention.key_length_swa', headDim),
    global_head_dim: headDim,
    hidden_size_per_layer_input: inputDim,
    vocab_size_per_layer_input: shapeOf('per_layer_token_embd.weight')?.[0] ?? settings.vocab_size,
    enable_moe_block: experts > 0,
    ...(experts > 0 && {
      num_experts: experts,
      top_k_experts: metadata.size('expert_used_count'),
      moe_intermediate_size: metadata.size('expert_feed_forward_length'),
    }),
    rope_scaling: null,
    rope_parameters: {
      full_attention: {
        rope_type: 'proportional',
        rope_theta: base,
        partial_rotary_factor: rotatedPart(settings.rope_scaling, headDim),
      },
      sliding_attention: { rope_type: 'default', rope_theta: metadata.positive('rope.freq_base_swa', 10_000) },
    },
  };
}

/** The rotated fraction of a head: rotated pairs have the factor 1. */
function rotatedPart(scaling: unknown, headDim: number): number {
  const factors = (scaling as { short_factor?: readonly number[] } | null)?.short_factor;
  return factors ? (2 * factors.filter((factor) => factor === 1).length) / headDim : 1;
}

function metadataOf(settings: Settings, { layers, headDim, kvHeads, ffn }: ModelSizes): [string, GgufValue][] {
  const sliding =
    (settings.layer_types as readonly string[] | undefined)?.map((type) => type === 'sliding_attention') ??
    Array.from({ length: layers }, (_, i) => (i + 1) % 6 !== 0);
  sliding[layers - 1] = false;
  const number = (key: string, fallback: number): number => Number(settings[key] ?? fallback);
  const globalDim = number('global_head_dim', 512);
  const globalKv = settings.attention_k_eq_v === true ? number('num_global_key_value_heads', kvHeads) : kvHeads;
  const shared = number('num_kv_shared_layers', 0);
  const wide = settings.use_double_wide_mlp === true ? 2 : 1;
  const u32 = (value: number): GgufValue => ({ type: 'uint32', value });
  const f32 = (value: number): GgufValue => ({ type: 'float32', value });
  const list = (values: readonly number[]): GgufValue => ({
    type: 'array',
    of: 'int32',
    value: Int32Array.from(values),
  });
  const ropes = (settings.rope_parameters ?? {}) as Record<string, Settings | undefined>;
  return [
    ['attention.sliding_window_pattern', { type: 'array', of: 'bool', value: sliding }],
    ['attention.head_count_kv', list(sliding.map((is) => (is ? kvHeads : globalKv)))],
    ['feed_forward_length', list(sliding.map((_, i) => (i >= layers - shared ? ffn * wide : ffn)))],
    ['attention.shared_kv_layers', u32(shared)],
    ['embedding_length_per_layer_input', u32(number('hidden_size_per_layer_input', 256))],
    ['attention.key_length', u32(globalDim)],
    ['attention.value_length', u32(globalDim)],
    ['attention.key_length_swa', u32(headDim)],
    ['attention.value_length_swa', u32(headDim)],
    ['rope.dimension_count', u32(globalDim)],
    ['rope.dimension_count_swa', u32(headDim)],
    ['rope.freq_base', f32(Number(ropes.full_attention?.rope_theta ?? 1e6))],
    ['rope.freq_base_swa', f32(Number(ropes.sliding_attention?.rope_theta ?? 10_000))],
    ...(settings.enable_moe_block === true
      ? ([
          ['expert_count', u32(number('num_experts', 0))],
          ['expert_used_count', u32(number('top_k_experts', 0))],
          ['expert_feed_forward_length', u32(number('moe_intermediate_size', 0))],
        ] as [string, GgufValue][])
      : []),
  ];
}

/** Frequency factors of the layers with full attention, one per pair of a head. */
function ropeFactors(settings: Settings): Float32Array {
  const { full_attention: full } = (settings.rope_parameters ?? {}) as Record<string, Settings | undefined>;
  const headDim = Number(settings.global_head_dim ?? 512);
  const rotated = Math.floor((headDim * Number(full?.partial_rotary_factor ?? (full ? 1 : 0.25))) / 2);
  return Float32Array.from({ length: headDim / 2 }, (_, i) => (i < rotated ? 1 : UNROTATED));
}

export const gemma4Family: Family = {
  modelType: 'gemma4_text',
  names: gemma4Names,
  fields: [
    ...sizes.filter(({ setting }) => !byLayer.includes(setting)),
    rms,
    field('attention.sliding_window', 'size', 'sliding_window', { fallback: 512 }),
    field('final_logit_softcapping', 'positive', 'final_logit_softcapping', optional),
  ],
  constants: { hidden_activation: 'gelu_pytorch_tanh' },
  layerwise: true,
  derived,
  metadata: metadataOf,
  ropeFactors,
};
