/** Published models without their weights: config.json and the name, dtype and shape of every tensor. */
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Dtype } from '../src/formats/safetensors.ts';

/** Values that replace the real ones: random around 0, random around 1, or a causal mask of ones and zeros. */
export type Fill = 'zero-mean' | 'one-mean' | 'causal-mask';

export interface ShapeTensor {
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly fill: Fill;
}

export interface ModelShape {
  readonly config: Readonly<Record<string, unknown>>;
  readonly generationConfig: Readonly<Record<string, unknown>>;
  readonly tokenizer: 'gpt2' | 'llama' | 'gemma';
  readonly vocab: number;
  /** Dtype as published. */
  readonly dtype: Dtype;
  /** In the order of the file. */
  readonly tensors: ReadonlyMap<string, ShapeTensor>;
}

type Add = (name: string, shape: number[], fill?: Fill) => void;

function collect(dtype: Dtype, build: (add: Add) => void): Map<string, ShapeTensor> {
  const tensors = new Map<string, ShapeTensor>();
  build((name, shape, fill = 'zero-mean') => tensors.set(name, { dtype, shape, fill }));
  return tensors;
}

/** GPT-2 as published at the hub: no `transformer.` prefix, causal masks, linear layers [in, out], tied. */
export function gpt2Shape(size: {
  dim: number;
  layers: number;
  heads: number;
  vocab: number;
  context: number;
  dtype: Dtype;
}): ModelShape {
  const { dim, layers, heads, vocab, context, dtype } = size;
  const linear = (add: Add, name: string, input: number, output: number): void => {
    add(`${name}.weight`, [input, output]);
    add(`${name}.bias`, [output]);
  };
  const norm = (add: Add, name: string): void => {
    add(`${name}.weight`, [dim], 'one-mean');
    add(`${name}.bias`, [dim]);
  };
  const tensors = collect(dtype, (add) => {
    add('wte.weight', [vocab, dim]);
    add('wpe.weight', [context, dim]);
    for (let i = 0; i < layers; i++) {
      norm(add, `h.${i}.ln_1`);
      add(`h.${i}.attn.bias`, [1, 1, context, context], 'causal-mask');
      linear(add, `h.${i}.attn.c_attn`, dim, 3 * dim);
      linear(add, `h.${i}.attn.c_proj`, dim, dim);
      norm(add, `h.${i}.ln_2`);
      linear(add, `h.${i}.mlp.c_fc`, dim, 4 * dim);
      linear(add, `h.${i}.mlp.c_proj`, 4 * dim, dim);
    }
    norm(add, 'ln_f');
  });
  const end = vocab - 1;
  const config = {
    activation_function: 'gelu_new',
    architectures: ['GPT2LMHeadModel'],
    attn_pdrop: 0.1,
    bos_token_id: end,
    embd_pdrop: 0.1,
    eos_token_id: end,
    initializer_range: 0.02,
    layer_norm_epsilon: 1e-5,
    model_type: 'gpt2',
    n_ctx: context,
    n_embd: dim,
    n_head: heads,
    n_layer: layers,
    n_positions: context,
    resid_pdrop: 0.1,
    vocab_size: vocab,
  };
  const generationConfig = { _from_model_config: true, bos_token_id: end, eos_token_id: end };
  return { config, generationConfig, tokenizer: 'gpt2', vocab, dtype, tensors };
}

interface DecoderSize {
  readonly dim: number;
  readonly ffn: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly vocab: number;
  readonly context: number;
  readonly dtype: Dtype;
}

/** Tensors of Llama and related models. Linear layers are [out, in]. */
function decoderTensors(
  { dim, ffn, layers, heads, kvHeads, headDim, vocab, dtype }: DecoderSize,
  extra: { normFill: Fill; layerNorms: readonly (readonly [name: string, width: number])[]; tied: boolean },
): Map<string, ShapeTensor> {
  return collect(dtype, (add) => {
    if (!extra.tied) add('lm_head.weight', [vocab, dim]);
    add('model.embed_tokens.weight', [vocab, dim]);
    for (let i = 0; i < layers; i++) {
      const layer = `model.layers.${i}`;
      for (const [name, width] of extra.layerNorms) add(`${layer}.${name}.weight`, [width], extra.normFill);
      add(`${layer}.self_attn.q_proj.weight`, [heads * headDim, dim]);
      add(`${layer}.self_attn.k_proj.weight`, [kvHeads * headDim, dim]);
      add(`${layer}.self_attn.v_proj.weight`, [kvHeads * headDim, dim]);
      add(`${layer}.self_attn.o_proj.weight`, [dim, heads * headDim]);
      add(`${layer}.mlp.gate_proj.weight`, [ffn, dim]);
      add(`${layer}.mlp.up_proj.weight`, [ffn, dim]);
      add(`${layer}.mlp.down_proj.weight`, [dim, ffn]);
    }
    add('model.norm.weight', [dim], extra.normFill);
  });
}

