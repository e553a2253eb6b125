/**
 * GPT-NeoX (arXiv:2204.06745): layer norms, q, k and v fused head by head, rope over a quarter of each head, parallel
 * blocks.
 */
import type { Norm } from '../plan/builder.ts';
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

interface GptNeoXConfig extends LayerNormConfig {
  readonly attentionBias: boolean;
}

function read(json: Config): GptNeoXConfig {
  const sizes = readSizes(json, { contextLength: 2048, tied: false });
  return {
    ...sizes,
    kvHeads: sizes.heads,
    epsilon: json.positive('layer_norm_eps', 1e-5),
    activation: readActivation(json, 'hidden_act', 'gelu'),
    parallel: json.flag('use_parallel_residual', true),
    rope: readRope(json, 'rope', sizes.headDim, {
      baseKey: 'rotary_emb_base',
      rotated: 0.25,
      rotatedKey: 'rotary_pct',
    }),
    attentionBias: json.flag('attention_bias', true),
  };
}

function weights(m: Manifest, c: GptNeoXConfig): LayerNormWeights {
  m.ignore(/\.attention\.(bias|masked_bias)$/);
  const layer = (i: number): LayerNormLayer => {
    const [file, ours] = [`gpt_neox.layers.${i}`, `layers.${i}`];
    const norm = (name: string, tensor: string): Norm =>
      m.norm(`${ours}.${name}`, `${file}.${tensor}`, c.dim, { bias: true });
    return {
      attentionNorm: norm('attention.norm', 'input_layernorm'),
      ...m.fused(`${ours}.attention`, 'attention', `${file}.attention.query_key_value`, {
        inputs: c.dim,
        bias: c.attentionBias,
        rows: { q: c.dim, k: c.dim, v: c.dim },
        parts: c.heads,
      }),
      o: m.linear(`${ours}.attention.o`, 'attention', `${file}.attention.dense`, [c.dim, c.dim], c.attentionBias),
      ffnNorm: norm('ffn.norm', 'post_attention_layernorm'),
      up: m.linear(`${ours}.ffn.up`, 'ffn', `${file}.mlp.dense_h_to_4h`, [c.ffn, c.dim], true),
      down: m.linear(`${ours}.ffn.down`, 'ffn', `${file}.mlp.dense_4h_to_h`, [c.dim, c.ffn], true),
    };
  };
  return {
    ...tables(m, c, { embedding: 'gpt_neox.embed_in', output: 'embed_out' }),
    layers: Array.from({ length: c.layers }, (_, i) => layer(i)),
    norm: m.norm('norm', 'gpt_neox.final_layer_norm', c.dim, { bias: true }),
  };
}

export const gptNeoX: LayerNormDecoder<GptNeoXConfig> = {
  root: { root: 'gpt_neox', embedding: 'embed_in', head: 'embed_out' },
  read,
  weights,
  forward,
};
