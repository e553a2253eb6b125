/** The tokens that a tokenizer knows, by id and by text. */
import { TokenizerError } from '../errors.ts';
import { isWellFormed } from './settings.ts';

/** Most gaps between ids: tokens are stored in a list indexed by id. */
const MOST_HOLES = 2 ** 16;

export class Vocabulary {
  readonly #tokens: (string | undefined)[] = [];
  readonly #ids = new Map<string, number>();
  readonly #where: string;

  constructor(where: string) {
    this.#where = where;
  }

  /** One more than the largest id. */
  get size(): number {
    return this.#tokens.length;
  }

  get count(): number {
    return this.#ids.size;
  }

  /** @throws TokenizerError for an invalid id, and for a text or an id that another token has */
  add(token: unknown, id: unknown): void {
    if (typeof token !== 'string' || !isWellFormed(token)) this.#fail('expected a text of well-formed Unicode', token);
    if (typeof id !== 'number' || !Number.isInteger(id) || id < 0 || id > 16 * this.#ids.size + 2 ** 21) {
      this.#fail(`expected an id from 0 on for ${JSON.stringify(token.slice(0, 80))}`, id);
    }
    const there = this.#tokens[id];
    if (there === token) return;
    if (there !== undefined) {
      this.#fail(`expected one token with the id ${id}, there is ${JSON.stringify(there.slice(0, 80))}`, token);
    }
    const { size } = this.#ids;
    this.#ids.set(token, id);
    if (this.#ids.size === size) {
      const known = this.#tokens.indexOf(token);
      this.#fail(`expected one id for ${JSON.stringify(token.slice(0, 80))}, found ${known} and`, id);
    }
    while (this.#tokens.length < id) this.#tokens.push(undefined);
    this.#tokens[id] = token;
  }

  /** Call after the last token. @throws TokenizerError for ids far beyond the number of tokens */
  check(): void {
    if (this.size > 2 * this.count + MOST_HOLES) this.#fail(`expected ids up to ${this.count}`, this.size - 1);
  }

  token(id: number): string | undefined {
    return this.#tokens[id];
  }

  id(token: string): number | undefined {
    return this.#ids.get(token);
  }

  /** @throws TokenizerError if there is no such token */
  required(token: string, what: string): number {
    return this.#ids.get(token) ?? this.#fail(`${what}: expected a token of the vocabulary`, token);
  }

  entries(): MapIterator<[string, number]> {
    return this.#ids.entries();
  }

  #fail(expected: string, found: unknown): never {
    const shown = typeof found === 'string' ? JSON.stringify(found.slice(0, 80)) : String(found);
    throw new TokenizerError(this.#where, `${expected}, found ${shown}`);
  }
}

/** Ids of the byte tokens `<0x00>` to `<0xFF>`; undefined if one is missing. */
export function byteTokens(vocabulary: Vocabulary): Int32Array | undefined {
  const ids = Int32Array.from({ length: 256 }, (_, byte) => vocabulary.id(byteToken(byte)) ?? -1);
  return ids.includes(-1) ? undefined : ids;
}

const byteToken = (byte: number): string => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`;
