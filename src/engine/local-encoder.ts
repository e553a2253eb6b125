/**
 * An encoder's engine in the calling thread: tokenizes texts, computes them in shared forwards and pools the hidden
 * states.
 */
import type { Backend, Results } from '../backend/backend.ts';
import type { Explanation } from '../backend/explanation.ts';
import { defaultModules, type EmbeddingModules } from '../embedding/modules.ts';
import { normalize, pool, poolingNamed, poolings } from '../embedding/pooling.ts';
import type { SentenceSettings } from '../embedding/sentence-settings.ts';
import { LanewiseError, OptionError } from '../errors.ts';
import type { TextEvaluator } from '../evaluate/text-evaluator.ts';
import { nextTurn } from '../event-loop.ts';
import { tracedNow } from '../profile/trace.ts';
import type { LineStats } from '../schedule/scheduler.ts';
import { TextScheduler } from '../schedule/text-scheduler.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { type Embedding, type EmbedInput, type EmbedOptions, withJson } from './embed-types.ts';
import type { EncoderEngine, EncoderInfo } from './encoder-engine.ts';

export interface LocalEncoderParts {
  readonly evaluator: TextEvaluator;
  readonly tokenizer: Tokenizer | undefined;
  readonly contextLength: number;
  readonly quantize: string;
  readonly explanations: readonly Explanation[];
  /** The model's modules, or the error if they are not supported. */
  readonly modules: EmbeddingModules | LanewiseError;
  readonly sentence: SentenceSettings;
  /** Whether longer texts are cut by default. */
  readonly truncates: boolean;
  readonly maxQueue: number;
  readonly onWarning?: (text: string) => void;
}

export class LocalEncoder implements EncoderEngine {
  readonly info: EncoderInfo;
  readonly tokenizer: Tokenizer | undefined;
  readonly #evaluator: TextEvaluator;
  readonly #scheduler: TextScheduler;
  readonly #modules: EmbeddingModules | LanewiseError;
  readonly #sentence: SentenceSettings;
  readonly #truncates: boolean;
  readonly #onWarning: LocalEncoderParts['onWarning'];
  #disposed: Promise<void> | undefined;

  constructor(parts: LocalEncoderParts) {
    const { evaluator, tokenizer, contextLength, quantize, explanations, maxQueue, sentence } = parts;
    const { name, description, backend } = evaluator;
    const { loadTimes, threads, vectorBits } = backend;
    const { prompts, similarity } = sentence;
    const loaded = { name, description, contextLength, quantize, loadTimes, threads, vectorBits, explanations };
    this.info = { ...loaded, prompts, similarity };
    this.tokenizer = tokenizer;
    this.#evaluator = evaluator;
    this.#scheduler = new TextScheduler(evaluator, { maxQueue });
    this.#modules = parts.modules;
    this.#sentence = sentence;
    this.#truncates = parts.truncates;
    this.#onWarning = parts.onWarning;
  }

  memory(): ReturnType<Backend['memory']> {
    return this.#evaluator.backend.memory();
  }

  stats(): LineStats {
    return this.#scheduler.stats();
  }

