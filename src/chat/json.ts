/** JSON that keeps the spelling of numbers: Python reads `1.0` and `1e22` as floats, and integers may exceed 2^53. */

/** A number whose spelling is lost as a JavaScript number. */
export class JsonNumber {
  /** The number as written. */
  readonly source: string;

  constructor(source: string) {
    this.source = source;
  }

  /** Whether Python reads it as a float. */
  get isFloat(): boolean {
    return /[.eE]/.test(this.source);
  }

  valueOf(): number {
    return Number(this.source);
  }

  toJSON(): number {
    return this.valueOf();
  }
}

const MOST_LEVELS = 1000;
const NUMBER = /-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const STRING = /"[^"\\]*(?:\\.[^"\\]*)*"/y;
const WORD = /true|false|null/y;
/** Numbers that may need a `JsonNumber`. For a text without a match `JSON.parse` is exact. */
const REMARKABLE = /\d[.eE]|\d{16}/;

/**
 * `JSON.parse`, with a `JsonNumber` for each number whose spelling matters.
 * @throws SyntaxError
 */
export function parseJson(text: string): unknown {
  const plain: unknown = JSON.parse(text);
  return REMARKABLE.test(text) ? new Reader(text).value() : plain;
}

/** Parses a text that `JSON.parse` has accepted. */
class Reader {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  value(level = 0): unknown {
    if (level > MOST_LEVELS) throw new SyntaxError(`expected JSON of at most ${MOST_LEVELS} levels`);
    switch (this.#peek()) {
      case '{':
        return this.#object(level);
      case '[':
        return this.#array(level);
      case '"':
        return JSON.parse(this.#match(STRING));
      case 't':
      case 'f':
      case 'n':
        return JSON.parse(this.#match(WORD));
      default:
        return numberIn(this.#match(NUMBER));
    }
  }

  #object(level: number): Record<string, unknown> {
    const entries: [string, unknown][] = [];
    this.#at++;
    while (this.#peek() !== '}') {
      const key = JSON.parse(this.#match(STRING)) as string;
      this.#skip(':');
      entries.push([key, this.value(level + 1)]);
      this.#skip(',');
    }
    this.#at++;
    return Object.fromEntries(entries);
  }

  #array(level: number): unknown[] {
    const items: unknown[] = [];
    this.#at++;
    while (this.#peek() !== ']') {
      items.push(this.value(level + 1));
      this.#skip(',');
    }
    this.#at++;
    return items;
  }

  /** Skips white space and returns the next character. */
  #peek(): string {
    while (' \n\r\t'.includes(this.#text[this.#at]!)) this.#at++;
    return this.#text[this.#at]!;
  }

  #skip(mark: string): void {
    if (this.#peek() === mark) this.#at++;
  }

  #match(pattern: RegExp): string {
    pattern.lastIndex = this.#at;
    const [found] = pattern.exec(this.#text)!;
    this.#at += found.length;
    return found;
  }
}

function numberIn(source: string): number | JsonNumber {
  const number = Number(source);
  const kept = /[.eE]/.test(source)
    ? !Number.isInteger(number) && Number.isFinite(number)
    : Number.isSafeInteger(number);
  return kept ? number : new JsonNumber(source);
}

/** JSON text with the spacing of Python's json.dumps. A `JsonNumber` keeps its spelling. */
export function stringifyJson(value: unknown): string {
  if (value instanceof JsonNumber) return value.source;
  if (typeof value === 'bigint') return value.toString();
  if (Array.isArray(value)) return `[${value.map((item) => stringifyJson(item ?? null)).join(', ')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const entries = Object.entries(value).filter(([, item]) => item !== undefined);
  return `{${entries.map(([key, item]) => `${JSON.stringify(key)}: ${stringifyJson(item)}`).join(', ')}}`;
}
