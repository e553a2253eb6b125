/** Reads config.json: every value is unknown until it has been asked for by type and range. */
import { ModelError } from '../errors.ts';
import { type RopeScaling, type RopeTable, ropeTable } from '../plan/rope.ts';

/** Sizes that no model reaches; beyond them a config is hostile or broken. */
const MOST = 2 ** 24;

export class Config {
  readonly #values: Record<string, unknown>;
  readonly #path: string;

  /** @throws ModelError when `json` is not an object */
  constructor(json: unknown, path = 'config.json') {
    if (typeof json !== 'object' || json === null || Array.isArray(json)) {
      throw new ModelError('InvalidConfig', `${path}: expected an object, found ${describe(json)}`);
    }
    this.#values = json as Record<string, unknown>;
    this.#path = path;
  }

  /** Whether the key is there and not null. */
  has(key: string): boolean {
    return Object.hasOwn(this.#values, key) && this.#values[key] !== null;
  }

  fail(key: string, expected: string): never {
    const found = this.has(key) ? describe(this.#values[key]) : 'nothing';
    throw new ModelError('InvalidConfig', `${this.#path}: ${key} must be ${expected}, found ${found}`);
  }

  /** An integer of at least 1. */
  size(key: string, fallback?: number): number {
    if (!this.has(key) && fallback !== undefined) return fallback;
    const value = this.#values[key];
    if (!(Number.isInteger(value) && (value as number) >= 1 && (value as number) <= MOST))
      this.fail(key, `an integer from 1 to ${MOST}`);
    return value as number;
  }

  /** A finite number above 0. */
  positive(key: string, fallback?: number): number {
    if (!this.has(key) && fallback !== undefined) return fallback;
    const value = this.#values[key];
    if (!(typeof value === 'number' && value > 0 && value < Number.POSITIVE_INFINITY))
      this.fail(key, 'a number above 0');
    return value as number;
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

  /** One of the keys of `choices`; the value of that key. */
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

function describe(value: unknown): string {
  return (JSON.stringify(value) ?? String(value)).slice(0, 80);
}

/** Attention sizes of the Llama family, checked against each other. */
export function headSizes(config: Config, dim: number): { heads: number; kvHeads: number; headDim: number } {
  const heads = config.size('num_attention_heads');
  const kvHeads = config.size('num_key_value_heads', heads);
  if (heads % kvHeads) config.fail('num_key_value_heads', `a divisor of num_attention_heads ${heads}`);
  if (!config.has('head_dim') && dim % heads) config.fail('num_attention_heads', `a divisor of hidden_size ${dim}`);
  const headDim = config.size('head_dim', dim / heads);
  if (headDim % 2) config.fail('head_dim', 'even');
  return { heads, kvHeads, headDim };
}

/** The rope settings in either style: rope_theta + rope_scaling, or rope_parameters (per layer type where `part` is given). */
export function readRope(config: Config, name: string, headDim: number, part?: string): RopeTable {
  const parameters = config.object('rope_parameters');
  const own = (part !== undefined && parameters?.object(part)) || parameters;
  const base = own?.positive('rope_theta', 10_000) ?? config.positive('rope_theta', 10_000);
  const scaling = own ?? config.object('rope_scaling');
  return ropeTable(name, headDim, base, readScaling(scaling, config));
}

function readScaling(scaling: Config | undefined, config: Config): RopeScaling {
  const type = scaling?.has('rope_type') ? scaling.text('rope_type') : (scaling?.text('type', 'default') ?? 'default');
  if (scaling === undefined || type === 'default') return { type: 'default' };
  const original = scaling.size('original_max_position_embeddings', config.size('max_position_embeddings', 2048));
  const factor = (): number => scaling.positive('factor');
  switch (type) {
    case 'linear':
      return { type, factor: factor() };
    case 'llama3':
      return {
        type,
        factor: factor(),
        low: scaling.positive('low_freq_factor'),
        high: scaling.positive('high_freq_factor'),
        original,
      };
    case 'yarn': {
      const optional = (key: string): number | undefined => (scaling.has(key) ? scaling.positive(key) : undefined);
      return {
        type,
        factor: factor(),
        original,
        betaFast: scaling.positive('beta_fast', 32),
        betaSlow: scaling.positive('beta_slow', 1),
        magnitude: optional('attention_factor'),
        mscale: optional('mscale'),
        mscaleAllDim: optional('mscale_all_dim'),
        truncate: scaling.flag('truncate', true),
      };
    }
    default:
      return scaling.fail(scaling.has('rope_type') ? 'rope_type' : 'type', 'default, linear, llama3 or yarn');
  }
}
