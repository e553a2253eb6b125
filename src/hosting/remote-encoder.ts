/** The EncoderEngine interface over a connection to an engine in another thread. */
import { type Embedding, type EmbedInput, type EmbedOptions, withJson } from '../engine/embed-types.ts';
import type { EncoderEngine, EncoderInfo } from '../engine/encoder-engine.ts';
import { asHosted } from '../engine/explain.ts';
import type { LoadOptions } from '../engine/options.ts';
import { OptionError } from '../errors.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { HostedModel, type HostedSource } from './hosted-model.ts';
import { LazyTokenizer } from './tokenizer-data.ts';

interface LoadedData {
  readonly info: EncoderInfo;
  readonly tokenizer: unknown;
  readonly again: unknown;
}

/** @throws OptionError, what the load throws; NotStarted */
export async function hostedEncoder(hosted: HostedSource, options: LoadOptions): Promise<EncoderEngine> {
  const model = new HostedModel<EncoderEngine, LoadedData>(hosted, 'loadEncoder', options);
  return new RemoteEncoder(model, await model.load());
}

class RemoteEncoder implements EncoderEngine {
  readonly info: EncoderInfo;
  readonly #model: HostedModel<EncoderEngine, LoadedData>;
  readonly #tokenizer: LazyTokenizer;

  constructor(model: HostedModel<EncoderEngine, LoadedData>, { info, tokenizer }: LoadedData) {
    this.info = { ...info, explanations: asHosted(info.explanations) };
    this.#model = model;
    this.#tokenizer = new LazyTokenizer(tokenizer, info.description.config.vocab, info.name);
  }

  get tokenizer(): Tokenizer | undefined {
    return this.#tokenizer.get();
  }

  async embed(texts: readonly EmbedInput[], options: EmbedOptions): Promise<Embedding[]> {
    if (typeof options !== 'object' || options === null) throw new OptionError('options', 'an object', options);
    const { signal, ...rest } = options;
    const embeddings = await this.#model.call<Embedding[]>('embed', [texts, rest], { signal });
    for (const { embedding } of embeddings) withJson(embedding);
    return embeddings;
  }

  memory(): ReturnType<EncoderEngine['memory']> {
    return this.#model.state.memory;
  }

  stats(): ReturnType<EncoderEngine['stats']> {
    return this.#model.state.stats;
  }

  dispose(): Promise<void> {
    return this.#model.dispose();
  }
}
