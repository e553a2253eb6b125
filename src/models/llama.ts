/**
 * Llama (Touvron et al. 2023) and models that differ from it by settings only: grouped heads, rope with scaling, rms
 * norms before each block, gated silu. Other settings: windows (Mistral, Qwen), norms over the heads of q and k (Qwen
 * 3), layers without rope (SmolLM 3), multipliers (Granite), (1 + w) norms and a scaled embedding (Gemma), fused
 * tensors (Phi-3), experts (Mixtral, Qwen 3 MoE).
 */
import type { Experts, Linear, Norm, PlanBuilder, Rows } from '../plan/builder.ts';
import type { RopeTable } from '../plan/rope.ts';
import type { Activation, RopeId } from '../plan/step.ts';
import type { Architecture, ModelSizes } from './architecture.ts';
import { type Config, readActivation, readSizes, type SizeDefaults } from './config.ts';
import { eachLayer, logitsOf, type Tables, tables } from './decoder.ts';
import { type RopeDefaults, readRope } from './rope.ts';
import type { Manifest } from './weights.ts';

export interface LlamaConfig extends ModelSizes {
  readonly epsilon: number;
  readonly activation: Activation;
  readonly rope: RopeTable;
  /** Rope of queries, if it differs from that of keys. */
  readonly queryRope?: RopeTable;
  /** Which linear layers have biases. */
  readonly biases: { readonly qkv: boolean; readonly o: boolean; readonly ffn: boolean };
  /** Keys that a token attends to in layer i, itself included; undefined: all. */
  readonly window: (layer: number) => number | undefined;
  /** Whether layer i has rope. */
  readonly rotates: (layer: number) => boolean;
  /** Whether each head of q and k is normalized. */
  readonly headNorms: boolean;
  /** Added to the weights of norms (Gemma: 1). */
  readonly normPlus: number;
  readonly attentionScale: number;
  readonly embeddingScale: number;
  /** Factor of what a block adds to the residual. */
  readonly residualScale: number;
  readonly logitScale: number;
  /** Whether the file has q, k and v in one tensor, gate and up in another. */
  readonly fused: boolean;
  /** The experts of layer i; undefined: a dense ffn. */
  readonly experts: (layer: number) => ExpertSettings | undefined;
}

/** A mixture of experts in place of a dense ffn. */
export interface ExpertSettings {
  readonly count: number;
  /** Experts per row. */
  readonly top: number;
  /** Whether the weights of a row's experts are scaled to sum 1. */
  readonly normalize: boolean;
  readonly ffn: number;
  /** Name of the mixture in the file, and names of an expert's matrices below `PART.experts.N`. */
  readonly part: string;
  readonly names: { readonly gate: string; readonly up: string; readonly down: string };
}

interface Ffn {
  readonly gate: Linear;
  readonly up: Linear;
  readonly down: Linear;
}

interface Layer {
  readonly attentionNorm: Norm;
  readonly q: Linear;
  readonly k: Linear;
  readonly v: Linear;
  readonly qNorm?: Norm;
  readonly kNorm?: Norm;
  readonly o: Linear;
  readonly ffnNorm: Norm;
  readonly ffn: Ffn | { readonly router: Linear; readonly experts: Experts };
}

interface Weights extends Tables {
  readonly layers: readonly Layer[];
  readonly norm: Norm;
}

/** Defaults of absent keys, which differ between models. */
export interface LlamaDefaults extends Partial<SizeDefaults> {
  readonly epsilon?: number;
  readonly rope?: RopeDefaults;
}

