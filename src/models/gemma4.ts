/**
 * Gemma 4, text (Google 2026): norms before and after each block, norms over the heads of q, k and (without weight) v;
 * no scale of scores; wide heads and proportional rope in the layers with full attention; upper layers without k and v,
 * which use the cache of the last lower layer of their kind; an input per layer, made of the token and the embedding;
 * experts parallel to the dense ffn.
 */
import type { Linear, Norm, PlanBuilder, Rows, Weight } from '../plan/builder.ts';
import { type RopeTable, ropeTable } from '../plan/rope.ts';
import type { Activation, CacheId, RopeId } from '../plan/step.ts';
import type { Architecture, ModelSizes } from './architecture.ts';
import { type Config, readActivation, readSizes, readSliding } from './config.ts';
import { eachLayer, logitsOf, type Tables, tables } from './decoder.ts';
import { type ExpertSizes, expertWeights, type LayerExperts, readExperts, withExperts } from './gemma4-experts.ts';
import { readRope } from './rope.ts';
import type { Manifest } from './weights.ts';

/** The attention of a kind of layers: sliding or full. */
interface Kind {
  readonly headDim: number;
  readonly kvHeads: number;
  readonly window: number | undefined;
  readonly rope: RopeTable;
  /** Whether v is k before its norm. */
  readonly keysAreValues: boolean;
}

interface Gemma4Config extends ModelSizes {
  readonly epsilon: number;
  readonly activation: Activation;
  /** Kind of each layer. */
  readonly kinds: readonly Kind[];
  /** First of the layers without k and v. */
  readonly firstShared: number;
  /** Factor by which the ffn of these layers is wider. */
  readonly sharedFfn: number;
  /** Width of the input per layer; 0: none. */
  readonly inputDim: number;
  readonly inputVocab: number;
  readonly attentionBias: boolean;
  readonly logitCap: number | undefined;
  /** Experts parallel to the ffn of every layer. */
  readonly experts?: ExpertSizes;
}

interface Layer {
  readonly attentionNorm: Norm;
  readonly q: Linear;
  readonly qNorm: Norm;
  /** k and v; undefined if the layer uses another layer's cache. */
  readonly own?: { readonly k: Linear; readonly kNorm: Norm; readonly v?: Linear };
  readonly o: Linear;
  readonly postAttentionNorm: Norm;
  readonly ffnNorm: Norm;
  readonly gate: Linear;
  readonly up: Linear;
  readonly down: Linear;
  readonly postFfnNorm: Norm;
  readonly experts?: LayerExperts;
  readonly input?: { readonly gate: Linear; readonly projection: Linear; readonly postNorm: Norm };
  readonly scale: Weight;
}

interface Weights extends Tables {
  readonly inputs?: { readonly embedding: Weight; readonly projection: Linear; readonly norm: Norm };
  readonly layers: readonly Layer[];
  readonly norm: Norm;
}

function readKinds(json: Config, sliding: readonly boolean[], sizes: { headDim: number; kvHeads: number }): Kind[] {
  const headDim = json.size('global_head_dim', 512);
  const keysAreValues = json.flag('attention_k_eq_v', false);
  const kvHeads = keysAreValues ? json.size('num_global_key_value_heads', sizes.kvHeads) : sizes.kvHeads;
  const own = json.has('rope_parameters');
  const pairs = Math.floor(headDim / 8);
  const local: Kind = {
    ...sizes,
    window: json.size('sliding_window', 512),
    rope: own
      ? readRope(json, 'rope.local', sizes.headDim, { part: 'sliding_attention' })
      : ropeTable('rope.local', sizes.headDim, 10_000, { type: 'default' }),
    keysAreValues: false,
  };
  const global: Kind = {
    headDim,
    kvHeads,
    window: undefined,
    rope: own
      ? readRope(json, 'rope.global', headDim, { part: 'full_attention' })
      : ropeTable('rope.global', headDim, 1e6, { type: 'proportional', factor: 1, pairs }),
    keysAreValues,
  };
  return sliding.map((isSliding) => (isSliding ? local : global));
}

