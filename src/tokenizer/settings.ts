/** Reads an object of tokenizer settings. Each getter checks the type and throws an error that names the key. */
import { TokenizerError } from '../errors.ts';

export class Settings {
  /** File and path, named in errors. */
  readonly where: string;
  readonly #fields: Readonly<Record<string, unknown>>;

  /** @throws TokenizerError if the value is not an object */
  constructor(value: unknown, where: string) {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw new TokenizerError(where, `expected an object, found ${shown(value)}`);
    }
    this.where = where;
    this.#fields = value as Record<string, unknown>;
  }

  fail(key: string, expected: string): never {
    throw new TokenizerError(`${this.where}.${key}`, `expected ${expected}, found ${shown(this.get(key))}`);
  }

  /** Undefined if the key is absent or null. */
  get(key: string): unknown {
    return Object.hasOwn(this.#fields, key) ? (this.#fields[key] ?? undefined) : undefined;
  }

  has(key: string): boolean {
    return this.get(key) !== undefined;
  }

  string(key: string, fallback?: string): string {
    const value = this.get(key) ?? fallback;
    if (typeof value !== 'string' || !isWellFormed(value)) this.fail(key, 'a text of well-formed Unicode');
    return value;
  }

  /** One of `names`. */
  oneOf<T extends string>(key: string, names: readonly T[], fallback?: T): T {
    const value = this.string(key, fallback);
    return names.find((name) => name === value) ?? this.fail(key, `one of ${names.join(', ')}`);
  }

  flag(key: string, fallback: boolean): boolean {
    const value = this.get(key) ?? fallback;
    return typeof value === 'boolean' ? value : this.fail(key, 'true or false');
  }

  integer(key: string, least: number, most: number, fallback?: number): number {
    const value = this.get(key) ?? fallback;
    const fits = typeof value === 'number' && Number.isInteger(value) && value >= least && value <= most;
    return fits ? value : this.fail(key, `an integer from ${least} to ${most}`);
  }

  object(key: string): Settings {
    return new Settings(this.get(key), `${this.where}.${key}`);
  }

  optional(key: string): Settings | undefined {
    return this.has(key) ? this.object(key) : undefined;
  }

  list(key: string, fallback?: readonly unknown[]): readonly unknown[] {
    const value = this.get(key) ?? fallback;
    return Array.isArray(value) ? value : this.fail(key, 'a list');
  }

  objects(key: string, fallback?: readonly unknown[]): Settings[] {
    return this.list(key, fallback).map((value, i) => new Settings(value, `${this.where}.${key}[${i}]`));
  }

  /** A generator, because `Object.entries` of a large vocabulary takes four times as long. */
  *entries(): Generator<[string, unknown]> {
    for (const key of Object.keys(this.#fields)) yield [key, this.#fields[key]];
  }
}

/** Whether a text has no lone surrogates. */
export const isWellFormed = (text: string): boolean => !/\p{Surrogate}/u.test(text);

function shown(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (Array.isArray(value)) return `a list of ${value.length}`;
  if (typeof value === 'object' && value !== null) return 'an object';
  return JSON.stringify(value)?.slice(0, 80) ?? typeof value;
}
