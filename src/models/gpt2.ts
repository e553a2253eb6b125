/**
 * GPT-2 (Radford et al. 2019): learned positions, layer norms before each block, fused q/k/v stored [in, out], tanh
 * gelu, tied head.
 */
import type { Linear, Norm, PlanBuilder, Rows, Weight } from '../plan/builder.ts';
import type { Activation } from '../plan/step.ts';
import type { Architecture, ModelSizes } from './architecture.ts';
import { type Config, readActivation } from './config.ts';
import { eachLayer, logitsOf, type Tables, tables } from './decoder.ts';
import type { Manifest } from './weights.ts';

interface Gpt2Config extends ModelSizes {
  readonly epsilon: number;
  readonly activation: Activation;
  readonly scaleByLayer: boolean;
  readonly scaleByHeadDim: boolean;
}

interface Layer {
  readonly attentionNorm: Norm;
  readonly q: Linear;
  readonly k: Linear;
  readonly v: Linear;
  readonly o: Linear;
  readonly ffnNorm: Norm;
  readonly up: Linear;
  readonly down: Linear;
}

interface Weights extends Tables {
  readonly positions: Weight;
  readonly layers: readonly Layer[];
  readonly norm: Norm;
}

function read(json: Config): Gpt2Config {
  const [dim, heads] = [json.size('n_embd'), json.size('n_head')];
  if (dim % heads) json.fail('n_head', `a divisor of n_embd ${dim}`);
  return {
    layers: json.size('n_layer'),
    dim,
    heads,
    kvHeads: heads,
    headDim: dim / heads,
    ffn: json.size('n_inner', 4 * dim),
    vocab: json.size('vocab_size'),
    contextLength: json.size('n_positions', 1024),
    epsilon: json.positive('layer_norm_epsilon', 1e-5),
    activation: readActivation(json, 'activation_function', 'gelu_new'),
    scaleByLayer: json.flag('scale_attn_by_inverse_layer_idx', false),
    scaleByHeadDim: json.flag('scale_attn_weights', true),
    tied: json.flag('tie_word_embeddings', true),
  };
}

function weights(m: Manifest, c: Gpt2Config): Weights {
  m.ignore(/(^|\.)h\.\d+\.attn\.(bias|masked_bias)$/);
  const layer = (i: number): Layer => {
    const [file, ours] = [`transformer.h.${i}`, `layers.${i}`];
    const conv = (name: string, role: 'attention' | 'ffn', tensor: string, shape: readonly [number, number]): Linear =>
      m.linear(`${ours}.${name}`, role, `${file}.${tensor}`, shape, true, { transposed: true });
    return {
      attentionNorm: m.norm(`${ours}.attention.norm`, `${file}.ln_1`, c.dim, { bias: true }),
      ...m.fused(`${ours}.attention`, 'attention', `${file}.attn.c_attn`, {
        inputs: c.dim,
        bias: true,
        rows: { q: c.dim, k: c.dim, v: c.dim },
        transposed: true,
      }),
      o: conv('attention.o', 'attention', 'attn.c_proj', [c.dim, c.dim]),
      ffnNorm: m.norm(`${ours}.ffn.norm`, `${file}.ln_2`, c.dim, { bias: true }),
      up: conv('ffn.up', 'ffn', 'mlp.c_fc', [c.ffn, c.dim]),
      down: conv('ffn.down', 'ffn', 'mlp.c_proj', [c.dim, c.ffn]),
    };
  };
  return {
    ...tables(m, c, { embedding: 'transformer.wte' }),
    positions: m.matrix('positions', 'position', 'transformer.wpe.weight', [c.contextLength, c.dim]),
    layers: Array.from({ length: c.layers }, (_, i) => layer(i)),
    norm: m.norm('norm', 'transformer.ln_f', c.dim, { bias: true }),
  };
}

function block(p: PlanBuilder, c: Gpt2Config, l: Layer, x: Rows, index: number): void {
  p.scope('attention', () => {
    const h = p.layerNorm(x, l.attentionNorm, c.epsilon); // [T, dim]
    const scale = (c.scaleByHeadDim ? 1 / Math.sqrt(c.headDim) : 1) / (c.scaleByLayer ? index + 1 : 1);
    const cache = p.cache({ kvHeads: c.heads, headDim: c.headDim });
    const attended = p.attention(p.matmul(h, l.q), p.matmul(h, l.k), p.matmul(h, l.v), cache, c.heads, scale); // [T, dim]
    p.addMatmul(x, attended, l.o);
  });
  p.scope('ffn', () => {
    const h = p.layerNorm(x, l.ffnNorm, c.epsilon); // [T, dim]
    p.addMatmul(x, p.activate(c.activation, p.matmul(h, l.up)), l.down);
  });
}

function forward(p: PlanBuilder, c: Gpt2Config, w: Weights): Rows {
  const x = p.scope('embedding', () => {
    const rows = p.embedTokens(w.embedding); // [T, dim]
    p.addPositions(rows, w.positions);
    return rows;
  });
  eachLayer(p, w.layers, (l, i) => block(p, c, l, x, i));
  return logitsOf(p, x, (rows) => p.layerNorm(rows, w.norm, c.epsilon), w.output); // [W, vocab]
}

export const gpt2: Architecture<Gpt2Config, Weights> = {
  root: { root: 'transformer', embedding: 'wte', head: 'lm_head' },
  read,
  weights,
  forward,
};
