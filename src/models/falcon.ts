/**
 * Falcon (arXiv:2311.16867), three generations in one config: RW (alibi, sequential blocks), 7B (one key/value head,
 * parallel blocks after one norm) and the new decoder architecture of 40B and 11B (grouped heads, two norms or one).
 */

import { pow } from '../numbers.ts';
import type { Norm } from '../plan/builder.ts';
import { type Config, readActivation } from './config.ts';
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

interface FalconConfig extends LayerNormConfig {
  readonly bias: boolean;
  readonly norms: 'in turns' | 'one' | 'two';
}

/**
 * Slopes of alibi (Press et al. 2021, arXiv:2108.12409) as in Falcon: a geometric series for the largest power of two
 * of heads, and every other term of the next finer series for the remaining heads. Powers of an f32.
 */
export function alibiSlopes(heads: number): number[] {
  const whole = 2 ** (31 - Math.clz32(heads));
  const base = (count: number): number => Math.fround(pow(2, -8 / count));
  return Array.from({ length: heads }, (_, h) =>
    h < whole ? pow(base(whole), h + 1) : pow(base(2 * whole), 2 * (h - whole) + 1),
  ).map(Math.fround);
}

function read(json: Config): FalconConfig {
  const dim = json.size('hidden_size');
  const heads = json.size('num_attention_heads');
  if (dim % heads) json.fail('num_attention_heads', `a divisor of hidden_size ${dim}`);
  const grouped = json.flag('new_decoder_architecture', false);
  const parallel = json.flag('parallel_attn', true);
  if (grouped && !parallel) json.fail('parallel_attn', 'true where new_decoder_architecture is');
  const single = !grouped && json.flag('multi_query', true);
  const kvHeads = grouped ? json.size('num_kv_heads', heads) : single ? 1 : heads;
  if (heads % kvHeads) json.fail('num_kv_heads', `a divisor of num_attention_heads ${heads}`);
  const twoNorms = grouped && json.size('num_ln_in_parallel_attn', 2) === 2;
  const headDim = dim / heads;
  return {
    heads,
    kvHeads,
    headDim,
    dim,
    layers: json.size('num_hidden_layers'),
    ffn: json.size('ffn_hidden_size', 4 * dim),
    vocab: json.size('vocab_size'),
    contextLength: json.size('max_position_embeddings', 2048),
    tied: json.flag('tie_word_embeddings', true),
    epsilon: json.positive('layer_norm_epsilon', 1e-5),
    activation: readActivation(json, 'activation', 'gelu'),
    parallel,
    ...(json.flag('alibi', false) ? { alibi: alibiSlopes(heads) } : { rope: readRope(json, 'rope', headDim) }),
    bias: json.flag('bias', false),
    norms: twoNorms ? 'two' : parallel ? 'one' : 'in turns',
  };
}

function weights(m: Manifest, c: FalconConfig): LayerNormWeights {
  const kv = c.kvHeads * c.headDim;
  const layer = (i: number): LayerNormLayer => {
    const [file, ours] = [`transformer.h.${i}`, `layers.${i}`];
    const norm = (name: string, tensor: string): Norm =>
      m.norm(`${ours}.${name}`, `${file}.${tensor}`, c.dim, { bias: true });
    return {
      attentionNorm: norm('attention.norm', c.norms === 'two' ? 'ln_attn' : 'input_layernorm'),
      ...m.fused(`${ours}.attention`, 'attention', `${file}.self_attention.query_key_value`, {
        inputs: c.dim,
        bias: c.bias,
        rows: { q: c.dim, k: kv, v: kv },
        // Per key/value head: its query heads, its key head, its value head.
        parts: c.kvHeads,
      }),
      o: m.linear(`${ours}.attention.o`, 'attention', `${file}.self_attention.dense`, [c.dim, c.dim], c.bias),
      ...(c.norms !== 'one' && {
        ffnNorm: norm('ffn.norm', c.norms === 'two' ? 'ln_mlp' : 'post_attention_layernorm'),
      }),
      up: m.linear(`${ours}.ffn.up`, 'ffn', `${file}.mlp.dense_h_to_4h`, [c.ffn, c.dim], c.bias),
      down: m.linear(`${ours}.ffn.down`, 'ffn', `${file}.mlp.dense_4h_to_h`, [c.dim, c.ffn], c.bias),
    };
  };
  return {
    ...tables(m, c, { embedding: 'transformer.word_embeddings' }),
    layers: Array.from({ length: c.layers }, (_, i) => layer(i)),
    norm: m.norm('norm', 'transformer.ln_f', c.dim, { bias: true }),
  };
}

export const falcon: LayerNormDecoder<FalconConfig> = {
  root: { root: 'transformer', embedding: 'word_embeddings', head: 'lm_head' },
  read,
  weights,
  forward,
};