  async embed(texts: readonly EmbedInput[], options: EmbedOptions): Promise<Embedding[]> {
    if (this.#disposed) throw this.#gone();
    checkTexts(texts);
    const { truncate, signal } = options;
    signal?.throwIfAborted();
    const place = placeInLine(options);
    const { modules, scaled } = this.#recipe(options);
    const prompt = this.#prompt(options, texts);
    const inputs = await this.#inputs(texts, { prompt, truncate: truncate ?? this.#truncates, modules, signal });
    const cut = inputs.filter(({ truncated }) => truncated).length;
    if (cut > 0 && truncate === undefined) this.#warnCut(cut);
    const embeddings: Embedding[] = [];
    const take = (index: number, results: Results, begin: number): void => {
      const { ids, first, truncated } = inputs[index]!;
      const row = (i: number): Float32Array => results.output(begin + i);
      const pooled = joined(modules.poolings.map((pooling) => pool(ids.length, row, pooling, first)));
      const vector = modules.modules.reduce((values, run) => run(values), pooled);
      const embedding = withJson(scaled ? normalize(vector) : vector);
      embeddings[index] = { embedding, tokens: ids.length, truncated };
    };
    await this.#scheduler.submit({ texts: inputs.map(({ ids }) => ids), ...place, take }, signal);
    return embeddings;
  }

  dispose(): Promise<void> {
    this.#disposed ??= (async () => {
      this.#scheduler.dispose(this.#gone());
      await this.#evaluator.dispose();
    })();
    return this.#disposed;
  }

  #gone(): LanewiseError {
    return new LanewiseError('Disposed', `${this.info.name} has been disposed`);
  }

  /** Pooling, modules and scaling for a call. @throws OptionError, ModelError for unsupported modules */
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
      // Modules for concatenated vectors do not fit the vector of a single pooling.
      modules = modules.poolings.length === 1 ? { ...modules, poolings: [named] } : { ...defaultModules(named) };
    }
    return { modules, scaled: normalize ?? modules.normalize };
  }

  /** The prompt to put in front of texts. @throws OptionError */
  #prompt({ prompt, promptName }: EmbedOptions, texts: readonly EmbedInput[]): string {
    const { prompts, defaultPrompt } = this.#sentence;
    if (prompt !== undefined && typeof prompt !== 'string') throw new OptionError('prompt', 'a text', prompt);
    if (prompt !== undefined && promptName !== undefined)
      throw new OptionError('promptName', 'left out if a prompt is given', promptName);
    const name = promptName ?? (prompt === undefined ? defaultPrompt : undefined);
    const found = prompt ?? (name === undefined ? '' : (prompts.get(name) ?? builtInPrompts.get(name)));
    if (found === undefined) {
      const names = [...prompts.keys()].join(', ') || 'none: the model has no prompts';
      throw new OptionError('promptName', `the name of a prompt (${names})`, promptName);
    }
    if ((prompt || promptName) && texts.some((text) => typeof text !== 'string'))
      throw new OptionError('texts', 'strings if a prompt is given, since token ids cannot follow it', texts);
    return found;
  }

  /** Encodes and cuts all texts, giving way to the event loop. @throws OptionError, LanewiseError */
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
      const encode = (): readonly number[] => this.#encode(text, prompt);
      const whole = tracedNow(this.#evaluator.trace, 'tokenize', encode, (ids) => ({ tokens: ids.length }));
      const ids = this.#fit(whole, text, truncate);
      const skipped = typeof text === 'string' ? first : 0;
      if (skipped >= ids.length) {
        const what = `${nameOf(text)} has no token after its prompt of ${skipped} tokens within ${ids.length}`;
        throw new LanewiseError('ContextLengthExceeded', `${this.info.name}: ${what}; shorten the prompt`);
      }
      inputs.push({ ids, first: skipped, truncated: ids.length < whole.length });
    }
    return inputs;
  }

  /** Number of tokens before a text: the prompt, without the special token at its end. */
  #promptLength(prompt: string): number {
    const ids = this.#encode(prompt, '');
    return this.tokenizer!.specialIds.includes(ids.at(-1)!) ? ids.length - 1 : ids.length;
  }

  #warnCut(count: number): void {
    const { lengthFile } = this.#sentence;
    const what = `${count} ${count === 1 ? 'text was' : 'texts were'} cut to ${this.info.contextLength} tokens`;
    this.#onWarning?.(`${this.info.name}: ${what} as ${lengthFile} asks`);
  }

  #encode(text: EmbedInput, prompt: string): readonly number[] {
    if (typeof text === 'string') {
      if (!this.tokenizer)
        throw new LanewiseError('NoTokenizer', `${this.info.name} has no tokenizer.json: give token ids`);
      const whole = prompt + text;
      return this.tokenizer.encode(this.#sentence.lowerCase ? lowerCase(whole) : whole);
    }
    const { vocab } = this.info.description.config;
    const unknown = text.tokenIds.find((id) => !(Number.isInteger(id) && id >= 0 && id < vocab));
    if (unknown !== undefined) throw new OptionError('tokenIds', `made of integers from 0 to ${vocab - 1}`, unknown);
    return text.tokenIds;
  }

  /** The ids, cut to the context if allowed; special tokens at the end are kept. */
  #fit(ids: readonly number[], text: EmbedInput, truncate: boolean): readonly number[] {
    if (ids.length === 0) throw new OptionError('texts', 'of at least one token each', text);
    const { contextLength } = this.info;
    if (ids.length <= contextLength) return ids;
    if (!truncate) {
      throw new LanewiseError(
        'ContextLengthExceeded',
        `${this.info.name}: ${nameOf(text)} has ${ids.length} tokens, the context holds ${contextLength}; shorten it, or ask to truncate`,
      );
    }
    const special = new Set(this.tokenizer?.specialIds);
    let end = ids.length;
    while (ids.length - end < contextLength && special.has(ids[end - 1]!)) end--;
    const behind = ids.slice(end);
    return [...ids.slice(0, contextLength - behind.length), ...behind];
  }
}

/** A text as the forward needs it. */
interface Input {
  readonly ids: readonly number[];
  /** Index of the first token that is pooled. */
  readonly first: number;
  readonly truncated: boolean;
}

interface InputOptions {
  readonly prompt: string;
  readonly truncate: boolean;
  readonly modules: EmbeddingModules;
  readonly signal: AbortSignal | undefined;
}

/** Longest time of tokenizing before a turn of the event loop. */
const TURN_MS = 8;

/** Default prompts of sentence-transformers. */
const builtInPrompts = new Map([
  ['query', ''],
  ['document', ''],
]);

/** Lower-cases character by character, like the Lowercase normalizer of tokenizers. */
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

/** @throws OptionError */
function checkTexts(texts: readonly unknown[]): void {
  const isText = (text: unknown): boolean =>
    typeof text === 'string' ||
    (typeof text === 'object' && text !== null && 'tokenIds' in text && Array.isArray(text.tokenIds));
  // Not `find`, because an invalid text may be undefined.
  const bad = Array.isArray(texts) ? texts.findIndex((text) => !isText(text)) : undefined;
  if (bad === -1) return;
  throw new OptionError('texts', 'an array of strings or { tokenIds }', bad === undefined ? texts : texts[bad]);
}

const nameOf = (text: EmbedInput): string =>
  typeof text === 'string' ? `the text ${JSON.stringify(`${text.slice(0, 40)}...`)}` : 'a text of token ids';

/** @throws OptionError */
function placeInLine({ priority = 0, fairnessKey = '' }: EmbedOptions): { priority: number; fairnessKey: string } {
  if (!Number.isSafeInteger(priority)) throw new OptionError('priority', 'an integer', priority);
  if (typeof fairnessKey !== 'string') throw new OptionError('fairnessKey', 'a string', fairnessKey);
  return { priority, fairnessKey };
}
