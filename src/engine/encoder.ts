/** A loaded encoder: turns texts into embeddings, and gives everything back when disposed. */
import { type Backend, type LoadTimes, PAGE, type Results } from '../backend/backend.ts';
import { defaultModules, type EmbeddingModules } from '../embedding/modules.ts';
import { normalize, type Pooling, pool, poolingNamed, poolings } from '../embedding/pooling.ts';
import type { SentenceSettings } from '../embedding/sentence-settings.ts';
import { LanewiseError, OptionError } from '../errors.ts';
import { nextTurn } from '../event-loop.ts';
import type { ModelDescription } from '../models/index.ts';
import { describeWork } from '../plan/print.ts';
import { logForward, wantsForward } from '../profile/log.ts';
import { createScopeTimer } from '../profile/scopes.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';

/** Rows and texts of one forward, unless a single text is longer: few enough that an abort is soon heard. */
export const SHARED_ROWS = 128;
const SHARED_TEXTS = 64;

export interface EmbedOptions {
  /** Instead of the pooling that the model's files name (1_Pooling/config.json); mean where they name none. */
  pooling?: Pooling | 'lasttoken';
  /**
   * Scale to length 1, so that a product of two embeddings is their cosine. Default: what modules.json says, else true.
   */
  normalize?: boolean;
  /**
   * Cut texts that are longer than the context (true) or fail (false). Default: cut them with a warning where
   * sentence-transformers' settings limit the length (sentence_bert_config.json), else fail.
   */
  truncate?: boolean;
  /** Put in front of each text. */
  prompt?: string;
  /** The name of a prompt of config_sentence_transformers.json. Default: its default_prompt_name. */
  promptName?: string;
  signal?: AbortSignal;
}

/** A text, or the ids of its tokens. */
export type EmbedInput = string | { readonly tokenIds: readonly number[] };

export interface Embedding {
  /** [dim] JSON.stringify makes an array of numbers of it. */
  readonly embedding: Float32Array;
  /** Tokens of the text that were used, those of its prompt and special tokens too. */
  readonly tokens: number;
  /** Whether the text was cut. */
  readonly truncated: boolean;
}

export interface EncoderParts {
  readonly name: string;
  readonly description: ModelDescription;
  readonly backend: Backend;
  readonly tokenizer: Tokenizer | undefined;
  readonly contextLength: number;
  readonly quantize: string;
  /** What the model was trained with, or why that is not supported. */
  readonly modules: EmbeddingModules | LanewiseError;
  readonly sentence: SentenceSettings;
  /** Whether longer texts are cut unless options say otherwise. */
  readonly truncates: boolean;
  readonly onWarning?: (text: string) => void;
  readonly close: () => Promise<void>;
}

export class Encoder implements AsyncDisposable {
  readonly name: string;
  readonly description: ModelDescription;
  readonly tokenizer: Tokenizer | undefined;
  /** Most tokens of a text. */
  readonly contextLength: number;
  readonly quantize: string;
  readonly loadTimes: LoadTimes;
  readonly threads: number;
  /** Bits of the vectors that its kernels are made for; undefined of the reference backend. */
  readonly vectorBits: Backend['vectorBits'];
  readonly #backend: Backend;
  readonly #modules: EmbeddingModules | LanewiseError;
  readonly #sentence: SentenceSettings;
  readonly #truncates: boolean;
  readonly #onWarning: EncoderParts['onWarning'];
  readonly #timer: ReturnType<typeof createScopeTimer>;
  readonly #close: () => Promise<void>;
  #queue: Promise<unknown> = Promise.resolve();
  #disposed: Promise<void> | undefined;

  constructor(parts: EncoderParts) {
    const { name, description, backend, tokenizer, contextLength, quantize, close } = parts;
    this.name = name;
    this.description = description;
    this.tokenizer = tokenizer;
    this.contextLength = contextLength;
    this.quantize = quantize;
    this.loadTimes = backend.loadTimes;
    this.threads = backend.threads;
    this.vectorBits = backend.vectorBits;
    this.#backend = backend;
    this.#modules = parts.modules;
    this.#sentence = parts.sentence;
    this.#truncates = parts.truncates;
    this.#onWarning = parts.onWarning;
    this.#timer = createScopeTimer(description.plan.steps);
    this.#close = close;
  }

