/**
 * OLMo 2 (arXiv:2501.00656): rms norms after each block instead of before, and over all of q and all of k; rope, gated
 * silu.
 */
import type { Linear, Norm, PlanBuilder, Rows } from '../plan/builder.ts';
import type { RopeId } from '../plan/step.ts';
import type { Architecture } from './architecture.ts';
import { eachLayer, logitsOf, type Tables, tables } from './decoder.ts';
import { type LlamaConfig, readLlama } from './llama.ts';
import type { Manifest } from './weights.ts';

interface Layer {
  readonly q: Linear;
  readonly k: Linear;
  readonly v: Linear;
  readonly qNorm: Norm;
  readonly kNorm: Norm;
  readonly o: Linear;
  readonly postAttentionNorm: Norm;
  readonly gate: Linear;
  readonly up: Linear;
  readonly down: Linear;
  readonly postFfnNorm: Norm;
}

interface Weights extends Tables {
  readonly layers: readonly Layer[];
  readonly norm: Norm;
}

function weights(m: Manifest, c: LlamaConfig): Weights {
  const [attended, kv] = [c.heads * c.headDim, c.kvHeads * c.headDim];
  const layer = (i: number): Layer => {
    const [file, ours] = [`model.layers.${i}`, `layers.${i}`];
    const norm = (name: string, tensor: string, length = c.dim): Norm =>
      m.norm(`${ours}.${name}`, `${file}.${tensor}`, length);
    const attention = (name: string, shape: readonly [number, number]): Linear =>
      m.linear(`${ours}.attention.${name}`, 'attention', `${file}.self_attn.${name}_proj`, shape, c.biases.qkv);
    const ffn = (name: string, shape: readonly [number, number]): Linear =>
      m.linear(`${ours}.ffn.${name}`, 'ffn', `${file}.mlp.${name}_proj`, shape, false);
    return {
      q: attention('q', [attended, c.dim]),
      k: attention('k', [kv, c.dim]),
      v: attention('v', [kv, c.dim]),
      qNorm: norm('attention.q_norm', 'self_attn.q_norm', attended),
      kNorm: norm('attention.k_norm', 'self_attn.k_norm', kv),
      o: attention('o', [c.dim, attended]),
      postAttentionNorm: norm('attention.post_norm', 'post_attention_layernorm'),
      gate: ffn('gate', [c.ffn, c.dim]),
      up: ffn('up', [c.ffn, c.dim]),
      down: ffn('down', [c.dim, c.ffn]),
      postFfnNorm: norm('ffn.post_norm', 'post_feedforward_layernorm'),
    };
  };
  return {
    ...tables(m, c),
    layers: Array.from({ length: c.layers }, (_, i) => layer(i)),
    norm: m.norm('norm', 'model.norm', c.dim),
  };
}

function block(p: PlanBuilder, c: LlamaConfig, l: Layer, x: Rows, rope: RopeId): void {
  p.scope('attention', () => {
    const q = p.rotate(p.rmsNorm(p.matmul(x, l.q), l.qNorm, c.epsilon), c.heads, rope); // [T, heads * headDim]
    const k = p.rotate(p.rmsNorm(p.matmul(x, l.k), l.kNorm, c.epsilon), c.kvHeads, rope); // [T, kvHeads * headDim]
    const cache = p.cache({ kvHeads: c.kvHeads, headDim: c.headDim });
    const attended = p.attention(q, k, p.matmul(x, l.v), cache, c.heads, c.attentionScale);
    p.add(x, p.rmsNorm(p.matmul(attended, l.o), l.postAttentionNorm, c.epsilon));
  });
  p.scope('ffn', () => {
    const inner = p.activate(c.activation, p.matmul(x, l.gate), p.matmul(x, l.up)); // [T, ffn]
    p.add(x, p.rmsNorm(p.matmul(inner, l.down), l.postFfnNorm, c.epsilon));
  });
}

function forward(p: PlanBuilder, c: LlamaConfig, w: Weights): Rows {
  const rope = p.rope(c.rope);
  const x = p.scope('embedding', () => p.embedTokens(w.embedding)); // [T, dim]
  eachLayer(p, w.layers, (l) => block(p, c, l, x, rope));
  return logitsOf(p, x, (rows) => p.rmsNorm(rows, w.norm, c.epsilon), w.output); // [W, vocab]
}

export const olmo2: Architecture<LlamaConfig, Weights> = {
  read: (json) => readLlama(json, { epsilon: 1e-5 }),
  weights,
  forward,
};
