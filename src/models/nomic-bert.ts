/** NomicBERT (Nussbaum et al. 2024): BERT with rope instead of positions, a gated ffn and biases in norms only. */
import type { Norm } from '../plan/builder.ts';
import type { Activation } from '../plan/step.ts';
import type { Architecture } from './architecture.ts';
import { type BertConfig, type BertLayer, type BertWeights, bertPrefix, forward } from './bert.ts';
import { type Config, readActivation } from './config.ts';
import { readRope } from './rope.ts';
import type { Manifest } from './weights.ts';

/** Settings of later models with this model_type, which are not supported. */
const unsupported = [
  'prenorm',
  'parallel_block',
  'use_rms_norm',
  'rotary_emb_interleaved',
  'qkv_proj_bias',
  'mlp_fc1_bias',
  'mlp_fc2_bias',
];

const gates: Readonly<Record<string, Activation>> = { swiglu: 'silu', geglu: 'gelu' };

/** Settings have the names of transformers, or those of GPT-2 in the hub's files. */
function read(json: Config): BertConfig {
  for (const key of unsupported) if (json.flag(key, false)) json.fail(key, 'false or absent');
  if (json.has('num_experts')) json.fail('num_experts', 'absent: mixtures of experts of this type are not supported');
  const key = (ours: string, hub: string): string => (json.has(hub) ? hub : ours);
  const [dim, heads] = [json.size(key('hidden_size', 'n_embd')), json.size(key('num_attention_heads', 'n_head'))];
  if (dim % heads) json.fail(key('num_attention_heads', 'n_head'), `a divisor of ${dim}, the width`);
  const headDim = dim / heads;
  const positions = json.size(key('max_position_embeddings', 'n_positions'), 2048);
  return {
    layers: json.size(key('num_hidden_layers', 'n_layer')),
    dim,
    heads,
    kvHeads: heads,
    headDim,
    ffn: json.size(key('intermediate_size', 'n_inner')),
    vocab: json.size('vocab_size'),
    // Longer texts than the model was trained on would need scaled rope frequencies.
    contextLength: Math.min(positions, json.size('max_trained_positions', positions)),
    tied: true,
    epsilon: json.positive(key('layer_norm_eps', 'layer_norm_epsilon'), 1e-12),
    activation: json.has('activation_function')
      ? json.choice('activation_function', gates)
      : readActivation(json, 'hidden_act', 'silu'),
    types: json.size('type_vocab_size', 2),
    rope: readRope(json, 'rope', headDim, {
      base: 1000,
      baseKey: key('rope_theta', 'rotary_emb_base'),
      rotatedKey: key('partial_rotary_factor', 'rotary_emb_fraction'),
    }),
  };
}

function weights(m: Manifest, c: BertConfig): BertWeights {
  const prefix = bertPrefix(m);
  const table = (name: string, role: 'embedding' | 'position', tensor: string, rows: number) =>
    m.matrix(name, role, `${prefix}embeddings.${tensor}_embeddings.weight`, [rows, c.dim]);
  const layer = (i: number): BertLayer => {
    const [file, ours] = [`${prefix}encoder.layers.${i}`, `layers.${i}`];
    const norm = (name: string, tensor: string): Norm =>
      m.norm(`${ours}.${name}`, `${file}.${tensor}`, c.dim, { bias: true });
    const ffn = (name: string, tensor: string, shape: readonly [number, number]) =>
      m.linear(`${ours}.ffn.${name}`, 'ffn', `${file}.mlp.${tensor}`, shape, false);
    return {
      ...m.fused(`${ours}.attention`, 'attention', `${file}.attn.Wqkv`, {
        inputs: c.dim,
        bias: false,
        rows: { q: c.dim, k: c.dim, v: c.dim },
      }),
      o: m.linear(`${ours}.attention.o`, 'attention', `${file}.attn.out_proj`, [c.dim, c.dim], false),
      attentionNorm: norm('attention.norm', 'norm1'),
      up: ffn('up', 'fc11', [c.ffn, c.dim]),
      gate: ffn('gate', 'fc12', [c.ffn, c.dim]),
      down: ffn('down', 'fc2', [c.dim, c.ffn]),
      ffnNorm: norm('ffn.norm', 'norm2'),
    };
  };
  return {
    embedding: table('embedding', 'embedding', 'word', c.vocab),
    types: table('types', 'position', 'token_type', c.types),
    norm: m.norm('norm', `${prefix}emb_ln`, c.dim, { bias: true }),
    layers: Array.from({ length: c.layers }, (_, i) => layer(i)),
  };
}

export const nomicBert: Architecture<BertConfig, BertWeights> = { kind: 'encoder', read, weights, forward };
