/** A loaded encoder: turns texts into embeddings, and gives everything back when disposed. */
import type { Embedding, EmbedInput, EmbedOptions } from './embed-types.ts';
import type { EncoderEngine } from './encoder-engine.ts';
import { Loaded } from './loaded.ts';

export class Encoder extends Loaded<EncoderEngine> {
  /** Texts that the model's files offer to put in front, by name (config_sentence_transformers.json). */
  get prompts(): ReadonlyMap<string, string> {
    return this.engine.info.prompts;
  }

  /** How the model's embeddings are compared, if its files say so: cosine, dot, euclidean or manhattan. */
  get similarity(): string | undefined {
    return this.engine.info.similarity;
  }

  /**
   * Embeddings of texts (or of token ids), in their order; each is what it would be alone, bit for bit. Texts of several calls
   * share forwards.
   * @throws OptionError, ModelError UnsupportedPooling, LanewiseError NoTokenizer, ContextLengthExceeded, Busy; the signal's
   * reason
   */
  async embed(texts: readonly EmbedInput[], options: EmbedOptions = {}): Promise<Embedding[]> {
    this.alive();
    return this.engine.embed(texts, options);
  }
}
