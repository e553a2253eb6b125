/**
 * Gemma 3, text (arXiv:2503.19786): scaled embedding, (1 + w) norms before and after each block, norms over the heads
 * of q and k, windows with local rope in most layers and full attention with global rope in the others, gated tanh
 * gelu. Gemma 2 (arXiv:2408.00118): one rope, and soft caps on scores and logits instead of the norms over heads.
 */
import type { Linear, Norm, PlanBuilder, Rows } from '../plan/builder.ts';
import { type RopeTable, ropeTable } from '../plan/rope.ts';
import type { Activation, RopeId } from '../plan/step.ts';
import type { Architecture, ModelSizes } from './architecture.ts';
import { type Config, readActivation, readSizes, readSliding } from './config.ts';
import { eachLayer, logitsOf, type Tables, tables } from './decoder.ts';
import { readRope } from './rope.ts';
import type { Manifest } from './weights.ts';

interface Gemma3Config extends ModelSizes {
  readonly epsilon: number;
  readonly activation: Activation;
  /** Whether each layer has a sliding window. */
  readonly sliding: readonly boolean[];
  /** Keys that a token attends to in a sliding layer, itself included; undefined: all. */
  readonly window: number | undefined;
  readonly globalRope: RopeTable;
  /** Rope of sliding layers. Default: globalRope. */
  readonly localRope?: RopeTable;
  /** Whether each head of q and k is normalized. */
  readonly headNorms: boolean;
  readonly scoreCap: number | undefined;
  readonly logitCap: number | undefined;
  readonly attentionBias: boolean;
  readonly scale: number;
}

interface Layer {
  readonly attentionNorm: Norm;
  readonly q: Linear;
  readonly k: Linear;
  readonly v: Linear;
  readonly qNorm?: Norm;
  readonly kNorm?: Norm;
  readonly o: Linear;
  readonly postAttentionNorm: Norm;
  readonly ffnNorm: Norm;
  readonly gate: Linear;
  readonly up: Linear;
  readonly down: Linear;
  readonly postFfnNorm: Norm;
}

interface Weights extends Tables {
  readonly layers: readonly Layer[];
  readonly norm: Norm;
}

/** Reads the settings that Gemma 2 and 3 share. */
function readCommon(json: Config, contextLength: number) {
  if (json.flag('use_bidirectional_attention', false)) json.fail('use_bidirectional_attention', 'false');
  return {
    ...readSizes(json, { kvHeads: 4, headDim: 256, contextLength, tied: true }),
    epsilon: json.positive('rms_norm_eps', 1e-6),
    activation: readActivation(json, 'hidden_activation', 'gelu_pytorch_tanh'),
    window: json.optional('sliding_window', 'size', 4096),
    attentionBias: json.flag('attention_bias', false),
    scale: 1 / Math.sqrt(json.positive('query_pre_attn_scalar', 256)),
  };
}

function readGemma2(json: Config): Gemma3Config {
  const common = readCommon(json, 8192);
  return {
    ...common,
    sliding: readSliding(json, common.layers, (i) => i % 2 === 0),
    globalRope: readRope(json, 'rope', common.headDim),
    headNorms: false,
    scoreCap: json.optional('attn_logit_softcapping', 'positive', 50),
    logitCap: json.optional('final_logit_softcapping', 'positive', 30),
  };
}

function readGemma3(json: Config): Gemma3Config {
  const common = readCommon(json, 131072);
  const pattern = json.size('sliding_window_pattern', 6);
  const local = json.object('rope_parameters')?.object('sliding_attention');
  return {
    ...common,
    sliding: readSliding(json, common.layers, (i) => (i + 1) % pattern !== 0),
    globalRope: readRope(json, 'rope.global', common.headDim, { base: 1e6, part: 'full_attention' }),
    localRope: local
      ? readRope(json, 'rope.local', common.headDim, { part: 'sliding_attention' })
      : ropeTable('rope.local', common.headDim, json.positive('rope_local_base_freq', 10_000), { type: 'default' }),
    headNorms: true,
    // attn_logit_softcapping may be present, but transformers does not use it.
    scoreCap: undefined,
    logitCap: json.optional('final_logit_softcapping', 'positive'),
  };
}

function weights(m: Manifest, c: Gemma3Config): Weights {
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
      ...(c.headNorms && {
        qNorm: norm('attention.q_norm', 'self_attn.q_norm', c.headDim),
        kNorm: norm('attention.k_norm', 'self_attn.k_norm', c.headDim),
      }),
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
    ...tables(m, c),
    layers: Array.from({ length: c.layers }, (_, i) => layer(i)),
    norm: m.norm('norm', 'model.norm', c.dim, { plus: 1 }),
  };
}

function block(p: PlanBuilder, c: Gemma3Config, l: Layer, x: Rows, rope: RopeId, window: number | undefined): void {
  p.scope('attention', () => {
    const h = p.rmsNorm(x, l.attentionNorm, c.epsilon); // [T, dim]
    const placed = (rows: Rows, heads: number, norm: Norm | undefined): Rows =>
      p.rotate(norm ? p.rmsNorm(rows, norm, c.epsilon, heads) : rows, heads, rope);
    const q = placed(p.matmul(h, l.q), c.heads, l.qNorm); // [T, heads * headDim]
    const k = placed(p.matmul(h, l.k), c.kvHeads, l.kNorm); // [T, kvHeads * headDim]
    const cache = p.cache({ kvHeads: c.kvHeads, headDim: c.headDim, window });
    const attended = p.attention(q, k, p.matmul(h, l.v), cache, c.heads, c.scale, { cap: c.scoreCap });
    p.add(x, p.rmsNorm(p.matmul(attended, l.o), l.postAttentionNorm, c.epsilon));
  });
  p.scope('ffn', () => {
    const h = p.rmsNorm(x, l.ffnNorm, c.epsilon); // [T, dim]
    const inner = p.activate(c.activation, p.matmul(h, l.gate), p.matmul(h, l.up)); // [T, ffn]
    p.add(x, p.rmsNorm(p.matmul(inner, l.down), l.postFfnNorm, c.epsilon));
  });
}

function forward(p: PlanBuilder, c: Gemma3Config, w: Weights): Rows {
  const globalRope = p.rope(c.globalRope);
  const localRope = c.localRope ? p.rope(c.localRope) : globalRope;
  const x = p.scope('embedding', () => p.embedTokens(w.embedding, Math.fround(Math.sqrt(c.dim)))); // [T, dim]
  eachLayer(p, w.layers, (l, i) =>
    block(p, c, l, x, ...(c.sliding[i] ? ([localRope, c.window] as const) : ([globalRope, undefined] as const))),
  );
  const logits = logitsOf(p, x, (rows) => p.rmsNorm(rows, w.norm, c.epsilon), w.output); // [W, vocab]
  if (c.logitCap !== undefined) p.scope('projection', () => p.cap(logits, c.logitCap!));
  return logits;
}

export const gemma2: Architecture<Gemma3Config, Weights> = { read: readGemma2, weights, forward };
export const gemma3: Architecture<Gemma3Config, Weights> = { read: readGemma3, weights, forward };
