/**
 * A JSON scanner over UTF-8 bytes (RFC 8259). `JSON.parse` will not do: it accepts duplicate keys, rounds integers beyond
 * 2^53, cannot tell 2.0 and 1e3 from integers, and its error texts differ between engines.
 */
import type { FormatErrorCode } from '../error-codes.ts';
import { FormatError } from '../errors.ts';
import type { FileFolder } from './bytes.ts';

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const ESCAPES = new Map([...'"\\/bfnrt'].map((letter, i) => [letter.charCodeAt(0), '"\\/\b\f\n\r\t'[i]!]));

const HALF_PAIR = /\p{Surrogate}/u;
const LATIN1 = new TextDecoder('latin1');
const SCALAR = /^(?:true|false|null|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?)$/;
const isDelimiter = (byte: number): boolean => byte <= 0x20 || ',:[]{}"'.includes(String.fromCharCode(byte));

/** A cursor over JSON text. Every `FormatError` carries the byte offset in the file: `base` + position. */
export class JsonScanner {
  position = 0;
  private readonly decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  private readonly bytes: Uint8Array;
  private readonly file: string;
  private readonly base: number;
  private readonly syntaxCode: FormatErrorCode;

  /** @param options.syntaxCode the code of syntax errors @throws FormatError InvalidUtf8 */
  constructor(bytes: Uint8Array, file: string, options: { base?: number; syntaxCode: FormatErrorCode }) {
    this.bytes = bytes;
    this.file = file;
    this.base = options.base ?? 0;
    this.syntaxCode = options.syntaxCode;
    const bad = firstInvalidUtf8(bytes);
    if (bad >= 0) throw this.error('InvalidUtf8', 'not valid UTF-8', bad);
    if (bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf) {
      throw this.error('InvalidUtf8', 'expected JSON without a byte order mark in front', 0);
    }
  }

  error(code: FormatErrorCode, what: string, at: number = this.position, key?: string): FormatError {
    return new FormatError(code, this.file, what, { offset: this.base + at, key });
  }

  /** The error for a position where something else than `expected` was found. */
  unexpected(expected: string, code: FormatErrorCode = this.syntaxCode, key?: string): FormatError {
    return this.error(code, `expected ${expected}, found ${this.describe()}`, this.position, key);
  }

  /** Skips whitespace and returns the next byte, or -1 at the end, without taking it. */
  peek(): number {
    let byte = this.bytes[this.position];
    while (byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09) byte = this.bytes[++this.position];
    return byte ?? -1;
  }

  /** Skips whitespace, then takes `character` if it is next. Returns whether it was. */
  take(character: string): boolean {
    if (this.peek() !== character.charCodeAt(0)) return false;
    this.position++;
    return true;
  }

  expect(character: string, code?: FormatErrorCode, key?: string): void {
    if (!this.take(character)) throw this.unexpected(`"${character}"`, code, key);
  }

  /** Throws unless only whitespace follows. */
  expectEnd(): void {
    if (this.peek() !== -1) throw this.unexpected('nothing more');
  }

  /** Reads an object: `entry` is called with each key, the scanner standing at the value, which it must consume. */
  object(entry: (key: string, at: number) => void): void {
    this.expect('{');
    if (this.take('}')) return;
    const keys = new Set<string>();
    do {
      this.peek();
      const at = this.position;
      const key = this.string('a key in double quotes');
      if (keys.has(key)) throw this.error('DuplicateKey', 'the key occurs twice in one object', at, key);
      keys.add(key);
      this.expect(':');
      entry(key, at);
    } while (this.take(','));
    this.expect('}');
  }

  /** Reads an array: `item` is called with the scanner standing at each value, which it must consume. */
  array(item: () => void): void {
    this.expect('[');
    if (this.take(']')) return;
    do item();
    while (this.take(','));
    this.expect(']');
  }

