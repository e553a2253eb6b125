/** What the facade of an encoder asks of its engine, wherever that runs. Arguments can be copied by structured clone. */
import type { LineStats } from '../schedule/scheduler.ts';
import type { Embedding, EmbedInput, EmbedOptions } from './embed-types.ts';
import type { AnyEngine, LoadedInfo } from './loaded.ts';

export interface EncoderInfo extends LoadedInfo {
  /** Texts that the model's files offer to put in front, by name. */
  readonly prompts: ReadonlyMap<string, string>;
  /** How embeddings are compared, if the model's files say so. */
  readonly similarity: string | undefined;
}

export interface EncoderEngine extends AnyEngine {
  readonly info: EncoderInfo;
  stats(): LineStats;
  /** @throws OptionError, ModelError UnsupportedPooling, LanewiseError; the signal's reason */
  embed(texts: readonly EmbedInput[], options: EmbedOptions): Promise<Embedding[]>;
}