export function readLlama(json: Config, defaults: LlamaDefaults = {}): LlamaConfig {
  const sizes = readSizes(json, { contextLength: 2048, tied: false, ...defaults });
  const attentionBias = json.flag('attention_bias', false);
  return {
    ...sizes,
    epsilon: json.positive('rms_norm_eps', defaults.epsilon ?? 1e-6),
    activation: readActivation(json, 'hidden_act', 'silu'),
    rope: readRope(json, 'rope', sizes.headDim, defaults.rope),
    biases: { qkv: attentionBias, o: attentionBias, ffn: json.flag('mlp_bias', false) },
    window: () => undefined,
    rotates: () => true,
    headNorms: false,
    normPlus: 0,
    attentionScale: 1 / Math.sqrt(sizes.headDim),
    embeddingScale: 1,
    residualScale: 1,
    logitScale: 1,
    fused: false,
    experts: () => undefined,
  };
}

/** The router and all experts of a layer. */
function expertWeights(m: Manifest, c: LlamaConfig, i: number, e: ExpertSettings) {
  const file = `model.layers.${i}.${e.part}`;
  const expert = (n: number): Ffn => {
    const linear = (of: keyof Ffn, shape: readonly [number, number]): Linear =>
      m.linear(`layers.${i}.ffn.${n}.${of}`, 'ffn', `${file}.experts.${n}.${e.names[of]}`, shape, false);
    return {
      gate: linear('gate', [e.ffn, c.dim]),
      up: linear('up', [e.ffn, c.dim]),
      down: linear('down', [c.dim, e.ffn]),
    };
  };
  const stacked = (n: number): Ffn => {
    // [in, out] in Qwen 3 VL, [out, in] in others.
    const transposed = m.shapeOf(`${file}.experts.gate_up_proj`)?.[1] === c.dim;
    const linear = (of: keyof Ffn, tensor: string, shape: readonly [number, number], first: number, rows: number) => {
      const options = { transposed, slice: { first, of: rows }, stack: { count: e.count, index: n } };
      return { weight: m.matrix(`layers.${i}.ffn.${n}.${of}`, 'ffn', `${file}.experts.${tensor}`, shape, options) };
    };
    return {
      gate: linear('gate', 'gate_up_proj', [e.ffn, c.dim], 0, 2 * e.ffn),
      up: linear('up', 'gate_up_proj', [e.ffn, c.dim], e.ffn, 2 * e.ffn),
      down: linear('down', 'down_proj', [c.dim, e.ffn], 0, c.dim),
    };
  };
  const router = { weight: m.matrix(`layers.${i}.ffn.router`, 'router', `${file}.gate.weight`, [e.count, c.dim]) };
  const make = m.has(`${file}.experts.gate_up_proj`) ? stacked : expert;
  const each = Array.from({ length: e.count }, (_, n) => make(n));
  return { router, experts: { each, top: e.top, normalize: e.normalize, kind: c.activation } };
}

function weights(m: Manifest, c: LlamaConfig): Weights {
  const [attended, kv] = [c.heads * c.headDim, c.kvHeads * c.headDim];
  const layer = (i: number): Layer => {
    const [file, ours] = [`model.layers.${i}`, `layers.${i}`];
    const norm = (name: string, tensor: string, length = c.dim): Norm =>
      m.norm(`${ours}.${name}`, `${file}.${tensor}`, length, { plus: c.normPlus });
    const attention = (name: string, shape: readonly [number, number], bias: boolean): Linear =>
      m.linear(`${ours}.attention.${name}`, 'attention', `${file}.self_attn.${name}_proj`, shape, bias);
    const ffn = (name: string, shape: readonly [number, number]): Linear =>
      m.linear(`${ours}.ffn.${name}`, 'ffn', `${file}.mlp.${name}_proj`, shape, c.biases.ffn);
    const qkv = c.fused
      ? m.fused(`${ours}.attention`, 'attention', `${file}.self_attn.qkv_proj`, {
          inputs: c.dim,
          bias: c.biases.qkv,
          rows: { q: attended, k: kv, v: kv },
        })
      : {
          q: attention('q', [attended, c.dim], c.biases.qkv),
          k: attention('k', [kv, c.dim], c.biases.qkv),
          v: attention('v', [kv, c.dim], c.biases.qkv),
        };
    const gateUp = () =>
      c.fused
        ? m.fused(`${ours}.ffn`, 'ffn', `${file}.mlp.gate_up_proj`, {
            inputs: c.dim,
            bias: c.biases.ffn,
            rows: { gate: c.ffn, up: c.ffn },
          })
        : { gate: ffn('gate', [c.ffn, c.dim]), up: ffn('up', [c.ffn, c.dim]) };
    const experts = c.experts(i);
    return {
      attentionNorm: norm('attention.norm', 'input_layernorm'),
      ...qkv,
      ...(c.headNorms && {
        qNorm: norm('attention.q_norm', 'self_attn.q_norm', c.headDim),
        kNorm: norm('attention.k_norm', 'self_attn.k_norm', c.headDim),
      }),
      o: attention('o', [c.dim, attended], c.biases.o),
      ffnNorm: norm('ffn.norm', 'post_attention_layernorm'),
      ffn: experts ? expertWeights(m, c, i, experts) : { ...gateUp(), down: ffn('down', [c.dim, c.ffn]) },
    };
  };
  return {
    ...tables(m, c),
    layers: Array.from({ length: c.layers }, (_, i) => layer(i)),
    norm: m.norm('norm', 'model.norm', c.dim, { plus: c.normPlus }),
  };
}