  /** Bytes in memory. */
  memory(): ReturnType<Backend['memory']> {
    return this.#backend.memory();
  }

  /** Texts that the model's files offer to put in front, by name (config_sentence_transformers.json). */
  get prompts(): ReadonlyMap<string, string> {
    return this.#sentence.prompts;
  }

  /** How the model's embeddings are compared, if its files say so: cosine, dot, euclidean or manhattan. */
  get similarity(): string | undefined {
    return this.#sentence.similarity;
  }

  /**
   * Embeddings of texts (or of token ids), in their order; each is what it would be alone, bit for bit.
   * @throws OptionError, ModelError UnsupportedPooling, LanewiseError NoTokenizer, ContextLengthExceeded; the signal's reason
   */
  async embed(texts: readonly EmbedInput[], options: EmbedOptions = {}): Promise<Embedding[]> {
    checkTexts(texts);
    const { truncate, signal } = options;
    signal?.throwIfAborted();
    const { modules, scaled } = this.#recipe(options);
    const prompt = this.#prompt(options, texts);
    const inputs = await this.#inputs(texts, { prompt, truncate: truncate ?? this.#truncates, modules, signal });
    const cut = inputs.filter(({ truncated }) => truncated).length;
    if (cut > 0 && truncate === undefined) this.#warnCut(cut);
    const embeddings: Embedding[] = [];
    for (const batch of batches(inputs)) {
      const work = async (): Promise<Embedding[]> => {
        await nextTurn();
        this.#alive();
        signal?.throwIfAborted();
        const results = await this.#forward(batch.map(({ ids }) => ids));
        let start = 0;
        return batch.map(({ length, first, truncated }) => {
          const begin = start;
          start += length;
          const row = (i: number): Float32Array => results.output(begin + i);
          const pooled = joined(modules.poolings.map((pooling) => pool(length, row, pooling, first)));
          const vector = modules.modules.reduce((values, run) => run(values), pooled);
          return { embedding: withJson(scaled ? normalize(vector) : vector), tokens: length, truncated };
        });
      };
      const run = this.#queue.then(work);
      this.#queue = run.catch(() => {});
      embeddings.push(...(await run));
    }
    return embeddings;
  }

