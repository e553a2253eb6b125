/**
 * The forward of decoders with layer norms before each block and a plain or gated ffn: GPT-NeoX, StableLM, StarCoder 2,
 * Phi, Falcon. Their files have the configs and tensor names.
 */
import type { Linear, Norm, PlanBuilder, Rows } from '../plan/builder.ts';
import type { RopeTable } from '../plan/rope.ts';
import type { Activation, RopeId } from '../plan/step.ts';
import type { Architecture, ModelSizes } from './architecture.ts';
import { eachLayer, logitsOf, type Tables } from './decoder.ts';

export interface LayerNormConfig extends ModelSizes {
  readonly epsilon: number;
  readonly activation: Activation;
  /** Whether attention and ffn both read the input of the layer, instead of one after the other. */
  readonly parallel: boolean;
  /** Positions: rope, or alibi with one slope per head. */
  readonly rope?: RopeTable;
  readonly alibi?: readonly number[];
  /** Keys that a token attends to, itself included; undefined: all. */
  readonly window?: number;
}

export interface LayerNormLayer {
  readonly attentionNorm: Norm;
  readonly q: Linear;
  readonly k: Linear;
  readonly v: Linear;
  /** Norms over each head of q and k. */
  readonly qNorm?: Norm;
  readonly kNorm?: Norm;
  readonly o: Linear;
  /** Default: the ffn reads the rows normalized for the attention. */
  readonly ffnNorm?: Norm;
  readonly gate?: Linear;
  readonly up: Linear;
  readonly down: Linear;
}

export interface LayerNormWeights extends Tables {
  readonly layers: readonly LayerNormLayer[];
  readonly norm: Norm;
}

export type LayerNormDecoder<C extends LayerNormConfig = LayerNormConfig> = Architecture<C, LayerNormWeights>;

function attend(p: PlanBuilder, c: LayerNormConfig, l: LayerNormLayer, h: Rows, rope: RopeId | undefined): Rows {
  const placed = (rows: Rows, heads: number, norm: Norm | undefined): Rows => {
    const normed = norm ? p.layerNorm(rows, norm, c.epsilon, heads) : rows;
    return rope === undefined ? normed : p.rotate(normed, heads, rope);
  };
  const q = placed(p.matmul(h, l.q), c.heads, l.qNorm); // [T, heads * headDim]
  const k = placed(p.matmul(h, l.k), c.kvHeads, l.kNorm); // [T, kvHeads * headDim]
  const cache = p.cache({ kvHeads: c.kvHeads, headDim: c.headDim, window: c.window });
  return p.attention(q, k, p.matmul(h, l.v), cache, c.heads, 1 / Math.sqrt(c.headDim), { alibi: c.alibi });
}

function block(p: PlanBuilder, c: LayerNormConfig, l: LayerNormLayer, x: Rows, rope: RopeId | undefined): void {
  const h = p.scope('attention', () => p.layerNorm(x, l.attentionNorm, c.epsilon)); // [T, dim]
  const ffnRows = (): Rows => (l.ffnNorm ? p.scope('ffn', () => p.layerNorm(x, l.ffnNorm!, c.epsilon)) : h);
  const early = c.parallel ? ffnRows() : undefined;
  p.scope('attention', () => p.addMatmul(x, attend(p, c, l, h, rope), l.o));
  const g = early ?? ffnRows(); // [T, dim]
  p.scope('ffn', () => {
    const up = p.matmul(g, l.up); // [T, ffn]
    p.addMatmul(x, l.gate ? p.activate(c.activation, p.matmul(g, l.gate), up) : p.activate(c.activation, up), l.down);
  });
}

export function forward(p: PlanBuilder, c: LayerNormConfig, w: LayerNormWeights): Rows {
  const rope = c.rope && p.rope(c.rope);
  const x = p.scope('embedding', () => p.embedTokens(w.embedding)); // [T, dim]
  eachLayer(p, w.layers, (l) => block(p, c, l, x, rope));
  return logitsOf(p, x, (rows) => p.layerNorm(rows, w.norm, c.epsilon), w.output); // [W, vocab]
}
