/** What an architecture's file exports. */
import type { PlanBuilder, Rows } from '../plan/builder.ts';
import type { Config, Sizes } from './config.ts';
import type { TensorRoot } from './tensor-names.ts';
import type { Manifest } from './weights.ts';

export type { Sizes } from './config.ts';

export type ModelKind = 'decoder' | 'encoder';

/** One model family: what its config says, which weights it has, what it computes. */
export interface Architecture<C extends Sizes, W> {
  /** Decoders say what comes next, encoders what a text is. Default: decoder. */
  readonly kind?: ModelKind;
  /** Its tensors' names. Default: model.embed_tokens and lm_head; encoders find theirs. */
  readonly root?: TensorRoot;
  read(json: Config): C;
  weights(manifest: Manifest, config: C): W;
  /** Adds the steps of a forward; the logits, or an encoder's last hidden state. */
  forward(plan: PlanBuilder, config: C, weights: W): Rows;
}