function read(json: Config): Gemma4Config {
  const sizes = readSizes(json, { kvHeads: 4, headDim: 256, contextLength: 131072, tied: true });
  const { layers } = sizes;
  if (json.has('per_layer_config')) json.fail('per_layer_config', 'absent');
  if (json.text('use_bidirectional_attention', '') === 'all') json.fail('use_bidirectional_attention', 'null');
  // The last layer always has full attention.
  const sliding = readSliding(json, layers, (i) => (i + 1) % 6 !== 0).map((is, i) => is && i < layers - 1);
  const firstShared = layers - json.count('num_kv_shared_layers', 0);
  if (sliding.slice(firstShared).some((is) => !sliding.slice(0, Math.max(firstShared, 0)).includes(is)))
    json.fail('num_kv_shared_layers', 'few enough that a layer of each kind remains below');
  return {
    ...sizes,
    epsilon: json.positive('rms_norm_eps', 1e-6),
    activation: readActivation(json, 'hidden_activation', 'gelu_pytorch_tanh'),
    kinds: readKinds(json, sliding, sizes),
    firstShared,
    sharedFfn: json.flag('use_double_wide_mlp', false) ? 2 : 1,
    inputDim: json.count('hidden_size_per_layer_input', 256),
    inputVocab: json.size('vocab_size_per_layer_input', 262_144),
    attentionBias: json.flag('attention_bias', false),
    logitCap: json.optional('final_logit_softcapping', 'positive'),
    experts: json.flag('enable_moe_block', false) ? readExperts(json) : undefined,
  };
}

function weights(m: Manifest, c: Gemma4Config): Weights {
  const layer = (i: number): Layer => {
    const [file, ours] = [`model.layers.${i}`, `layers.${i}`];
    const { headDim, kvHeads, keysAreValues } = c.kinds[i]!;
    const [attended, kv] = [c.heads * headDim, kvHeads * headDim];
    const shares = i >= c.firstShared;
    const inner = c.ffn * (shares ? c.sharedFfn : 1);
    const norm = (name: string, tensor: string, length = c.dim): Norm =>
      m.norm(`${ours}.${name}`, `${file}.${tensor}`, length);
    const attention = (name: string, shape: readonly [number, number]): Linear =>
      m.linear(`${ours}.attention.${name}`, 'attention', `${file}.self_attn.${name}_proj`, shape, c.attentionBias);
    const ffn = (name: string, tensor: string, shape: readonly [number, number]): Linear =>
      m.linear(`${ours}.${name}`, 'ffn', `${file}.${tensor}`, shape, false);
    if (shares) m.ignore(new RegExp(`^model\\.layers\\.${i}\\.self_attn\\.[kv]_(proj|norm)\\.`));
    return {
      attentionNorm: norm('attention.norm', 'input_layernorm'),
      q: attention('q', [attended, c.dim]),
      qNorm: norm('attention.q_norm', 'self_attn.q_norm', headDim),
      ...(!shares && {
        own: {
          k: attention('k', [kv, c.dim]),
          kNorm: norm('attention.k_norm', 'self_attn.k_norm', headDim),
          ...(!keysAreValues && { v: attention('v', [kv, c.dim]) }),
        },
      }),
      o: attention('o', [c.dim, attended]),
      postAttentionNorm: norm('attention.post_norm', 'post_attention_layernorm'),
      ffnNorm: norm('ffn.norm', 'pre_feedforward_layernorm'),
      gate: ffn('ffn.gate', 'mlp.gate_proj', [inner, c.dim]),
      up: ffn('ffn.up', 'mlp.up_proj', [inner, c.dim]),
      down: ffn('ffn.down', 'mlp.down_proj', [c.dim, inner]),
      postFfnNorm: norm('ffn.post_norm', 'post_feedforward_layernorm'),
      ...(c.experts && { experts: expertWeights(m, c, c.experts, i) }),
      ...(c.inputDim > 0 && {
        input: {
          gate: ffn('input.gate', 'per_layer_input_gate', [c.inputDim, c.dim]),
          projection: ffn('input.projection', 'per_layer_projection', [c.dim, c.inputDim]),
          postNorm: norm('input.post_norm', 'post_per_layer_input_norm'),
        },
      }),
      scale: m.vector(`${ours}.scale`, 'norm', `${file}.layer_scalar`, 1),
    };
  };
  const inputs = c.layers * c.inputDim;
  return {
    ...tables(m, c),
    ...(c.inputDim > 0 && {
      inputs: {
        embedding: m.matrix('inputs.embedding', 'embedding', 'model.embed_tokens_per_layer.weight', [
          c.inputVocab,
          inputs,
        ]),
        projection: m.linear('inputs.projection', 'ffn', 'model.per_layer_model_projection', [inputs, c.dim], false),
        norm: m.norm('inputs.norm', 'model.per_layer_projection_norm', c.inputDim),
      },
    }),
    layers: Array.from({ length: c.layers }, (_, i) => layer(i)),
    norm: m.norm('norm', 'model.norm', c.dim),
  };
}

