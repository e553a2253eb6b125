/**
 * Gemma 3, text (arXiv:2503.19786): scaled embedding, (1 + w) norms before and after each block, norms over the heads of q
 * and k, windows with local rope in most layers and full attention with global rope in the others, gated tanh gelu.
 */
import type { Linear, Norm, PlanBuilder, Rows, Weight } from '../plan/builder.ts';
import type { RopeTable } from '../plan/rope.ts';
import { ropeTable } from '../plan/rope.ts';
import type { Activation, RopeId } from '../plan/step.ts';
import { type Config, headSizes, readRope } from './config.ts';
import type { Architecture, Sizes } from './index.ts';
import type { Manifest } from './weights.ts';

interface Gemma3Config extends Sizes {
  readonly epsilon: number;
  readonly activation: Activation;
  /** Per layer: whether it sees only the window. */
  readonly sliding: readonly boolean[];
  readonly window: number;
  readonly globalRope: RopeTable;
  readonly localRope: RopeTable;
  readonly attentionBias: boolean;
  readonly scale: number;
}

interface Layer {
  readonly attentionNorm: Norm;
  readonly q: Linear;
  readonly k: Linear;
  readonly v: Linear;
  readonly qNorm: Norm;
  readonly kNorm: Norm;
  readonly o: Linear;
  readonly postAttentionNorm: Norm;
  readonly ffnNorm: Norm;
  readonly gate: Linear;
  readonly up: Linear;
  readonly down: Linear;
  readonly postFfnNorm: Norm;
}

interface Weights {
  readonly embedding: Weight;
  readonly layers: readonly Layer[];
  readonly norm: Norm;
  readonly output: Linear;
}

/** Layer kinds by name, or every `sliding_window_pattern`-th layer full. */
function readSliding(json: Config, layers: number): boolean[] {
  const types = json.texts('layer_types');
  if (types === undefined) {
    const pattern = json.size('sliding_window_pattern', 6);
    return Array.from({ length: layers }, (_, i) => (i + 1) % pattern !== 0);
  }
  if (types.length !== layers || types.some((type) => type !== 'sliding_attention' && type !== 'full_attention')) {
    json.fail('layer_types', `${layers} times sliding_attention or full_attention`);
  }
  return types.map((type) => type === 'sliding_attention');
}

function read(json: Config): Gemma3Config {
  const [dim, layers] = [json.size('hidden_size'), json.size('num_hidden_layers')];
  const sizes = headSizes(json, dim);
  for (const key of ['attn_logit_softcapping', 'final_logit_softcapping']) if (json.has(key)) json.fail(key, 'null');
  const parameters = json.object('rope_parameters');
  return {
    ...sizes,
    dim,
    layers,
    ffn: json.size('intermediate_size'),
    vocab: json.size('vocab_size'),
    contextLength: json.size('max_position_embeddings', 131072),
    epsilon: json.positive('rms_norm_eps', 1e-6),
    activation: json.choice(
      'hidden_activation',
      { gelu_pytorch_tanh: 'gelu_tanh', gelu: 'gelu', silu: 'silu' },
      'gelu_pytorch_tanh',
    ),
    sliding: readSliding(json, layers),
    window: json.size('sliding_window', 4096),
    globalRope: readRope(json, 'rope.global', sizes.headDim, 'full_attention'),
    localRope: parameters?.object('sliding_attention')
      ? readRope(json, 'rope.local', sizes.headDim, 'sliding_attention')
      : ropeTable('rope.local', sizes.headDim, json.positive('rope_local_base_freq', 10_000), { type: 'default' }),
    attentionBias: json.flag('attention_bias', false),
    scale: 1 / Math.sqrt(json.positive('query_pre_attn_scalar', 256)),
    tied: json.flag('tie_word_embeddings', true),
  };
}