  string(expected = 'a string', code?: FormatErrorCode, key?: string): string {
    if (this.peek() !== QUOTE) throw this.unexpected(expected, code, key);
    let from = ++this.position;
    let text = '';
    for (;;) {
      const byte = this.bytes[this.position];
      if (byte === undefined) throw this.unexpected('the end of a string');
      if (byte < 0x20) throw this.unexpected('control characters in strings to be escaped');
      if (byte === QUOTE) {
        text += this.decoder.decode(this.bytes.subarray(from, this.position++));
        if (HALF_PAIR.test(text)) throw this.error(this.syntaxCode, 'half of a surrogate pair in a string', from);
        return text;
      }
      if (byte === BACKSLASH) {
        text += this.decoder.decode(this.bytes.subarray(from, this.position++)) + this.escape();
        from = this.position;
      } else {
        this.position++;
      }
    }
  }

  private escape(): string {
    const letter = this.bytes[this.position];
    const plain = letter === undefined ? undefined : ESCAPES.get(letter);
    if (plain !== undefined) {
      this.position++;
      return plain;
    }
    const hex = String.fromCharCode(...this.bytes.subarray(this.position + 1, this.position + 5));
    if (letter !== 0x75 || !/^[0-9a-fA-F]{4}$/.test(hex)) throw this.unexpected('an escape such as \\n or \\u00e9');
    this.position += 5;
    return String.fromCharCode(Number.parseInt(hex, 16));
  }

  /**
   * An integer from 0 to 2^53 - 1, written without sign, fraction and exponent.
   * @throws FormatError with `codes.kind` for any other value, `codes.range` for a larger integer
   */
  integer(codes: { kind: FormatErrorCode; range: FormatErrorCode }, key?: string): number {
    this.peek();
    const start = this.position;
    let value = 0;
    let digit = this.digit();
    if (digit < 0) throw this.unexpected('an integer of 0 or more', codes.kind, key);
    for (; digit >= 0; digit = this.digit()) {
      if (this.position > start && this.bytes[start] === 0x30) throw this.unexpected('no digit after a leading 0');
      value = value * 10 + digit;
      if (value > Number.MAX_SAFE_INTEGER) {
        throw this.error(codes.range, 'expected an integer below 2^53', start, key);
      }
      this.position++;
    }
    const next = this.bytes[this.position];
    if (next === 0x2e || next === 0x65 || next === 0x45) {
      this.position = start;
      throw this.unexpected('an integer without fraction or exponent', codes.kind, key);
    }
    return value;
  }

  private digit(): number {
    const byte = this.bytes[this.position];
    return byte !== undefined && byte >= 0x30 && byte <= 0x39 ? byte - 0x30 : -1;
  }

  /** Skips a number, `true`, `false` or `null`. */
  skipScalar(): void {
    this.peek();
    const start = this.position;
    for (let byte = this.bytes[start]; byte !== undefined && !isDelimiter(byte); byte = this.bytes[++this.position]);
    const text = LATIN1.decode(this.bytes.subarray(start, this.position));
    if (SCALAR.test(text)) return;
    this.position = start;
    throw this.unexpected('a value');
  }

  private describe(): string {
    if (this.position >= this.bytes.length) return 'the end of the text';
    const rest = this.bytes.subarray(this.position, this.position + 24);
    const end = rest.findIndex(isDelimiter);
    return JSON.stringify(LATIN1.decode(rest.subarray(0, end < 0 ? rest.length : Math.max(end, 1))));
  }
}

/** Position of the first invalid UTF-8 sequence (RFC 3629: no overlong forms, no surrogates, up to U+10FFFF), or -1. */
function firstInvalidUtf8(bytes: Uint8Array): number {
  for (let i = 0; i < bytes.length; ) {
    const lead = bytes[i]!;
    if (lead < 0x80) {
      i++;
      continue;
    }
    const length = lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
    if (length === 0 || i + length > bytes.length) return i;
    const second = bytes[i + 1]!;
    const least = lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80;
    const most = lead === 0xed ? 0x9f : lead === 0xf4 ? 0x8f : 0xbf;
    if (second < least || second > most) return i;
    for (let k = 2; k < length; k++) if ((bytes[i + k]! & 0xc0) !== 0x80) return i;
    i += length;
  }
  return -1;
}

