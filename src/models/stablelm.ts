/**
 * StableLM (Stability AI 2024): layer norms, rope over a quarter of each head, gated silu; sequential or parallel
 * blocks.
 */
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

interface StableLmConfig extends LayerNormConfig {
  readonly qkvBias: boolean;
  /** Whether heads of q and k are normalized, each head with its own tensor. */
  readonly headNorms: boolean;
}

function read(json: Config): StableLmConfig {
  const sizes = readSizes(json, { kvHeads: 32, contextLength: 4096, tied: false });
  return {
    ...sizes,
    epsilon: json.positive('layer_norm_eps', 1e-5),
    activation: readActivation(json, 'hidden_act', 'silu'),
    parallel: json.flag('use_parallel_residual', false),
    rope: readRope(json, 'rope', sizes.headDim, { rotated: 0.25 }),
    qkvBias: json.flag('use_qkv_bias', false),
    headNorms: json.flag('qk_layernorm', false),
  };
}

function weights(m: Manifest, c: StableLmConfig): LayerNormWeights {
  const [attended, kv] = [c.heads * c.headDim, c.kvHeads * c.headDim];
  const layer = (i: number): LayerNormLayer => {
    const [file, ours] = [`model.layers.${i}`, `layers.${i}`];
    const norm = (name: string, tensor: string): Norm =>
      m.norm(`${ours}.${name}`, `${file}.${tensor}`, c.dim, { bias: true });
    const attention = (name: string, shape: readonly [number, number], bias: boolean): Linear =>
      m.linear(`${ours}.attention.${name}`, 'attention', `${file}.self_attn.${name}_proj`, shape, bias);
    const ffn = (name: string, shape: readonly [number, number]): Linear =>
      m.linear(`${ours}.ffn.${name}`, 'ffn', `${file}.mlp.${name}_proj`, shape, false);
    const headNorm = (name: string, tensor: string, heads: number): Norm => {
      const tensors = Array.from({ length: heads }, (_, h) => `${file}.self_attn.${tensor}.norms.${h}.weight`);
      return { weight: m.joined(`${ours}.attention.${name}`, 'norm', tensors, heads * c.headDim) };
    };
    return {
      attentionNorm: norm('attention.norm', 'input_layernorm'),
      q: attention('q', [attended, c.dim], c.qkvBias),
      k: attention('k', [kv, c.dim], c.qkvBias),
      v: attention('v', [kv, c.dim], c.qkvBias),
      ...(c.headNorms && {
        qNorm: headNorm('q_norm', 'q_layernorm', c.heads),
        kNorm: headNorm('k_norm', 'k_layernorm', c.kvHeads),
      }),
      o: attention('o', [c.dim, attended], false),
      ...(!c.parallel && { ffnNorm: norm('ffn.norm', 'post_attention_layernorm') }),
      gate: ffn('gate', [c.ffn, c.dim]),
      up: ffn('up', [c.ffn, c.dim]),
      down: ffn('down', [c.dim, c.ffn]),
    };
  };
  return {
    ...tables(m, c),
    layers: Array.from({ length: c.layers }, (_, i) => layer(i)),
    norm: m.norm('norm', 'model.norm', c.dim, { bias: true }),
  };
}

export const stablelm: LayerNormDecoder<StableLmConfig> = { read, weights, forward };