  /** Frees threads, memory and files. May be called twice; everything else throws afterwards. */
  dispose(): Promise<void> {
    this.#disposed ??= this.#queue.then(async () => {
      await this.#backend.dispose();
      await this.#close();
    });
    return this.#disposed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  #alive(): void {
    if (this.#disposed) throw new LanewiseError('Disposed', `${this.name} has been disposed`);
  }

  /** @throws OptionError, ModelError of modules that are not supported */
  #recipe({ pooling, normalize }: EmbedOptions): { modules: EmbeddingModules; scaled: boolean } {
    for (const [option, value] of Object.entries({ normalize }))
      if (value !== undefined && typeof value !== 'boolean') throw new OptionError(option, 'true or false', value);
    const problem = this.#sentence.problem ?? (this.#modules instanceof LanewiseError ? this.#modules : undefined);
    const own = this.#modules instanceof LanewiseError ? undefined : this.#modules;
    if (pooling === undefined && problem) throw problem;
    let modules = problem ? defaultModules('mean') : own!;
    if (pooling !== undefined) {
      const named = poolingNamed(pooling);
      if (named === undefined) throw new OptionError('pooling', `one of ${poolings.join(', ')}`, pooling);
      // Modules of joined vectors do not fit the vector of one pooling.
      modules = modules.poolings.length === 1 ? { ...modules, poolings: [named] } : { ...defaultModules(named) };
    }
    return { modules, scaled: normalize ?? modules.normalize };
  }

  /** The text in front. @throws OptionError */
  #prompt({ prompt, promptName }: EmbedOptions, texts: readonly EmbedInput[]): string {
    const { prompts, defaultPrompt } = this.#sentence;
    if (prompt !== undefined && typeof prompt !== 'string') throw new OptionError('prompt', 'a text', prompt);
    if (prompt !== undefined && promptName !== undefined)
      throw new OptionError('promptName', 'left out where a prompt is given', promptName);
    const name = promptName ?? (prompt === undefined ? defaultPrompt : undefined);
    const found = prompt ?? (name === undefined ? '' : (prompts.get(name) ?? builtInPrompts.get(name)));
    if (found === undefined) {
      const names = [...prompts.keys()].join(', ') || 'none: the model has no prompts';
      throw new OptionError('promptName', `the name of a prompt (${names})`, promptName);
    }
    if ((prompt || promptName) && texts.some((text) => typeof text !== 'string'))
      throw new OptionError('texts', 'strings where a prompt is given, which token ids cannot follow', texts);
    return found;
  }

  /** Encodes and cuts all texts, and gives the event loop its turns. @throws OptionError, LanewiseError */
  async #inputs(texts: readonly EmbedInput[], { prompt, truncate, modules, signal }: InputOptions): Promise<Input[]> {
    const first = modules.includePrompt || prompt === '' ? 0 : this.#promptLength(prompt);
    const inputs: Input[] = [];
    let turn = performance.now();
    for (const text of texts) {
      if (performance.now() - turn > TURN_MS) {
        await nextTurn();
        signal?.throwIfAborted();
        turn = performance.now();
      }
      const whole = this.#encode(text, prompt);
      const ids = this.#fit(whole, text, truncate);
      const skipped = typeof text === 'string' ? first : 0;
      if (skipped >= ids.length) {
        const what = `${nameOf(text)} has no token behind its prompt of ${skipped} tokens within ${ids.length}`;
        throw new LanewiseError('ContextLengthExceeded', `${this.name}: ${what}; shorten the prompt`);
      }
      inputs.push({ ids, length: ids.length, first: skipped, truncated: ids.length < whole.length });
    }
    return inputs;
  }

  /** Tokens in front of a text, without the special token that ends a text. */
  #promptLength(prompt: string): number {
    const ids = this.#encode(prompt, '');
    return this.tokenizer!.specialIds.includes(ids.at(-1)!) ? ids.length - 1 : ids.length;
  }

  #warnCut(count: number): void {
    const { lengthFile } = this.#sentence;
    const what = `${count} ${count === 1 ? 'text was' : 'texts were'} cut to ${this.contextLength} tokens`;
    this.#onWarning?.(`${this.name}: ${what} as ${lengthFile} asks`);
  }

  #encode(text: EmbedInput, prompt: string): readonly number[] {
    if (typeof text === 'string') {
      if (!this.tokenizer) throw new LanewiseError('NoTokenizer', `${this.name} has no tokenizer.json: give token ids`);
      const whole = prompt + text;
      return this.tokenizer.encode(this.#sentence.lowerCase ? lowerCase(whole) : whole);
    }
    const { vocab } = this.description.config;
    const unknown = text.tokenIds.find((id) => !(Number.isInteger(id) && id >= 0 && id < vocab));
    if (unknown !== undefined) throw new OptionError('tokenIds', `made of integers from 0 to ${vocab - 1}`, unknown);
    return text.tokenIds;
  }

  /** The ids, cut where they may be: special tokens behind the text stay. */
  #fit(ids: readonly number[], text: EmbedInput, truncate: boolean): readonly number[] {
    if (ids.length === 0) throw new OptionError('texts', 'of at least one token each', text);
    const { contextLength } = this;
    if (ids.length <= contextLength) return ids;
    if (!truncate) {
      throw new LanewiseError(
        'ContextLengthExceeded',
        `${this.name}: ${nameOf(text)} has ${ids.length} tokens, the context holds ${contextLength}; shorten it, or ask to truncate`,
      );
    }
    const special = new Set(this.tokenizer?.specialIds);
    let end = ids.length;
    while (ids.length - end < contextLength && special.has(ids[end - 1]!)) end--;
    const behind = ids.slice(end);
    return [...ids.slice(0, contextLength - behind.length), ...behind];
  }

  async #forward(texts: readonly (readonly number[])[]): Promise<Results> {
    let pageCount = 0;
    const pages = texts.map(({ length }) => Int32Array.from({ length: Math.ceil(length / PAGE) }, () => pageCount++));
    await this.#backend.cache.ensure(pageCount);
    const logs = wantsForward();
    const results = await this.#backend.forward({
      tokens: Int32Array.from(texts.flat()),
      positions: Int32Array.from(texts.flatMap((ids) => [...ids.keys()])),
      sequences: Int32Array.from(texts.flatMap((ids, sequence) => ids.map(() => sequence))),
      pages,
      wanted: new Int32Array(0),
      timing: logs ?? 'off',
    });
    if (!logs) return results;
    const { plan } = this.description;
    const { times } = results;
    const rows = texts.flat().length;
    logForward(this.#timer(times), plan.steps, times, (step) => describeWork(plan, step, rows, 0));
    return results;
  }
}

