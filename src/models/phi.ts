/** Phi (arXiv:2309.05463): one layer norm before parallel attention and ffn, rope over half of each head, biases. */
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

interface PhiConfig extends LayerNormConfig {
  readonly headNorms: boolean;
}

function read(json: Config): PhiConfig {
  const sizes = readSizes(json, { contextLength: 2048, tied: false });
  return {
    ...sizes,
    epsilon: json.positive('layer_norm_eps', 1e-5),
    activation: readActivation(json, 'hidden_act', 'gelu_new'),
    parallel: true,
    rope: readRope(json, 'rope', sizes.headDim, { rotated: 0.5 }),
    headNorms: json.flag('qk_layernorm', false),
  };
}

function weights(m: Manifest, c: PhiConfig): LayerNormWeights {
  const [attended, kv] = [c.heads * c.headDim, c.kvHeads * c.headDim];
  const layer = (i: number): LayerNormLayer => {
    const [file, ours] = [`model.layers.${i}`, `layers.${i}`];
    const norm = (name: string, tensor: string, length: number): Norm =>
      m.norm(`${ours}.${name}`, `${file}.${tensor}`, length, { bias: true });
    const linear = (
      name: string,
      role: 'attention' | 'ffn',
      tensor: string,
      shape: readonly [number, number],
    ): Linear => m.linear(`${ours}.${name}`, role, `${file}.${tensor}`, shape, true);
    return {
      attentionNorm: norm('attention.norm', 'input_layernorm', c.dim),
      q: linear('attention.q', 'attention', 'self_attn.q_proj', [attended, c.dim]),
      k: linear('attention.k', 'attention', 'self_attn.k_proj', [kv, c.dim]),
      v: linear('attention.v', 'attention', 'self_attn.v_proj', [kv, c.dim]),
      ...(c.headNorms && {
        qNorm: norm('attention.q_norm', 'self_attn.q_layernorm', c.headDim),
        kNorm: norm('attention.k_norm', 'self_attn.k_layernorm', c.headDim),
      }),
      o: linear('attention.o', 'attention', 'self_attn.dense', [c.dim, attended]),
      up: linear('ffn.up', 'ffn', 'mlp.fc1', [c.ffn, c.dim]),
      down: linear('ffn.down', 'ffn', 'mlp.fc2', [c.dim, c.ffn]),
    };
  };
  return {
    ...tables(m, c, { bias: true }),
    layers: Array.from({ length: c.layers }, (_, i) => layer(i)),
    norm: m.norm('norm', 'model.final_layernorm', c.dim, { bias: true }),
  };
}

export const phi: LayerNormDecoder<PhiConfig> = { read, weights, forward };