const pathOf = (folder: FileFolder, name: string): string => `${folder.name}/${name}`;

export const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** Largest text file accepted, in bytes. Tokenizers of 262144 tokens with merges have 33 MB. */
const TEXT_LIMIT = 256 * 2 ** 20;

/**
 * Reads a text file of a model folder; undefined if there is none.
 * @throws FormatError TooLarge (before anything is read), InvalidUtf8
 */
export async function readText(folder: FileFolder, name: string, limit = TEXT_LIMIT): Promise<string | undefined> {
  const source = await folder.open(name);
  if (!source) return undefined;
  const file = pathOf(folder, name);
  try {
    if (source.byteLength > limit) {
      throw new FormatError('TooLarge', file, `expected at most ${limit} bytes, found ${source.byteLength}`);
    }
    const bytes = await source.read(0, source.byteLength);
    const bad = firstInvalidUtf8(bytes);
    if (bad >= 0) throw new FormatError('InvalidUtf8', file, 'not valid UTF-8', { offset: bad });
    return new TextDecoder().decode(bytes);
  } finally {
    await source.dispose();
  }
}

/**
 * Reads a JSON file of a model folder; undefined if there is none. NaN and Infinity, as Python writes them, are accepted.
 * @throws FormatError InvalidJson with the byte offset of the mistake, InvalidUtf8, TooLarge
 */
export async function readJson(folder: FileFolder, name: string, limit = TEXT_LIMIT): Promise<unknown> {
  const text = await readText(folder, name, limit);
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return parsePythonJson(text, pathOf(folder, name));
  }
}

/** @throws FormatError InvalidJson */
function parsePythonJson(text: string, file: string): unknown {
  const marker = '\u0000NaN';
  const replaced = (nan: string, infinity: string): string =>
    replaceNumbers(text, (found) => (found === 'NaN' ? nan : found.replace('Infinity', infinity)));
  try {
    const value = (_: string, item: unknown): unknown => (item === marker ? Number.NaN : item);
    return JSON.parse(replaced(JSON.stringify(marker), '1e999'), /\bNaN\b/.test(text) ? value : undefined);
  } catch {
    // Replacements of equal length keep the byte offsets in the error right.
    throw jsonError(replaced('999', '99999999'), file);
  }
}

/** Replaces NaN, Infinity and -Infinity outside strings: Python's json module writes them, JSON does not have them. */
function replaceNumbers(text: string, change: (found: string) => string): string {
  const next = /"|(?<![\w.+-])(?:-?Infinity|NaN)(?![\w.])/g;
  let [out, from] = ['', 0];
  for (let found = next.exec(text); found; found = next.exec(text)) {
    const [word] = found;
    if (word !== '"') {
      out += text.slice(from, found.index) + change(word);
      from = next.lastIndex;
      continue;
    }
    let end = next.lastIndex;
    while (end < text.length && text[end] !== '"') end += text[end] === '\\' ? 2 : 1;
    next.lastIndex = end + 1;
  }
  return out + text.slice(from);
}

/** Scans a text that `JSON.parse` refused, so that the error is the same in every engine. */
function jsonError(text: string, file: string): FormatError {
  const scanner = new JsonScanner(new TextEncoder().encode(text), file, { syntaxCode: 'InvalidJson' });
  try {
    skipValue(scanner);
    scanner.expectEnd();
  } catch (error) {
    if (error instanceof FormatError) return error;
  }
  return scanner.error('InvalidJson', 'not valid JSON');
}

function skipValue(scanner: JsonScanner): void {
  const first = scanner.peek();
  if (first === 0x7b) scanner.object(() => skipValue(scanner));
  else if (first === 0x5b) scanner.array(() => skipValue(scanner));
  else if (first === QUOTE) scanner.string();
  else scanner.skipScalar();
}