/** What the forward needs of a text. */
interface Input {
  readonly ids: readonly number[];
  readonly length: number;
  /** The first token that is pooled. */
  readonly first: number;
  readonly truncated: boolean;
}

interface InputOptions {
  readonly prompt: string;
  readonly truncate: boolean;
  readonly modules: EmbeddingModules;
  readonly signal: AbortSignal | undefined;
}

/** Longest time for tokenizing without a turn of the event loop. */
const TURN_MS = 8;

/** Prompts that every model of sentence-transformers has. */
const builtInPrompts = new Map([
  ['query', ''],
  ['document', ''],
]);

/** Character by character, as the Lowercase normalizer of tokenizers. */
const lowerCase = (text: string): string => text.replaceAll('\u03a3', '\u03c3').toLowerCase();

function joined(vectors: readonly Float32Array[]): Float32Array {
  if (vectors.length === 1) return vectors[0]!;
  const whole = new Float32Array(vectors.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const vector of vectors) {
    whole.set(vector, at);
    at += vector.length;
  }
  return whole;
}

/** JSON.stringify writes typed arrays as objects with indices for keys. */
function withJson(vector: Float32Array): Float32Array {
  return Object.defineProperty(vector, 'toJSON', { value: () => numbersOf(vector) });
}

/** Nine digits tell every f32 from its neighbours. */
export const numbersOf = (vector: Float32Array): number[] =>
  Array.from(vector, (value) => Number(value.toPrecision(9)));

/** @throws OptionError */
function checkTexts(texts: readonly unknown[]): void {
  const isText = (text: unknown): boolean =>
    typeof text === 'string' ||
    (typeof text === 'object' && text !== null && 'tokenIds' in text && Array.isArray(text.tokenIds));
  // Not `find`: a bad text may be undefined.
  const bad = Array.isArray(texts) ? texts.findIndex((text) => !isText(text)) : undefined;
  if (bad === -1) return;
  throw new OptionError('texts', 'an array of strings or { tokenIds }', bad === undefined ? texts : texts[bad]);
}

const nameOf = (text: EmbedInput): string =>
  typeof text === 'string' ? `the text ${JSON.stringify(`${text.slice(0, 40)}...`)}` : 'a text of token ids';

/** Neighbours that fit one forward. */
function* batches<T extends { readonly length: number }>(texts: readonly T[]): Generator<T[]> {
  let batch: T[] = [];
  let rows = 0;
  for (const text of texts) {
    if (batch.length && (rows + text.length > SHARED_ROWS || batch.length === SHARED_TEXTS)) {
      yield batch;
      [batch, rows] = [[], 0];
    }
    batch.push(text);
    rows += text.length;
  }
  if (batch.length) yield batch;
}
