/** Parts that all decoders share: token embedding, loop over layers, output head. */
import type { Linear, PlanBuilder, Rows, Weight } from '../plan/builder.ts';
import type { ModelSizes } from './architecture.ts';
import type { Manifest } from './weights.ts';

export interface Tables {
  readonly embedding: Weight;
  readonly output: Linear;
}

/** The token embedding and the output head. If they are tied, only the embedding's tensor is read. */
export function tables(
  m: Manifest,
  c: ModelSizes,
  { embedding = 'model.embed_tokens', output = 'lm_head', bias = false } = {},
): Tables {
  const shape = [c.vocab, c.dim] as const;
  // Older files store rope's frequencies.
  m.ignore(/\.rotary_emb\.inv_freq$/);
  if (!c.tied) {
    return {
      embedding: m.matrix('embedding', 'embedding', `${embedding}.weight`, shape),
      output: m.linear('output', 'output', output, shape, bias),
    };
  }
  m.ignore(new RegExp(`^${output}\\.weight$`));
  const tied = m.tied(`${embedding}.weight`, shape);
  return bias
    ? { ...tied, output: { ...tied.output, bias: m.vector('output.bias', 'bias', `${output}.bias`, c.vocab) } }
    : tied;
}

/** Adds the steps of all layers; `block` updates the rows of x [T, dim], which it reads first. */
export function eachLayer<L>(p: PlanBuilder, layers: readonly L[], block: (layer: L, index: number) => void): void {
  for (const [i, layer] of layers.entries()) p.scope(`layer[${i}]`, () => block(layer, i));
}

/** Logits [W, vocab] of the wanted rows of x. */
export function logitsOf(p: PlanBuilder, x: Rows, norm: (x: Rows) => Rows, output: Linear): Rows {
  const last = p.scope('norm', () => norm(p.wantedRows(x))); // [W, dim]
  return p.scope('projection', () => p.matmul(last, output));
}
