/**
 * ModernBERT (Warner et al. 2024): norms before each block, rope, a gated ffn. Every third layer attends to the whole
 * text, the others to a window on both sides, with another rope base.
 */
import type { Linear, Norm, PlanBuilder, Rows, Weight } from '../plan/builder.ts';
import type { RopeTable } from '../plan/rope.ts';
import type { Activation, CacheId, RopeId } from '../plan/step.ts';
import type { Architecture, ModelSizes } from './architecture.ts';
import { type Config, readActivation, readSizes, readSliding } from './config.ts';
import { eachLayer } from './decoder.ts';
import { readRope } from './rope.ts';
import type { Manifest } from './weights.ts';

interface ModernBertConfig extends ModelSizes {
  readonly epsilon: number;
  readonly activation: Activation;
  readonly biases: { readonly norm: boolean; readonly attention: boolean; readonly ffn: boolean };
  readonly ropes: { readonly local: RopeTable; readonly global: RopeTable };
  /** Keys that a token attends to in a local layer, itself included. */
  readonly window: number;
  /** Whether layer i is local. */
  readonly local: readonly boolean[];
}

interface Layer {
  /** None in the first layer, which follows the norm of the embedding. */
  readonly attentionNorm?: Norm;
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
  readonly embeddingNorm: Norm;
  readonly layers: readonly Layer[];
  readonly norm: Norm;
}

function read(json: Config): ModernBertConfig {
  const sizes = readSizes(json, { contextLength: 8192, tied: true });
  const every = json.size('global_attn_every_n_layers', 3);
  const rope = (name: 'local' | 'global', base: number, part: string): RopeTable =>
    readRope(json, `${name} rope`, sizes.headDim, { base, baseKey: `${name}_rope_theta`, part });
  return {
    ...sizes,
    epsilon: json.positive('norm_eps', 1e-5),
    activation: readActivation(json, 'hidden_activation', 'gelu'),
    biases: {
      norm: json.flag('norm_bias', false),
      attention: json.flag('attention_bias', false),
      ffn: json.flag('mlp_bias', false),
    },
    ropes: {
      local: rope('local', 10_000, 'sliding_attention'),
      global: rope('global', 160_000, 'full_attention'),
    },
    // local_attention / 2 keys on each side.
    window: 2 * Math.floor(json.size('local_attention', 128) / 2) + 1,
    local: readSliding(json, sizes.layers, (i) => i % every !== 0),
  };
}

function weights(m: Manifest, c: ModernBertConfig): Weights {
  const prefix = m.has('model.embeddings.tok_embeddings.weight') ? 'model.' : '';
  m.ignore(/^(head|decoder|classifier)\./);
  const norm = (name: string, tensor: string): Norm =>
    m.norm(name, `${prefix}${tensor}`, c.dim, { bias: c.biases.norm });
  const layer = (i: number): Layer => {
    const [file, ours] = [`layers.${i}`, `layers.${i}`];
    return {
      attentionNorm: i === 0 ? undefined : norm(`${ours}.attention.norm`, `${file}.attn_norm`),
      ...m.fused(`${ours}.attention`, 'attention', `${prefix}${file}.attn.Wqkv`, {
        inputs: c.dim,
        bias: c.biases.attention,
        rows: { q: c.dim, k: c.dim, v: c.dim },
      }),
      o: m.linear(`${ours}.attention.o`, 'attention', `${prefix}${file}.attn.Wo`, [c.dim, c.dim], c.biases.attention),
      ffnNorm: norm(`${ours}.ffn.norm`, `${file}.mlp_norm`),
      ...m.fused(`${ours}.ffn`, 'ffn', `${prefix}${file}.mlp.Wi`, {
        inputs: c.dim,
        bias: c.biases.ffn,
        rows: { gate: c.ffn, up: c.ffn },
      }),
      down: m.linear(`${ours}.ffn.down`, 'ffn', `${prefix}${file}.mlp.Wo`, [c.dim, c.ffn], c.biases.ffn),
    };
  };
  return {
    embedding: m.matrix('embedding', 'embedding', `${prefix}embeddings.tok_embeddings.weight`, [c.vocab, c.dim]),
    embeddingNorm: norm('embedding.norm', 'embeddings.norm'),
    layers: Array.from({ length: c.layers }, (_, i) => layer(i)),
    norm: norm('norm', 'final_norm'),
  };
}

/** Shared by the layers of one kind. */
interface Kind {
  readonly rope: RopeId;
  readonly cache: CacheId;
}

function block(p: PlanBuilder, c: ModernBertConfig, l: Layer, x: Rows, { rope, cache }: Kind): void {
  p.scope('attention', () => {
    const h = l.attentionNorm ? p.layerNorm(x, l.attentionNorm, c.epsilon) : x; // [T, dim]
    const [q, k] = [p.rotate(p.matmul(h, l.q), c.heads, rope), p.rotate(p.matmul(h, l.k), c.heads, rope)];
    const scale = 1 / Math.sqrt(c.headDim);
    p.addMatmul(x, p.attention(q, k, p.matmul(h, l.v), cache, c.heads, scale, { bidirectional: true }), l.o);
  });
  p.scope('ffn', () => {
    const h = p.layerNorm(x, l.ffnNorm, c.epsilon); // [T, dim]
    p.addMatmul(x, p.activate(c.activation, p.matmul(h, l.gate), p.matmul(h, l.up)), l.down);
  });
}

/** The last hidden state. [T, dim] */
function forward(p: PlanBuilder, c: ModernBertConfig, w: Weights): Rows {
  // All layers of a kind share one cache: keys and values are needed only within their layer.
  const kind = (rope: RopeTable, window?: number): Kind => ({
    rope: p.rope(rope),
    cache: p.cache({ kvHeads: c.kvHeads, headDim: c.headDim, window }),
  });
  const [local, global] = [kind(c.ropes.local, c.window), kind(c.ropes.global)];
  const x = p.scope('embedding', () => p.layerNorm(p.embedTokens(w.embedding), w.embeddingNorm, c.epsilon)); // [T, dim]
  eachLayer(p, w.layers, (l, i) => block(p, c, l, x, c.local[i] ? local : global));
  return p.scope('norm', () => p.layerNorm(x, w.norm, c.epsilon));
}

export const modernBert: Architecture<ModernBertConfig, Weights> = { kind: 'encoder', read, weights, forward };