function weights(m: Manifest, c: Gemma3Config): Weights {
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
    const norm = (name: string, tensor: string, length = c.dim): Norm =>
      m.norm(`${ours}.${name}`, `${file}.${tensor}`, length, { plus: 1 });
    const attention = (name: string, shape: readonly [number, number]): Linear =>
      m.linear(`${ours}.attention.${name}`, 'attention', `${file}.self_attn.${name}_proj`, shape, c.attentionBias);
    const ffn = (name: string, shape: readonly [number, number]): Linear =>
      m.linear(`${ours}.ffn.${name}`, 'ffn', `${file}.mlp.${name}_proj`, shape, false);
    return {
      attentionNorm: norm('attention.norm', 'input_layernorm'),
      q: attention('q', [attended, c.dim]),
      k: attention('k', [kv, c.dim]),
      v: attention('v', [kv, c.dim]),
      qNorm: norm('attention.q_norm', 'self_attn.q_norm', c.headDim),
      kNorm: norm('attention.k_norm', 'self_attn.k_norm', c.headDim),
      o: attention('o', [c.dim, attended]),
      postAttentionNorm: norm('attention.post_norm', 'post_attention_layernorm'),
      ffnNorm: norm('ffn.norm', 'pre_feedforward_layernorm'),
      gate: ffn('gate', [c.ffn, c.dim]),
      up: ffn('up', [c.ffn, c.dim]),
      down: ffn('down', [c.dim, c.ffn]),
      postFfnNorm: norm('ffn.post_norm', 'post_feedforward_layernorm'),
    };
  };
  return {
    ...head,
    layers: Array.from({ length: c.layers }, (_, i) => layer(i)),
    norm: m.norm('norm', 'model.norm', c.dim, { plus: 1 }),
  };
}

function block(p: PlanBuilder, c: Gemma3Config, l: Layer, x: Rows, rope: RopeId, window: number | undefined): void {
  p.scope('attention', () => {
    const h = p.rmsNorm(x, l.attentionNorm, c.epsilon); // [T, dim]
    const q = p.rotate(p.rmsNorm(p.matmul(h, l.q), l.qNorm, c.epsilon, c.heads), c.heads, rope); // [T, heads * headDim]
    const k = p.rotate(p.rmsNorm(p.matmul(h, l.k), l.kNorm, c.epsilon, c.kvHeads), c.kvHeads, rope); // [T, kvHeads * headDim]
    const cache = p.cache({ kvHeads: c.kvHeads, headDim: c.headDim, window });
    const attended = p.attention(q, k, p.matmul(h, l.v), cache, c.heads, c.scale);
    p.add(x, p.rmsNorm(p.matmul(attended, l.o), l.postAttentionNorm, c.epsilon));
  });
  p.scope('ffn', () => {
    const h = p.rmsNorm(x, l.ffnNorm, c.epsilon); // [T, dim]
    const inner = p.activate(c.activation, p.matmul(h, l.gate), p.matmul(h, l.up)); // [T, ffn]
    p.add(x, p.rmsNorm(p.matmul(inner, l.down), l.postFfnNorm, c.epsilon));
  });
}

function forward(p: PlanBuilder, c: Gemma3Config, w: Weights): Rows {
  const [globalRope, localRope] = [p.rope(c.globalRope), p.rope(c.localRope)];
  const x = p.scope('embedding', () => p.embedTokens(w.embedding, Math.fround(Math.sqrt(c.dim)))); // [T, dim]
  p.tap('hidden.0', x);
  for (const [i, l] of w.layers.entries()) {
    const sliding = c.sliding[i]!;
    p.scope(`layer[${i}]`, () => block(p, c, l, x, sliding ? localRope : globalRope, sliding ? c.window : undefined));
    p.tap(`hidden.${i + 1}`, x);
  }
  const last = p.scope('norm', () => p.rmsNorm(p.wantedRows(x), w.norm, c.epsilon)); // [W, dim]
  p.tap('final', last);
  return p.scope('projection', () => p.matmul(last, w.output)); // [W, vocab]
}

export const gemma3: Architecture<Gemma3Config, Weights> = { read, weights, forward };
