/**
 * The architectures of GGUF: metadata keys and their settings in config.json, tensor names and row orders. Used for
 * reading and for writing GGUF.
 */
import {
  biases,
  decoder,
  encoder,
  experts,
  type Family,
  falconNorms,
  field,
  type GgufFacts,
  grouped,
  interleaved,
  layerNorm,
  optional,
  partialRotary,
  rope,
  silu,
  sizes,
  window,
} from './gguf-family.ts';
import { gemmaFamilies } from './gguf-gemma.ts';
import { mistral3Family } from './gguf-mistral3.ts';
import {
  bertNames,
  falcon40Names,
  falconNames,
  gpt2Names,
  gptNeoxNames,
  llamaNames,
  mixtralNames,
  nomicBertNames,
  olmo2Names,
  phi2Names,
  phi3Names,
  qwen3MoeNames,
  stablelmNames,
  starcoder2Names,
} from './gguf-names.ts';

const llama: Family = {
  modelType: 'llama',
  names: llamaNames,
  fields: decoder,
  constants: silu,
  derived: biases,
  rows: interleaved,
};
const qwen2: Family = { modelType: 'qwen2', names: llamaNames, fields: decoder, constants: silu };
const qwen3moe: Family = {
  ...qwen2,
  modelType: 'qwen3_moe',
  names: qwen3MoeNames,
  fields: [
    ...decoder,
    field('expert_count', 'size', 'num_experts'),
    field('expert_used_count', 'size', 'num_experts_per_tok'),
    field('expert_feed_forward_length', 'size', 'moe_intermediate_size'),
  ],
  constants: { ...silu, norm_topk_prob: true },
};
const falcon: Family = {
  modelType: 'falcon',
  names: falconNames,
  fields: [
    ...sizes.filter(({ setting }) => setting !== 'num_key_value_heads'),
    field('attention.head_count_kv', 'size', 'num_kv_heads', { fallback: 1 }),
    layerNorm('layer_norm_epsilon'),
    rope,
  ],
  constants: { parallel_attn: true, bias: false, alibi: false, activation: 'gelu' },
  derived: falconNorms,
  rows: grouped,
};

