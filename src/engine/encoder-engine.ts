/**
 * The engine interface of encoders. Arguments can be copied by structured clone, as the engine may run in another
 * thread.
 */
import type { LineStats } from '../schedule/scheduler.ts';
import type { Embedding, EmbedInput, EmbedOptions } from './embed-types.ts';
import type { AnyEngine, LoadedInfo } from './loaded.ts';

export interface EncoderInfo extends LoadedInfo {
  /** Prompts of the model by name; a prompt is put in front of a text. */
  readonly prompts: ReadonlyMap<string, string>;
  /** How embeddings are compared, if the model's files name it. */
  readonly similarity: string | undefined;
}

export interface EncoderEngine extends AnyEngine {
  readonly info: EncoderInfo;
  stats(): LineStats;
  /** @throws OptionError, ModelError UnsupportedPooling, LanewiseError; the signal's reason */
  embed(texts: readonly EmbedInput[], options: EmbedOptions): Promise<Embedding[]>;
}
