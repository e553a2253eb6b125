/** A loaded encoder: turns texts into embeddings. Disposing it frees all its resources. */
import type { Embedding, EmbedInput, EmbedOptions } from './embed-types.ts';
import type { EncoderEngine } from './encoder-engine.ts';
import { Loaded } from './loaded.ts';

export class Encoder extends Loaded<EncoderEngine> {
  /** Prompts of the model by name (config_sentence_transformers.json); a prompt is put in front of a text. */
  get prompts(): ReadonlyMap<string, string> {
    return this.engine.info.prompts;
  }

  /** How embeddings are compared, if the model's files name it: cosine, dot, euclidean or manhattan. */
  get similarity(): string | undefined {
    return this.engine.info.similarity;
  }

  /**
   * Embeddings of texts (or of token ids), in order. Texts of several calls share forwards; each embedding has the same
   * bits as alone.
   * @throws OptionError, ModelError UnsupportedPooling, LanewiseError NoTokenizer, ContextLengthExceeded, Busy; the
   * signal's reason
   */
  async embed(texts: readonly EmbedInput[], options: EmbedOptions = {}): Promise<Embedding[]> {
    this.alive();
    return this.engine.embed(texts, options);
  }
}
