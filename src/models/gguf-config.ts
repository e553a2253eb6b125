/** Reads the metadata of a GGUF file. Each getter checks type and range, and throws an error that names the key. */
import { ModelError } from '../errors.ts';
import type { GgufMetadata, GgufValue } from '../formats/gguf-types.ts';

/** Largest size accepted: no model comes near it. */
const MOST = 2 ** 24;

export class GgufConfig {
  /** `general.architecture`. */
  readonly architecture: string;
  readonly #metadata: GgufMetadata;
  readonly #file: string;

  /** @throws ModelError if no architecture is named */
  constructor(metadata: GgufMetadata, file: string) {
    this.#metadata = metadata;
    this.#file = file;
    this.architecture = '';
    this.architecture = this.text('general.architecture');
  }

  /** Adds the name of the architecture to its keys: `block_count` becomes `llama.block_count`. */
  #key(key: string): string {
    return /^(general|tokenizer)\./.test(key) ? key : `${this.architecture}.${key}`;
  }

  #find(key: string): GgufValue | undefined {
    return this.#metadata.get(this.#key(key));
  }

  has(key: string): boolean {
    return this.#find(key) !== undefined;
  }

  fail(key: string, expected: string): never {
    const found = this.#find(key);
    throw new ModelError(
      'InvalidConfig',
      `${this.#file}: ${this.#key(key)} must be ${expected}, found ${describe(found)}`,
    );
  }

  /** An integer of at least 1. A list of equal values, one per layer, is accepted too. */
  size(key: string, fallback?: number): number {
    const found = this.#find(key);
    if (found === undefined && fallback !== undefined) return fallback;
    const values = found && integersOf(found);
    const value = values?.[0];
    if (value === undefined || value < 1 || value > MOST) this.fail(key, `an integer from 1 to ${MOST}`);
    if (values!.some((other) => other !== value)) this.fail(key, 'the same for all layers');
    return value!;
  }

  /** An integer of at least 1 per layer; a single value applies to all layers. */
  sizes(key: string, layers: number): number[] {
    const found = this.#find(key);
    const values = found && integersOf(found);
    const right = values?.length === layers || (found?.type !== 'array' && values?.length === 1);
    if (!right || values!.some((value) => value < 1 || value > MOST))
      this.fail(key, `${layers} integers from 1 to ${MOST}`);
    return values!.length === layers ? values! : Array.from({ length: layers }, () => values![0]!);
  }

  /** A flag per layer. */
  flags(key: string, layers: number): boolean[] {
    const found = this.#find(key);
    if (!(found?.type === 'array' && found.of === 'bool' && found.value.length === layers))
      this.fail(key, `a list of ${layers} times true or false`);
    return [...(found!.value as readonly boolean[])];
  }

  /** A finite number above 0, stored as a float. */
  positive(key: string, fallback?: number): number {
    const found = this.#find(key);
    if (found === undefined && fallback !== undefined) return fallback;
    const isFloat = found?.type === 'float32' || found?.type === 'float64';
    const value = isFloat ? Number(found.value) : Number.NaN;
    if (!(value > 0 && value < Number.POSITIVE_INFINITY)) this.fail(key, 'a float above 0');
    return value;
  }

  flag(key: string, fallback: boolean): boolean {
    const found = this.#find(key);
    if (found === undefined) return fallback;
    if (found.type !== 'bool') this.fail(key, 'true or false');
    return found.value as boolean;
  }

  text(key: string, fallback?: string): string {
    const found = this.#find(key);
    if (found === undefined && fallback !== undefined) return fallback;
    if (found?.type !== 'string') this.fail(key, 'a text');
    return found!.value as string;
  }

  /** An integer of at least 0, such as a token id; undefined if the key is absent. */
  count(key: string): number | undefined {
    const found = this.#find(key);
    if (found === undefined) return undefined;
    const [value] = found.type === 'array' ? [] : (integersOf(found) ?? []);
    if (value === undefined || value < 0 || value >= 2 ** 31) this.fail(key, 'an integer from 0 to 2^31');
    return value;
  }
}

/** The values of an integer or a list of them; undefined for everything else. */
function integersOf(found: GgufValue): number[] | undefined {
  if (found.type === 'array') {
    if (found.of === 'string' || found.of === 'bool' || found.of.startsWith('float')) return undefined;
    return Array.from(found.value as Iterable<number | bigint>, Number);
  }
  if (found.type === 'string' || found.type === 'bool' || found.type.startsWith('float')) return undefined;
  return [Number(found.value)];
}

function describe(found: GgufValue | undefined): string {
  if (found === undefined) return 'nothing';
  if (found.type === 'array') return `an array of ${found.value.length} ${found.of}`;
  return found.type === 'string' ? JSON.stringify(found.value.slice(0, 80)) : `${found.value} (${found.type})`;
}