/** By `general.architecture`. */
const families: Readonly<Record<string, Family>> = {
  llama,
  qwen2,
  qwen3: { ...qwen2, modelType: 'qwen3' },
  qwen3moe,
  mistral3: mistral3Family,
  qwen2vl: qwen2,
  qwen3vl: { ...qwen2, modelType: 'qwen3' },
  qwen3vlmoe: qwen3moe,
  smollm3: { ...llama, modelType: 'smollm3', constants: { ...silu, no_rope_layer_interval: 4 } },
  granite: {
    ...llama,
    modelType: 'granite',
    fields: [
      ...decoder,
      field('embedding_scale', 'positive', 'embedding_multiplier', { fallback: 1 }),
      field('residual_scale', 'positive', 'residual_multiplier', { fallback: 1 }),
      field('attention.scale', 'positive', 'attention_multiplier', optional),
      field('logit_scale', 'positive', 'logits_scaling', { fallback: 1 }),
    ],
  },
  phi3: {
    modelType: 'phi3',
    names: phi3Names,
    fields: [
      ...decoder,
      window,
      field('rope.scaling.original_context_length', 'size', 'original_max_position_embeddings', optional),
    ],
    constants: silu,
    derived: partialRotary('partial_rotary_factor'),
  },
  ...gemmaFamilies,
  olmo2: { ...qwen2, modelType: 'olmo2', names: olmo2Names },
  stablelm: {
    modelType: 'stablelm',
    names: stablelmNames,
    fields: [
      ...sizes,
      layerNorm('layer_norm_eps'),
      rope,
      field('use_parallel_residual', 'flag', 'use_parallel_residual', { fallback: false }),
    ],
    constants: silu,
    derived: (file, settings) => ({
      ...partialRotary('partial_rotary_factor')(file, settings),
      use_qkv_bias: file.has('blk.0.attn_q.bias'),
      qk_layernorm: file.has('blk.0.attn_q_norm.weight'),
    }),
  },
  starcoder2: {
    modelType: 'starcoder2',
    names: starcoder2Names,
    fields: [...sizes, layerNorm('norm_epsilon'), rope, window],
    constants: { hidden_act: 'gelu_pytorch_tanh' },
    derived: ({ has }) => ({ use_bias: has('blk.0.attn_q.bias') }),
  },
  phi2: {
    modelType: 'phi',
    names: phi2Names,
    fields: [...sizes, layerNorm('layer_norm_eps'), rope],
    constants: { hidden_act: 'gelu_new' },
    derived: partialRotary('partial_rotary_factor'),
  },
  gptneox: {
    modelType: 'gpt_neox',
    names: gptNeoxNames,
    fields: [
      ...sizes,
      layerNorm('layer_norm_eps'),
      rope,
      field('use_parallel_residual', 'flag', 'use_parallel_residual', { fallback: true }),
    ],
    constants: { hidden_act: 'gelu' },
    derived: partialRotary('rotary_pct'),
    rows: grouped,
  },
  falcon,
  bert: { modelType: 'bert', names: bertNames, fields: encoder, constants: { hidden_act: 'gelu' }, encoder: true },
  'nomic-bert': {
    modelType: 'nomic_bert',
    names: nomicBertNames,
    fields: [...encoder, field('rope.freq_base', 'positive', 'rope_theta', { fallback: 1000 })],
    constants: silu,
    encoder: true,
  },
  gpt2: {
    modelType: 'gpt2',
    names: gpt2Names,
    fields: [
      field('context_length', 'size', 'n_positions'),
      field('embedding_length', 'size', 'n_embd'),
      field('block_count', 'size', 'n_layer'),
      field('feed_forward_length', 'size', 'n_inner'),
      field('attention.head_count', 'size', 'n_head'),
      layerNorm('layer_norm_epsilon'),
    ],
    constants: { activation_function: 'gelu_new' },
    transposed: /\.(attn_qkv|attn_output|ffn_up|ffn_down)\.weight$/,
  },
};

/** Architectures of several families: llama with experts is Mixtral, with a window Mistral; Falcon has 1 or 2 norms. */
const variants: readonly {
  readonly of: string;
  readonly when: (file: GgufFacts) => boolean;
  readonly family: Family;
}[] = [
  {
    of: 'llama',
    when: ({ metadata }) => (metadata.count('expert_count') ?? 0) > 0,
    family: {
      ...llama,
      modelType: 'mixtral',
      names: mixtralNames,
      fields: [...decoder, ...experts, window],
      constants: { ...silu, sliding_window: null },
      derived: undefined,
    },
  },
  {
    of: 'llama',
    when: ({ metadata }) => (metadata.count('attention.sliding_window') ?? 0) > 0,
    family: { ...llama, modelType: 'mistral', fields: [...decoder, window], derived: undefined },
  },
  {
    of: 'falcon',
    when: ({ has }) => has('blk.0.attn_norm_2.weight'),
    family: { ...falcon, names: falcon40Names },
  },
];

export const ggufArchitectures: readonly string[] = Object.keys(families);

/** The family of a file; undefined if the architecture is unknown. */
export function familyOf(file: GgufFacts): Family | undefined {
  const { architecture } = file.metadata;
  if (!Object.hasOwn(families, architecture)) return undefined;
  return variants.find(({ of, when }) => of === architecture && when(file))?.family ?? families[architecture];
}

/** Families, with their architectures, that a model may be written as. */
export function familiesOf(modelType: string): readonly { readonly architecture: string; readonly family: Family }[] {
  const all = [
    ...variants.map(({ of, family }) => ({ architecture: of, family })),
    ...Object.entries(families).map(([architecture, family]) => ({ architecture, family })),
  ];
  return all.filter(({ family }) => family.modelType === modelType);
}
