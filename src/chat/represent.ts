/** Python's str, repr and json.dumps. */
import { Text } from './text.ts';
import { notPrintable } from './unicode.ts';
import {
  Dict,
  Fault,
  Float,
  isTrue,
  List,
  less,
  listOf,
  Namespace,
  numberOf,
  Tuple,
  typeName,
  Undefined,
  type Value,
  View,
} from './values.ts';
import { checkLength, spend } from './work.ts';

const MOST_NESTING = 100;
const MOST_DIGITS = 4300;

/** Python's str(), as `{{ value }}` writes it. @throws Fault */
export function toText(value: Value): Text {
  if (value instanceof Text) return value;
  if (value instanceof Undefined) return new Text('');
  return represent(value);
}

/** Collects the pieces of a text and checks its length: shared parts can make a small value very long as text. */
class Pieces {
  readonly texts: Text[] = [];
  #length = 0;

  add(...texts: readonly (Text | string)[]): void {
    for (const text of texts) {
      this.#length += text.length;
      this.texts.push(typeof text === 'string' ? new Text(text) : text);
    }
    spend(8);
    checkLength(this.#length);
  }

  get joined(): Text {
    return Text.join(this.texts);
  }
}

/** Python's repr(). @throws Fault */
export function represent(value: Value): Text {
  const pieces = new Pieces();
  describe(value, pieces, []);
  return pieces.joined;
}

function describe(value: Value, pieces: Pieces, open: readonly Namespace[]): void {
  if (value instanceof Text) {
    if (value.isMarkup) pieces.add('Markup(', quoted(value), ')');
    else pieces.add(quoted(value));
  } else if (value instanceof List) listed('[', value.items, ']', pieces, open);
  else if (value instanceof Tuple) listed('(', value.items, value.items.length === 1 ? ',)' : ')', pieces, open);
  else if (value instanceof Dict) mapped(value, pieces, open);
  else if (value instanceof View) {
    pieces.add(`${value.type}(`);
    listed('[', listOf(value), '])', pieces, open);
  } else if (value instanceof Namespace) {
    pieces.add('<Namespace ');
    if (open.includes(value)) pieces.add('{...}');
    else mapped(value.dict, pieces, [...open, value]);
    pieces.add('>');
  } else pieces.add(plain(value));
}

function plain(value: Value): Text {
  if (value === null) return new Text('None');
  if (typeof value === 'boolean') return new Text(value ? 'True' : 'False');
  if (typeof value === 'number' || typeof value === 'bigint') return new Text(integerText(value));
  if (value instanceof Float) return new Text(floatText(value.value));
  if (value instanceof Undefined) return new Text('Undefined');
  return 'describe' in value ? value.describe() : new Text('');
}

function listed(begin: string, items: readonly Value[], end: string, pieces: Pieces, open: readonly Namespace[]): void {
  pieces.add(begin);
  for (const [i, item] of items.entries()) {
    if (i > 0) pieces.add(', ');
    describe(item, pieces, open);
  }
  pieces.add(end);
}

function mapped(dict: Dict, pieces: Pieces, open: readonly Namespace[]): void {
  let separator = '{';
  for (const [key, item] of dict.entries.values()) {
    pieces.add(separator);
    describe(key, pieces, open);
    pieces.add(': ');
    describe(item, pieces, open);
    separator = ', ';
  }
  pieces.add(dict.entries.size === 0 ? '{}' : '}');
}

const named: Readonly<Record<string, string>> = { '\n': '\\n', '\r': '\\r', '\t': '\\t', '\\': '\\\\' };

/** Python's escape sequence for a character. */
export function escapeCode(character: string): string {
  const code = character.codePointAt(0)!;
  const [letter, digits] = code < 256 ? ['x', 2] : code < 65536 ? ['u', 4] : ['U', 8];
  return `\\${letter}${code.toString(16).padStart(digits as number, '0')}`;
}

/** Python's repr() of a str. */
export function quoted(text: Text): Text {
  spend(text.length / 2);
  const quote = text.value.includes("'") && !text.value.includes('"') ? '"' : "'";
  const inner = text
    .replaced(/[\n\r\t\\'"]/g, (unit) => (unit === quote ? `\\${quote}` : (named[unit] ?? unit)))
    .replaced(notPrintable, escapeCode);
  return Text.join([new Text(quote), inner, new Text(quote)]);
}

/** @throws Fault beyond Python's limit of digits */
export function integerText(value: number | bigint): string {
  if (typeof value === 'number') return String(value);
  const text = value.toString();
  // Conversion to decimal takes quadratic time.
  spend(text.length ** 2 / 30_000);
  if (text.length > MOST_DIGITS) throw new Fault(`expected integers of at most ${MOST_DIGITS} digits`);
  return text;
}

/** Python's repr() of a float: `1.0`, `2.5e-07`, `1e+16`. */
export function floatText(value: number): string {
  if (Number.isNaN(value)) return 'nan';
  if (!Number.isFinite(value)) return value > 0 ? 'inf' : '-inf';
  if (Object.is(value, -0)) return '-0.0';
  const [digits, power] = value.toExponential().split('e') as [string, string];
  const exponent = Number(power);
  if (value !== 0 && (exponent < -4 || exponent >= 16)) {
    return `${digits}e${exponent < 0 ? '-' : '+'}${String(Math.abs(exponent)).padStart(2, '0')}`;
  }
  const plain = exponent < 0 ? value.toFixed(digits.replace(/[-.]/g, '').length - 1 - exponent) : String(value);
  return plain.includes('.') ? plain : `${plain}.0`;
}

export interface JsonOptions {
  /** Indentation of one level; undefined: one line. */
  readonly indent: Text | undefined;
  readonly separators: readonly [Text, Text];
  readonly sortKeys: boolean;
  readonly ensureAscii: boolean;
}

/** Python's json.dumps. @throws Fault */
export function toJson(value: Value, options: JsonOptions): Text {
  const pieces = new Pieces();
  json(value, options, pieces, 0);
  return pieces.joined;
}

function json(value: Value, options: JsonOptions, pieces: Pieces, level: number): void {
  if (level > MOST_NESTING) throw new Fault(`expected data of at most ${MOST_NESTING} levels`);
  if (value instanceof List || value instanceof Tuple) {
    between('[', value.items, ']', options, pieces, level, (item) => json(item, options, pieces, level + 1));
  } else if (value instanceof Dict) {
    const entries = [...value.entries.values()];
    if (options.sortKeys) entries.sort(([a], [b]) => (less(a, b) ? -1 : less(b, a) ? 1 : 0));
    between('{', entries, '}', options, pieces, level, ([key, item]) => {
      pieces.add(jsonKey(key, options), options.separators[1]);
      json(item, options, pieces, level + 1);
    });
  } else {
    if (value instanceof Text) spend(value.length / 2);
    pieces.add(jsonScalar(value, options));
  }
}

function between<T>(
  open: string,
  items: readonly T[],
  close: string,
  { indent, separators }: JsonOptions,
  pieces: Pieces,
  level: number,
  write: (item: T) => void,
): void {
  pieces.add(open);
  const line = (depth: number): void => {
    if (indent) pieces.add('\n', ...Array.from({ length: depth }, () => indent));
  };
  for (const [i, item] of items.entries()) {
    if (i > 0) pieces.add(separators[0]);
    line(level + 1);
    write(item);
  }
  if (items.length > 0) line(level);
  pieces.add(close);
}

function jsonScalar(value: Value, { ensureAscii }: JsonOptions): Text {
  if (value === null) return new Text('null');
  if (typeof value === 'boolean') return new Text(String(value));
  if (typeof value === 'number' || typeof value === 'bigint') return new Text(integerText(value));
  if (value instanceof Float) {
    const text = floatText(value.value);
    return new Text({ nan: 'NaN', inf: 'Infinity', '-inf': '-Infinity' }[text] ?? text);
  }
  if (value instanceof Text) return jsonString(value, ensureAscii);
  throw new Fault(`${typeName(value)} cannot be written as JSON`);
}

function jsonKey(key: Value, options: JsonOptions): Text {
  if (key !== null && !(key instanceof Text) && numberOf(key) === undefined)
    throw new Fault(`keys must be texts, numbers or None, found ${typeName(key)}`);
  return key instanceof Text ? jsonString(key, options.ensureAscii) : jsonString(jsonScalar(key, options), false);
}

const jsonEscapes: Readonly<Record<string, string>> = {
  '"': '\\"',
  '\\': '\\\\',
  '\b': '\\b',
  '\f': '\\f',
  '\n': '\\n',
  '\r': '\\r',
  '\t': '\\t',
};
const hex = (unit: string): string => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`;

function jsonString(text: Text, ensureAscii: boolean): Text {
  const plain = text.replaced(/["\\\p{Cc}]/gu, (unit) => jsonEscapes[unit] ?? (unit < ' ' ? hex(unit) : unit));
  const inner = ensureAscii ? plain.replaced(/[\x7f-\uffff]/g, hex) : plain;
  return Text.join([new Text('"'), inner, new Text('"')]);
}

/** Reads the arguments of `tojson`. @throws Fault */
export function jsonOptions(ensureAscii: Value, indent: Value, separators: Value, sortKeys: Value): JsonOptions {
  let pad: Text | undefined;
  if (indent instanceof Text) pad = indent;
  else if (indent !== null) {
    const width = numberOf(indent);
    if (width === undefined || indent instanceof Float) throw new Fault('indent must be a number or a text');
    checkLength(width);
    pad = new Text(' '.repeat(Math.max(0, width)));
  }
  const pair = separators === null ? [new Text(pad ? ',' : ', '), new Text(': ')] : listOf(separators);
  const [first, second] = pair;
  if (pair.length !== 2 || !(first instanceof Text && second instanceof Text))
    throw new Fault('separators must be two texts');
  return { indent: pad, separators: [first, second], sortKeys: isTrue(sortKeys), ensureAscii: isTrue(ensureAscii) };
}
