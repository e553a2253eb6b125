/**
 * BERT (Devlin et al. 2019): token types, learned positions, and norms after each block. The forward also serves
 * NomicBERT, which has rope, a gated ffn and fewer biases.
 */
import type { Linear, Norm, PlanBuilder, Rows, Weight } from '../plan/builder.ts';
import type { RopeTable } from '../plan/rope.ts';
import type { Activation, CacheId, RopeId } from '../plan/step.ts';
import type { Architecture, ModelSizes } from './architecture.ts';
import { type Config, readActivation, readSizes } from './config.ts';
import type { Manifest } from './weights.ts';

export interface BertConfig extends ModelSizes {
  readonly epsilon: number;
  readonly activation: Activation;
  /** Number of token types, which tell the texts of a pair apart. */
  readonly types: number;
  /** Undefined: learned positions. */
  readonly rope?: RopeTable;
}

export interface BertLayer {
  readonly q: Linear;
  readonly k: Linear;
  readonly v: Linear;
  readonly o: Linear;
  readonly attentionNorm: Norm;
  readonly gate?: Linear;
  readonly up: Linear;
  readonly down: Linear;
  readonly ffnNorm: Norm;
}

export interface BertWeights {
  readonly embedding: Weight;
  readonly types: Weight;
  readonly positions?: Weight;
  readonly norm: Norm;
  readonly layers: readonly BertLayer[];
}

function read(json: Config): BertConfig {
  if (json.text('position_embedding_type', 'absolute') !== 'absolute') json.fail('position_embedding_type', 'absolute');
  if (json.flag('is_decoder', false)) json.fail('is_decoder', 'false: decoders of this type are not supported');
  return {
    ...readSizes(json, { contextLength: 512, tied: true }),
    epsilon: json.positive('layer_norm_eps', 1e-12),
    activation: readActivation(json, 'hidden_act', 'gelu'),
    types: json.size('type_vocab_size', 2),
  };
}

/** The prefix of tensor names in this file. Ignores the tensors of task heads. */
export function bertPrefix(m: Manifest): string {
  m.ignore(/^(bert\.)?(pooler|cls|classifier|qa_outputs)\.|(^|\.)embeddings\.position_ids$/);
  return m.has('bert.embeddings.word_embeddings.weight') ? 'bert.' : '';
}

function weights(m: Manifest, c: BertConfig): BertWeights {
  const prefix = bertPrefix(m);
  const table = (name: string, role: 'embedding' | 'position', tensor: string, rows: number): Weight =>
    m.matrix(name, role, `${prefix}embeddings.${tensor}_embeddings.weight`, [rows, c.dim]);
  /** The first published files have TensorFlow's names: gamma and beta. */
  const norm = (name: string, tensor: string): Norm =>
    m.has(`${tensor}.gamma`)
      ? {
          weight: m.vector(name, 'norm', `${tensor}.gamma`, c.dim),
          bias: m.vector(`${name}.bias`, 'bias', `${tensor}.beta`, c.dim),
        }
      : m.norm(name, tensor, c.dim, { bias: true });
  const layer = (i: number): BertLayer => {
    const [file, ours] = [`${prefix}encoder.layer.${i}`, `layers.${i}`];
    const attention = (name: string, tensor: string): Linear =>
      m.linear(`${ours}.attention.${name}`, 'attention', `${file}.attention.${tensor}`, [c.dim, c.dim], true);
    return {
      q: attention('q', 'self.query'),
      k: attention('k', 'self.key'),
      v: attention('v', 'self.value'),
      o: attention('o', 'output.dense'),
      attentionNorm: norm(`${ours}.attention.norm`, `${file}.attention.output.LayerNorm`),
      up: m.linear(`${ours}.ffn.up`, 'ffn', `${file}.intermediate.dense`, [c.ffn, c.dim], true),
      down: m.linear(`${ours}.ffn.down`, 'ffn', `${file}.output.dense`, [c.dim, c.ffn], true),
      ffnNorm: norm(`${ours}.ffn.norm`, `${file}.output.LayerNorm`),
    };
  };
  return {
    embedding: table('embedding', 'embedding', 'word', c.vocab),
    types: table('types', 'position', 'token_type', c.types),
    positions: table('positions', 'position', 'position', c.contextLength),
    norm: norm('norm', `${prefix}embeddings.LayerNorm`),
    layers: Array.from({ length: c.layers }, (_, i) => layer(i)),
  };
}

/** x [T, dim] is overwritten; the result [T, dim] is in another buffer. */
function block(p: PlanBuilder, c: BertConfig, l: BertLayer, x: Rows, cache: CacheId, rope: RopeId | undefined): Rows {
  const h = p.scope('attention', () => {
    const placed = (rows: Rows): Rows => (rope === undefined ? rows : p.rotate(rows, c.heads, rope));
    const [q, k, v] = [placed(p.matmul(x, l.q)), placed(p.matmul(x, l.k)), p.matmul(x, l.v)]; // [T, dim] each
    const scale = 1 / Math.sqrt(c.headDim);
    p.addMatmul(x, p.attention(q, k, v, cache, c.heads, scale, { bidirectional: true }), l.o);
    return p.layerNorm(x, l.attentionNorm, c.epsilon);
  });
  return p.scope('ffn', () => {
    const up = p.matmul(h, l.up); // [T, ffn]
    p.addMatmul(h, l.gate ? p.activate(c.activation, p.matmul(h, l.gate), up) : p.activate(c.activation, up), l.down);
    return p.layerNorm(h, l.ffnNorm, c.epsilon);
  });
}

/** The last hidden state. [T, dim] */
export function forward(p: PlanBuilder, c: BertConfig, w: BertWeights): Rows {
  const rope = c.rope && p.rope(c.rope);
  // All layers share one cache: keys and values are needed only within their layer.
  const cache = p.cache({ kvHeads: c.kvHeads, headDim: c.headDim });
  let x = p.scope('embedding', () => {
    const rows = p.embedTokens(w.embedding);
    p.addTypes(rows, w.types);
    if (w.positions) p.addPositions(rows, w.positions);
    return p.layerNorm(rows, w.norm, c.epsilon);
  });
  for (const [i, layer] of w.layers.entries()) x = p.scope(`layer[${i}]`, () => block(p, c, layer, x, cache, rope));
  return x;
}

export const bert: Architecture<BertConfig, BertWeights> = { kind: 'encoder', read, weights, forward };