/** Shared by the layers while their steps are added. */
interface State {
  readonly x: Rows;
  /** Inputs of all layers. [T, layers * inputDim] */
  readonly inputs: Rows | undefined;
  readonly ropes: ReadonlyMap<Kind, RopeId>;
  /** Cache of the last layer of each kind so far. */
  readonly caches: Map<Kind, CacheId>;
}

function block(p: PlanBuilder, c: Gemma4Config, l: Layer, index: number, { x, inputs, ropes, caches }: State): void {
  const kind = c.kinds[index]!;
  const { headDim, kvHeads, window } = kind;
  const normed = (rows: Rows, norm: Norm | undefined, groups = 1): Rows => p.rmsNorm(rows, norm, c.epsilon, groups);
  p.scope('attention', () => {
    const h = normed(x, l.attentionNorm); // [T, dim]
    const rope = ropes.get(kind)!;
    const q = p.rotate(normed(p.matmul(h, l.q), l.qNorm, c.heads), c.heads, rope); // [T, heads * headDim]
    if (l.own) {
      const { k, kNorm, v } = l.own;
      const keys = p.matmul(h, k); // [T, kvHeads * headDim]
      const values = normed(v ? p.matmul(h, v) : keys, undefined, kvHeads);
      caches.set(kind, p.cache({ kvHeads, headDim, window }));
      p.append(caches.get(kind)!, p.rotate(normed(keys, kNorm, kvHeads), kvHeads, rope), values);
    }
    const attended = p.attend(q, caches.get(kind)!, c.heads, 1);
    p.add(x, normed(p.matmul(attended, l.o), l.postAttentionNorm));
  });
  p.scope('ffn', () => {
    const h = normed(x, l.ffnNorm); // [T, dim]
    const inner = p.activate(c.activation, p.matmul(h, l.gate), p.matmul(h, l.up)); // [T, ffn]
    const dense = p.matmul(inner, l.down); // [T, dim]
    p.add(x, normed(l.experts ? withExperts(p, c, l.experts, x, dense) : dense, l.postFfnNorm));
  });
  p.scope('input', () => {
    if (l.input && inputs) {
      const own = p.columns(inputs, index * c.inputDim, c.inputDim); // [T, inputDim]
      const inner = p.activate(c.activation, p.matmul(x, l.input.gate), own);
      p.add(x, normed(p.matmul(inner, l.input.projection), l.input.postNorm));
    }
    p.scale(x, l.scale);
  });
}

function forward(p: PlanBuilder, c: Gemma4Config, w: Weights): Rows {
  const x = p.scope('embedding', () => p.embedTokens(w.embedding, Math.fround(Math.sqrt(c.dim)))); // [T, dim]
  const inputs = w.inputs && p.scope('inputs', () => layerInputs(p, c, w.inputs!, x));
  const ropes = new Map([...new Set(c.kinds)].map((kind) => [kind, p.rope(kind.rope)]));
  const state = { x, inputs, ropes, caches: new Map<Kind, CacheId>() };
  eachLayer(p, w.layers, (l, i) => block(p, c, l, i, state));
  const logits = logitsOf(p, x, (rows) => p.rmsNorm(rows, w.norm, c.epsilon), w.output); // [W, vocab]
  if (c.logitCap !== undefined) p.scope('projection', () => p.cap(logits, c.logitCap!));
  return logits;
}

/** (norm(x P / sqrt(dim)) + token row) / sqrt(2). The factor 1 / sqrt(dim) is moved into the epsilon of the norm. */
function layerInputs(p: PlanBuilder, c: Gemma4Config, w: NonNullable<Weights['inputs']>, x: Rows): Rows {
  const inputs = p.rmsNorm(p.matmul(x, w.projection), w.norm, c.epsilon * c.dim, c.layers); // [T, layers * inputDim]
  p.addTokens(inputs, w.embedding, Math.fround(Math.sqrt(c.inputDim)));
  p.scale(inputs, Math.SQRT1_2);
  return inputs;
}

export const gemma4: Architecture<Gemma4Config, Weights> = { read, weights, forward };