/** Llama, with a separate output head. */
export function llamaShape(size: Omit<DecoderSize, 'headDim'> & { normEpsilon: number }): ModelShape {
  const { dim, ffn, layers, heads, kvHeads, vocab, context, dtype, normEpsilon } = size;
  const tensors = decoderTensors(
    { ...size, headDim: dim / heads },
    {
      normFill: 'one-mean',
      layerNorms: [
        ['input_layernorm', dim],
        ['post_attention_layernorm', dim],
      ],
      tied: false,
    },
  );
  const config = {
    architectures: ['LlamaForCausalLM'],
    attention_bias: false,
    bos_token_id: 1,
    eos_token_id: 2,
    hidden_act: 'silu',
    hidden_size: dim,
    initializer_range: 0.02,
    intermediate_size: ffn,
    max_position_embeddings: context,
    model_type: 'llama',
    num_attention_heads: heads,
    num_hidden_layers: layers,
    num_key_value_heads: kvHeads,
    pretraining_tp: 1,
    rms_norm_eps: normEpsilon,
    rope_scaling: null,
    rope_theta: 10000,
    tie_word_embeddings: false,
    torch_dtype: torchDtype(dtype),
    use_cache: true,
    vocab_size: vocab,
  };
  return { config, generationConfig: { bos_token_id: 1, eos_token_id: 2 }, tokenizer: 'llama', vocab, dtype, tensors };
}

/** Gemma 3, text only, tied. Its norms multiply by 1 + weight, so weights around 0 are norms around 1. */
export function gemma3Shape(size: DecoderSize & { window: number; pattern: number; queryScalar: number }): ModelShape {
  const { dim, ffn, layers, heads, kvHeads, headDim, vocab, context, dtype, window, pattern, queryScalar } = size;
  const tensors = decoderTensors(size, {
    normFill: 'zero-mean',
    layerNorms: [
      ['input_layernorm', dim],
      ['post_attention_layernorm', dim],
      ['pre_feedforward_layernorm', dim],
      ['post_feedforward_layernorm', dim],
      ['self_attn.q_norm', headDim],
      ['self_attn.k_norm', headDim],
    ],
    tied: true,
  });
  const endIds = [1, 106].filter((id) => id < vocab);
  const config = {
    architectures: ['Gemma3ForCausalLM'],
    attention_bias: false,
    attention_dropout: 0,
    attn_logit_softcapping: null,
    bos_token_id: 2,
    cache_implementation: 'hybrid',
    eos_token_id: endIds,
    final_logit_softcapping: null,
    head_dim: headDim,
    hidden_activation: 'gelu_pytorch_tanh',
    hidden_size: dim,
    initializer_range: 0.02,
    intermediate_size: ffn,
    max_position_embeddings: context,
    model_type: 'gemma3_text',
    num_attention_heads: heads,
    num_hidden_layers: layers,
    num_key_value_heads: kvHeads,
    pad_token_id: 0,
    query_pre_attn_scalar: queryScalar,
    rms_norm_eps: 1e-6,
    rope_local_base_freq: 10000,
    rope_scaling: null,
    rope_theta: 1000000,
    sliding_window: window,
    sliding_window_pattern: pattern,
    torch_dtype: torchDtype(dtype),
    use_cache: true,
    vocab_size: vocab,
  };
  const generationConfig = { bos_token_id: 2, cache_implementation: 'hybrid', eos_token_id: endIds, pad_token_id: 0 };
  return { config, generationConfig, tokenizer: 'gemma', vocab, dtype, tensors };
}

function torchDtype(dtype: Dtype): string {
  const names: Partial<Record<Dtype, string>> = { F32: 'float32', F16: 'float16', BF16: 'bfloat16' };
  return names[dtype]!;
}

export type ShapeName = 'gpt2' | 'gemma3-1b' | 'llama-160m' | 'tinyllama-1.1b' | 'llama-7b';

/** Shapes by name; `dtype` replaces the published one. */
const shapes: Readonly<Record<ShapeName, (dtype?: Dtype) => ModelShape>> = {
  gpt2: (dtype = 'F32') => gpt2Shape({ dim: 768, layers: 12, heads: 12, vocab: 50257, context: 1024, dtype }),
  'gemma3-1b': (dtype = 'BF16') =>
    gemma3Shape({
      dim: 1152,
      ffn: 6912,
      layers: 26,
      heads: 4,
      kvHeads: 1,
      headDim: 256,
      vocab: 262144,
      context: 32768,
      window: 512,
      pattern: 6,
      queryScalar: 256,
      dtype,
    }),
  'llama-160m': (dtype = 'F32') =>
    llamaShape({
      dim: 768,
      ffn: 3072,
      layers: 12,
      heads: 12,
      kvHeads: 12,
      vocab: 32000,
      context: 2048,
      normEpsilon: 1e-6,
      dtype,
    }),
  'tinyllama-1.1b': (dtype = 'BF16') =>
    llamaShape({
      dim: 2048,
      ffn: 5632,
      layers: 22,
      heads: 32,
      kvHeads: 4,
      vocab: 32000,
      context: 2048,
      normEpsilon: 1e-5,
      dtype,
    }),
  'llama-7b': (dtype = 'F16') =>
    llamaShape({
      dim: 4096,
      ffn: 11008,
      layers: 32,
      heads: 32,
      kvHeads: 32,
      vocab: 32000,
      context: 4096,
      normEpsilon: 1e-5,
      dtype,
    }),
};

/** Folder of the models that benches have written. */
export const benchModels = join(tmpdir(), 'lanewise-bench-models');

export const shapeNames = Object.keys(shapes) as ShapeName[];

export const isShapeName = (name: string): name is ShapeName => Object.hasOwn(shapes, name);

export function modelShape(name: ShapeName, dtype?: Dtype): ModelShape {
  return shapes[name](dtype);
}

/** config.json of a published model. */
export function shapeConfig(name: ShapeName): Readonly<Record<string, unknown>> {
  return modelShape(name).config;
}

/** Every tensor of a published model. */
export function shapeTensors(name: ShapeName): ReadonlyMap<string, ShapeTensor> {
  return modelShape(name).tensors;
}