function block(
  p: PlanBuilder,
  c: LlamaConfig,
  l: Layer,
  x: Rows,
  index: number,
  ropes: { keys: RopeId; queries: RopeId },
): void {
  p.scope('attention', () => {
    const h = p.rmsNorm(x, l.attentionNorm, c.epsilon); // [T, dim]
    const placed = (rows: Rows, heads: number, norm: Norm | undefined, rope: RopeId): Rows => {
      const normed = norm ? p.rmsNorm(rows, norm, c.epsilon, heads) : rows;
      return c.rotates(index) ? p.rotate(normed, heads, rope) : normed;
    };
    const q = placed(p.matmul(h, l.q), c.heads, l.qNorm, ropes.queries); // [T, heads * headDim]
    const k = placed(p.matmul(h, l.k), c.kvHeads, l.kNorm, ropes.keys); // [T, kvHeads * headDim]
    const cache = p.cache({ kvHeads: c.kvHeads, headDim: c.headDim, window: c.window(index) });
    addBlock(p, c, x, p.attention(q, k, p.matmul(h, l.v), cache, c.heads, c.attentionScale), l.o);
  });
  p.scope('ffn', () => {
    const h = p.rmsNorm(x, l.ffnNorm, c.epsilon); // [T, dim]
    if ('experts' in l.ffn) return p.addExperts(x, h, p.matmul(h, l.ffn.router), l.ffn.experts);
    addBlock(p, c, x, p.activate(c.activation, p.matmul(h, l.ffn.gate), p.matmul(h, l.ffn.up)), l.ffn.down);
  });
}

function addBlock(p: PlanBuilder, { residualScale }: LlamaConfig, x: Rows, inner: Rows, last: Linear): void {
  if (residualScale === 1) p.addMatmul(x, inner, last);
  else p.add(x, p.matmul(inner, last), residualScale);
}

function forward(p: PlanBuilder, c: LlamaConfig, w: Weights): Rows {
  const keys = p.rope(c.rope);
  const ropes = { keys, queries: c.queryRope ? p.rope(c.queryRope) : keys };
  const x = p.scope('embedding', () => p.embedTokens(w.embedding, c.embeddingScale)); // [T, dim]
  eachLayer(p, w.layers, (l, i) => block(p, c, l, x, i, ropes));
  const logits = logitsOf(p, x, (rows) => p.rmsNorm(rows, w.norm, c.epsilon), w.output); // [W, vocab]
  p.scope('projection', () => p.scale(logits, c.logitScale));
  return logits;
}

export const llama: Architecture<LlamaConfig, Weights> = { read: readLlama, weights, forward };
