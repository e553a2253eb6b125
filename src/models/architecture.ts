/** The interface that the file of an architecture implements. */
import type { PlanBuilder, Rows } from '../plan/builder.ts';
import type { Config, ModelSizes } from './config.ts';
import type { TensorRoot } from './tensor-names.ts';
import type { Manifest } from './weights.ts';

export type { ModelSizes } from './config.ts';

export type ModelKind = 'decoder' | 'encoder';

/** One model family: how its config is read, which weights it has, what it computes. */
export interface Architecture<C extends ModelSizes, W> {
  /** Decoders return logits of the next token, encoders hidden states. Default: decoder. */
  readonly kind?: ModelKind;
  /** Names of its tensors. Default: model.embed_tokens and lm_head; encoders find their names themselves. */
  readonly root?: TensorRoot;
  read(json: Config): C;
  weights(manifest: Manifest, config: C): W;
  /** Adds the steps of a forward. Returns the logits, or an encoder's last hidden state. */
  forward(plan: PlanBuilder, config: C, weights: W): Rows;
}
