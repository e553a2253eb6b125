/** Reads config.json. Each getter checks type and range, and throws an error that names the key. */
import { ModelError } from '../errors.ts';
import type { Activation } from '../plan/step.ts';

/** Largest size accepted: no model comes near it. */
const MOST = 2 ** 24;

export class Config {
  readonly #values: Record<string, unknown>;
  readonly #path: string;

  /** @throws ModelError if `json` is not an object */
  constructor(json: unknown, path = 'config.json') {
    if (typeof json !== 'object' || json === null || Array.isArray(json)) {
      throw new ModelError('InvalidConfig', `${path}: expected an object, found ${describe(json)}`);
    }
    this.#values = json as Record<string, unknown>;
    this.#path = path;
  }

  /** File and key of the object, named in errors. */
  get path(): string {
    return this.#path;
  }

  /** Whether the key is present and not null. */
  has(key: string): boolean {
    return Object.hasOwn(this.#values, key) && this.#values[key] !== null;
  }

  /** Whether the key is present, even if null: some defaults apply to absent keys only. */
  names(key: string): boolean {
    return Object.hasOwn(this.#values, key);
  }

  fail(key: string, expected: string): never {
    const found = this.has(key) ? describe(this.#values[key]) : 'nothing';
    throw new ModelError('InvalidConfig', `${this.#path}: ${key} must be ${expected}, found ${found}`);
  }

  /** An integer of at least 1. */
  size(key: string, fallback?: number): number {
    return this.#integer(key, 1, fallback);
  }

  /** An integer of at least 0. */
  count(key: string, fallback?: number): number {
    return this.#integer(key, 0, fallback);
  }

  #integer(key: string, least: number, fallback?: number): number {
    if (!this.has(key) && fallback !== undefined) return fallback;
    const value = this.#values[key];
    if (!(Number.isInteger(value) && (value as number) >= least && (value as number) <= MOST))
      this.fail(key, `an integer from ${least} to ${MOST}`);
    return value as number;
  }

  /** A finite number above 0. */
  positive(key: string, fallback?: number): number {
    if (!this.has(key) && fallback !== undefined) return fallback;
    const value = this.#values[key];
    if (!isPositive(value)) this.fail(key, 'a number above 0');
    return value as number;
  }

  /** The key read by `size` or `positive`; undefined if it is null, `fallback` if it is absent. */
  optional(key: string, kind: 'size' | 'positive', fallback?: number): number | undefined {
    if (!this.names(key)) return fallback;
    return this.has(key) ? this[kind](key) : undefined;
  }

  /** A list of `count` numbers above 0. */
  positives(key: string, count: number): number[] {
    const value = this.#values[key];
    if (!(Array.isArray(value) && value.length === count && value.every(isPositive)))
      this.fail(key, `a list of ${count} numbers above 0`);
    return value as number[];
  }

  /** A list of `count` flags: true and false, or 1 and 0. */
  flags(key: string, count: number): boolean[] {
    const value = this.#values[key];
    if (!(Array.isArray(value) && value.length === count && value.every((item) => [true, false, 1, 0].includes(item))))
      this.fail(key, `a list of ${count} times 0 or 1`);
    return (value as unknown[]).map(Boolean);
  }

  /** A list of integers of at least 0; empty if the key is absent. */
  counts(key: string): number[] {
    if (!this.has(key)) return [];
    const value = this.#values[key];
    if (!(Array.isArray(value) && value.every((item) => Number.isInteger(item) && item >= 0)))
      this.fail(key, 'a list of integers of at least 0');
    return value as number[];
  }

  flag(key: string, fallback: boolean): boolean {
    if (!this.has(key)) return fallback;
    const value = this.#values[key];
    if (typeof value !== 'boolean') this.fail(key, 'true or false');
    return value as boolean;
  }

  text(key: string, fallback?: string): string {
    if (!this.has(key) && fallback !== undefined) return fallback;
    const value = this.#values[key];
    if (typeof value !== 'string') this.fail(key, 'a text');
    return value as string;
  }

  /** The value in `choices` of the text under `key`. */
  choice<T>(key: string, choices: Readonly<Record<string, T>>, fallback?: string): T {
    const value = this.text(key, fallback);
    if (!Object.hasOwn(choices, value)) this.fail(key, `one of ${Object.keys(choices).join(', ')}`);
    return choices[value]!;
  }

  texts(key: string): string[] | undefined {
    if (!this.has(key)) return undefined;
    const value = this.#values[key];
    if (!Array.isArray(value) || !value.every((item) => typeof item === 'string')) this.fail(key, 'a list of texts');
    return value as string[];
  }

  /** Token ids: a number or a list of them. */
  ids(key: string): number[] {
    if (!this.has(key)) return [];
    const value = this.#values[key];
    const ids = Array.isArray(value) ? value : [value];
    if (!ids.every((id) => Number.isInteger(id) && id >= 0 && id < 2 ** 31))
      this.fail(key, 'a token id or a list of them');
    return ids as number[];
  }

  object(key: string): Config | undefined {
    return this.has(key) ? new Config(this.#values[key], `${this.#path}: ${key}`) : undefined;
  }
}

const isPositive = (value: unknown): boolean =>
  typeof value === 'number' && value > 0 && value < Number.POSITIVE_INFINITY;

function describe(value: unknown): string {
  // JSON cannot express NaN and Infinity.
  return (typeof value === 'number' ? String(value) : (JSON.stringify(value) ?? String(value))).slice(0, 80);
}

/** Activations by their names in activations.py of transformers. */
const activations: Readonly<Record<string, Activation>> = {
  silu: 'silu',
  swish: 'silu',
  gelu: 'gelu',
  gelu_new: 'gelu_tanh',
  gelu_fast: 'gelu_tanh',
  gelu_pytorch_tanh: 'gelu_tanh',
  relu: 'relu',
};

export const readActivation = (config: Config, key: string, fallback: string): Activation =>
  config.choice(key, activations, fallback);

export interface HeadDefaults {
  /** Used if num_key_value_heads is absent; null means as many as heads. */
  readonly kvHeads?: number;
  /** Used if head_dim is absent; null means hidden_size / heads. */
  readonly headDim?: number;
}

/** Reads the attention sizes and checks them against each other. */
export function headSizes(
  config: Config,
  dim: number,
  defaults: HeadDefaults = {},
): { heads: number; kvHeads: number; headDim: number } {
  const heads = config.size('num_attention_heads');
  const kvHeads = config.optional('num_key_value_heads', 'size', defaults.kvHeads) ?? heads;
  if (heads % kvHeads) config.fail('num_key_value_heads', `a divisor of num_attention_heads ${heads}`);
  const headDim = config.optional('head_dim', 'size', defaults.headDim) ?? dim / heads;
  if (headDim % 1) config.fail('num_attention_heads', `a divisor of hidden_size ${dim}`);
  return { heads, kvHeads, headDim };
}

/** ModelSizes of every model. */
export interface ModelSizes {
  readonly layers: number;
  readonly dim: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly ffn: number;
  readonly vocab: number;
  /** Number of positions that the model supports. */
  readonly contextLength: number;
  /** Whether the output head, if any, is the token embedding. */
  readonly tied: boolean;
}

export interface SizeDefaults extends HeadDefaults {
  readonly contextLength: number;
  readonly tied: boolean;
}

/** Reads the sizes of a decoder by the usual names. The defaults of absent keys differ between models. */
export function readSizes(config: Config, defaults: SizeDefaults): ModelSizes {
  const dim = config.size('hidden_size');
  return {
    ...headSizes(config, dim, defaults),
    dim,
    layers: config.size('num_hidden_layers'),
    ffn: config.size('intermediate_size'),
    vocab: config.size('vocab_size'),
    contextLength: config.size('max_position_embeddings', defaults.contextLength),
    tied: config.flag('tie_word_embeddings', defaults.tied),
  };
}

/** Whether each layer has a sliding window: from `layer_types`, else from `slides`. */
export function readSliding(config: Config, layers: number, slides: (layer: number) => boolean): boolean[] {
  const types = config.texts('layer_types');
  if (types === undefined) return Array.from({ length: layers }, (_, i) => slides(i));
  if (types.length !== layers || types.some((type) => type !== 'sliding_attention' && type !== 'full_attention'))
    config.fail('layer_types', `${layers} times sliding_attention or full_attention`);
  return types.map((type) => type === 'sliding_attention');
}
