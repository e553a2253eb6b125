/** StarCoder 2 (arXiv:2402.19173): layer norms, grouped heads, rope, a window, biases, plain tanh gelu, tied head. */
import type { Linear, Norm } from '../plan/builder.ts';
import { type Config, readActivation, readSizes } from './config.ts';
import { tables } from './decoder.ts';
import {
  forward,
  type LayerNormConfig,
  type LayerNormDecoder,
  type LayerNormLayer,
  type LayerNormWeights,
} from './layer-norm.ts';
import { readRope } from './rope.ts';
import type { Manifest } from './weights.ts';

interface StarCoder2Config extends LayerNormConfig {
  readonly bias: boolean;
}

function read(json: Config): StarCoder2Config {
  const sizes = readSizes(json, { kvHeads: 2, contextLength: 4096, tied: true });
  return {
    ...sizes,
    epsilon: json.positive('norm_epsilon', 1e-5),
    activation: readActivation(json, 'hidden_act', 'gelu_pytorch_tanh'),
    parallel: false,
    rope: readRope(json, 'rope', sizes.headDim),
    window: json.optional('sliding_window', 'size'),
    bias: json.flag('use_bias', true),
  };
}

function weights(m: Manifest, c: StarCoder2Config): LayerNormWeights {
  const [attended, kv] = [c.heads * c.headDim, c.kvHeads * c.headDim];
  const layer = (i: number): LayerNormLayer => {
    const [file, ours] = [`model.layers.${i}`, `layers.${i}`];
    const norm = (name: string, tensor: string): Norm =>
      m.norm(`${ours}.${name}`, `${file}.${tensor}`, c.dim, { bias: true });
    const linear = (
      name: string,
      role: 'attention' | 'ffn',
      tensor: string,
      shape: readonly [number, number],
    ): Linear => m.linear(`${ours}.${name}`, role, `${file}.${tensor}`, shape, c.bias);
    return {
      attentionNorm: norm('attention.norm', 'input_layernorm'),
      q: linear('attention.q', 'attention', 'self_attn.q_proj', [attended, c.dim]),
      k: linear('attention.k', 'attention', 'self_attn.k_proj', [kv, c.dim]),
      v: linear('attention.v', 'attention', 'self_attn.v_proj', [kv, c.dim]),
      o: linear('attention.o', 'attention', 'self_attn.o_proj', [c.dim, attended]),
      ffnNorm: norm('ffn.norm', 'post_attention_layernorm'),
      up: linear('ffn.up', 'ffn', 'mlp.c_fc', [c.ffn, c.dim]),
      down: linear('ffn.down', 'ffn', 'mlp.c_proj', [c.dim, c.ffn]),
    };
  };
  return {
    ...tables(m, c),
    layers: Array.from({ length: c.layers }, (_, i) => layer(i)),
    norm: m.norm('norm', 'model.norm', c.dim, { bias: true }),
  };
}

export const starcoder2: LayerNormDecoder<StarCoder2Config> = { read, weights, forward };
