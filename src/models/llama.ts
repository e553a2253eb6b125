/**
 * Llama (Touvron et al. 2023) and what differs from it by settings only: grouped heads, rope with scaling, rms norms in
 * front, gated silu. Mistral adds a sliding window (mistral.ts).
 */
import type { Linear, Norm, PlanBuilder, Rows, Weight } from '../plan/builder.ts';
import type { RopeTable } from '../plan/rope.ts';
import type { Activation, RopeId } from '../plan/step.ts';
import { type Config, headSizes, readRope } from './config.ts';
import type { Architecture, Sizes } from './index.ts';
import type { Manifest } from './weights.ts';

export interface LlamaConfig extends Sizes {
  readonly epsilon: number;
  readonly activation: Activation;
  readonly rope: RopeTable;
  readonly attentionBias: boolean;
  readonly ffnBias: boolean;
  /** Keys that a token sees, itself included; undefined: all. */
  readonly window?: number;
}

interface Layer {
  readonly attentionNorm: Norm;
  readonly q: Linear;
  readonly k: Linear;
  readonly v: Linear;
  readonly o: Linear;
  readonly ffnNorm: Norm;
  readonly gate: Linear;
  readonly up: Linear;
  readonly down: Linear;
}

interface Weights {
  readonly embedding: Weight;
  readonly layers: readonly Layer[];
  readonly norm: Norm;
  readonly output: Linear;
}

export function readLlama(json: Config): LlamaConfig {
  const dim = json.size('hidden_size');
  const sizes = headSizes(json, dim);
  return {
    ...sizes,
    dim,
    layers: json.size('num_hidden_layers'),
    ffn: json.size('intermediate_size'),
    vocab: json.size('vocab_size'),
    contextLength: json.size('max_position_embeddings', 2048),
    epsilon: json.positive('rms_norm_eps', 1e-6),
    activation: json.choice(
      'hidden_act',
      { silu: 'silu', gelu: 'gelu', gelu_pytorch_tanh: 'gelu_tanh', relu: 'relu' },
      'silu',
    ),
    rope: readRope(json, 'rope', sizes.headDim),
    attentionBias: json.flag('attention_bias', false),
    ffnBias: json.flag('mlp_bias', false),
    tied: json.flag('tie_word_embeddings', false),
  };
}

function weights(m: Manifest, c: LlamaConfig): Weights {
  m.ignore(/\.rotary_emb\.inv_freq$/);
  const table = 'model.embed_tokens.weight';
  if (c.tied) m.ignore(/^lm_head\.weight$/);
  const head = c.tied
    ? m.tied(table, [c.vocab, c.dim])
    : {
        embedding: m.matrix('embedding', 'embedding', table, [c.vocab, c.dim]),
        output: m.linear('output', 'output', 'lm_head', [c.vocab, c.dim], false),
      };
  const [attended, kv] = [c.heads * c.headDim, c.kvHeads * c.headDim];
  const layer = (i: number): Layer => {
    const [file, ours] = [`model.layers.${i}`, `layers.${i}`];
    const attention = (name: string, shape: readonly [number, number]): Linear =>
      m.linear(`${ours}.attention.${name}`, 'attention', `${file}.self_attn.${name}_proj`, shape, c.attentionBias);
    const ffn = (name: string, shape: readonly [number, number]): Linear =>
      m.linear(`${ours}.ffn.${name}`, 'ffn', `${file}.mlp.${name}_proj`, shape, c.ffnBias);
    return {
      attentionNorm: m.norm(`${ours}.attention.norm`, `${file}.input_layernorm`, c.dim),
      q: attention('q', [attended, c.dim]),
      k: attention('k', [kv, c.dim]),
      v: attention('v', [kv, c.dim]),
      o: attention('o', [c.dim, attended]),
      ffnNorm: m.norm(`${ours}.ffn.norm`, `${file}.post_attention_layernorm`, c.dim),
      gate: ffn('gate', [c.ffn, c.dim]),
      up: ffn('up', [c.ffn, c.dim]),
      down: ffn('down', [c.dim, c.ffn]),
    };
  };
  return {
    ...head,
    layers: Array.from({ length: c.layers }, (_, i) => layer(i)),
    norm: m.norm('norm', 'model.norm', c.dim),
  };
}

function block(p: PlanBuilder, c: LlamaConfig, l: Layer, x: Rows, rope: RopeId): void {
  p.scope('attention', () => {
    const h = p.rmsNorm(x, l.attentionNorm, c.epsilon); // [T, dim]
    const q = p.rotate(p.matmul(h, l.q), c.heads, rope); // [T, heads * headDim]
    const k = p.rotate(p.matmul(h, l.k), c.kvHeads, rope); // [T, kvHeads * headDim]
    const cache = p.cache({ kvHeads: c.kvHeads, headDim: c.headDim, window: c.window });
    p.addMatmul(x, p.attention(q, k, p.matmul(h, l.v), cache, c.heads, 1 / Math.sqrt(c.headDim)), l.o);
  });
  p.scope('ffn', () => {
    const h = p.rmsNorm(x, l.ffnNorm, c.epsilon); // [T, dim]
    p.addMatmul(x, p.activate(c.activation, p.matmul(h, l.gate), p.matmul(h, l.up)), l.down);
  });
}

function forward(p: PlanBuilder, c: LlamaConfig, w: Weights): Rows {
  const rope = p.rope(c.rope);
  const x = p.scope('embedding', () => p.embedTokens(w.embedding)); // [T, dim]
  p.tap('hidden.0', x);
  for (const [i, l] of w.layers.entries()) {
    p.scope(`layer[${i}]`, () => block(p, c, l, x, rope));
    p.tap(`hidden.${i + 1}`, x);
  }
  const last = p.scope('norm', () => p.rmsNorm(p.wantedRows(x), w.norm, c.epsilon)); // [W, dim]
  p.tap('final', last);
  return p.scope('projection', () => p.matmul(last, w.output)); // [W, vocab]
}

export const llama: Architecture<LlamaConfig, Weights> = { read: readLlama, weights, forward };
