/** The values of a template: plain data of our own types. No object of JavaScript can be reached from a template. */
import { JsonNumber } from './json.ts';
import { Text, unitsAt } from './text.ts';

/** A fault while rendering; the interpreter knows where. */
export class Fault extends Error {}

/** Nothing, and the name of what is missing. */
export class Undefined {
  readonly what: string;

  constructor(what: string) {
    this.what = what;
  }
}

/** A number that Python would call a float: `1.0` is not `1`. */
export class Float {
  readonly value: number;

  constructor(value: number) {
    this.value = value;
  }
}

/** A mapping in order; keys remember where they come from too. */
export class Dict {
  readonly entries = new Map<string, readonly [key: Text, value: Value]>();

  get(key: string): Value | undefined {
    return this.entries.get(key)?.[1];
  }

  set(key: Text, value: Value): void {
    this.entries.set(key.value, [key, value]);
  }
}

/** What `namespace()` makes: a dict whose entries a template may set. */
export class Namespace extends Dict {}

/** The value, or another one where there is none; None is a value. */
export const valueOr = (value: Value | undefined, other: Value): Value => (value === undefined ? other : value);

export interface CallArguments {
  readonly positional: readonly Value[];
  readonly named: ReadonlyMap<string, Value>;
}

export type Callable = (args: CallArguments) => Value;
/** An integer is a bigint only beyond 2^53 - 1: see `integer`. */
export type Value = Undefined | null | boolean | number | bigint | Float | Text | readonly Value[] | Dict | Callable;

const MOST_NESTING = 100;

/** A number where it is exact. */
export const integer = (value: bigint): number | bigint =>
  Number.isSafeInteger(Number(value)) ? Number(value) : value;

/** Data as a template sees it. Texts are those of people. @throws Fault for what is no plain data */
export function fromData(data: unknown, depth = 0): Value {
  if (depth > MOST_NESTING) throw new Fault(`expected data of at most ${MOST_NESTING} levels`);
  if (data === null || typeof data === 'boolean') return data;
  if (data === undefined) return new Undefined('a value');
  if (typeof data === 'string') return Text.foreign(data);
  if (typeof data === 'bigint') return integer(data);
  if (data instanceof JsonNumber) return data.isFloat ? new Float(data.valueOf()) : integer(BigInt(data.source));
  if (typeof data === 'number') return Number.isInteger(data) ? data : new Float(data);
  if (Array.isArray(data)) return data.map((item) => fromData(item, depth + 1));
  if (typeof data !== 'object') throw new Fault(`expected plain data, found a ${typeof data}`);
  const dict = new Dict();
  for (const [key, value] of Object.entries(data)) {
    if (value !== undefined) dict.set(Text.foreign(key), fromData(value, depth + 1));
  }
  return dict;
}

export function isTrue(value: Value): boolean {
  if (value === null || value instanceof Undefined) return false;
  if (typeof value === 'boolean') return value;
  if (typeof value === 'number' || typeof value === 'bigint') return Number(value) !== 0;
  if (value instanceof Float) return value.value !== 0;
  if (value instanceof Text || Array.isArray(value)) return value.length > 0;
  return value instanceof Dict && !(value instanceof Namespace) ? value.entries.size > 0 : true;
}

const CHARACTERS_PER_PART = 32;
const sizes = new WeakMap<object, number>();

/** Parts of a value, shared ones as often as they appear: what going through all of it takes. A namespace is one part. */
export function sizeOf(value: Value): number {
  if (value instanceof Text) return 1 + value.length / CHARACTERS_PER_PART;
  if (!(Array.isArray(value) || value instanceof Dict) || value instanceof Namespace) return 1;
  const known = sizes.get(value);
  if (known !== undefined) return known;
  let size = 1;
  if (value instanceof Dict) for (const [key, item] of value.entries.values()) size += sizeOf(key) + sizeOf(item);
  else for (const item of value) size += sizeOf(item);
  sizes.set(value, size);
  return size;
}

/** As Python names its type. */
export function typeName(value: Value): string {
  if (value === null) return 'None';
  if (value instanceof Undefined) return 'undefined';
  if (typeof value === 'boolean') return 'bool';
  if (typeof value === 'number' || typeof value === 'bigint') return 'int';
  if (value instanceof Float) return 'float';
  if (value instanceof Text) return 'str';
  if (value instanceof Dict) return value instanceof Namespace ? 'namespace' : 'dict';
  return Array.isArray(value) ? 'list' : 'function';
}

/** The number of a number, and of True and False; undefined for anything else. */
export function numberOf(value: Value): number | undefined {
  if (typeof value === 'number') return value;
  if (typeof value === 'boolean' || typeof value === 'bigint') return Number(value);
  return value instanceof Float ? value.value : undefined;
}

export function equals(a: Value, b: Value): boolean {
  if (typeof a === 'bigint' && typeof b === 'bigint') return a === b;
  const [x, y] = [numberOf(a), numberOf(b)];
  if (x !== undefined || y !== undefined) return x === y;
  if (a instanceof Text && b instanceof Text) return a.value === b.value;
  if (Array.isArray(a) && Array.isArray(b)) return a.length === b.length && a.every((item, i) => equals(item, b[i]));
  if (a instanceof Dict && b instanceof Dict && !(a instanceof Namespace)) {
    if (a.entries.size !== b.entries.size) return false;
    return [...a.entries].every(([key, [, value]]) => b.entries.has(key) && equals(value, b.get(key)!));
  }
  return a === b || (a instanceof Undefined && b instanceof Undefined);
}

/** Below 0, 0 or above: numbers by size, texts by code points, lists item by item. @throws Fault */
export function compare(a: Value, b: Value): number {
  const [x, y] = [numberOf(a), numberOf(b)];
  if (x !== undefined && y !== undefined) return x - y;
  if (a instanceof Text && b instanceof Text) return compareCodePoints(a.value, b.value);
  if (Array.isArray(a) && Array.isArray(b)) {
    for (let i = 0; i < Math.min(a.length, b.length); i++) if (!equals(a[i], b[i])) return compare(a[i], b[i]);
    return a.length - b.length;
  }
  throw new Fault(`${typeName(a)} and ${typeName(b)} have no order`);
}

function compareCodePoints(a: string, b: string): number {
  const shorter = Math.min(a.length, b.length);
  let at = 0;
  while (at < shorter && a.charCodeAt(at) === b.charCodeAt(at)) at++;
  if (at === shorter) return a.length - b.length;
  // Code points of two units may differ in the second only.
  if (at > 0 && (unitsAt(a, at - 1) === 2 || unitsAt(b, at - 1) === 2)) at--;
  return a.codePointAt(at)! - b.codePointAt(at)!;
}

/** The items of a list, a text or a dict (its keys). @throws Fault */
export function itemsOf(value: Value): readonly Value[] {
  if (Array.isArray(value)) return value;
  if (value instanceof Text) return characters(value);
  if (value instanceof Dict) return [...value.entries.values()].map(([key]) => key);
  if (value instanceof Undefined) return [];
  throw new Fault(`${typeName(value)} has no items`);
}

/** Texts of one code point each. */
function characters(text: Text): Text[] {
  let at = 0;
  return [...text.value].map((character) => text.slice(at, (at += character.length)));
}

/** What `{{ value }}` writes: as Python's str(). */
export function toText(value: Value): Text {
  if (value instanceof Text) return value;
  if (value instanceof Undefined) return new Text('');
  return represent(value);
}

/** As Python's repr(). */
function represent(value: Value): Text {
  if (value === null) return new Text('None');
  if (typeof value === 'boolean') return new Text(value ? 'True' : 'False');
  if (typeof value === 'number' || typeof value === 'bigint') return new Text(integerText(value));
  if (value instanceof Float) return new Text(floatText(value.value));
  if (value instanceof Text) return quoted(value);
  if (Array.isArray(value)) return enclosed('[', value.map(represent), ']');
  if (value instanceof Dict && !(value instanceof Namespace)) {
    const pairs = [...value.entries.values()].map(([key, item]) =>
      Text.join([represent(key), new Text(': '), represent(item)]),
    );
    return enclosed('{', pairs, '}');
  }
  return new Text(value instanceof Undefined ? 'Undefined' : `<${typeName(value)}>`);
}

function quoted(text: Text): Text {
  const quote = text.value.includes("'") && !text.value.includes('"') ? '"' : "'";
  const inner = text.value
    .replace(/\\/g, '\\\\')
    .replaceAll(quote, `\\${quote}`)
    .replace(/\n/g, '\\n')
    .replace(/\r/g, '\\r')
    .replace(/\t/g, '\\t');
  return Text.join([new Text(quote), text.respelled(inner), new Text(quote)]);
}

/** Without an exponent. */
const integerText = (value: number | bigint): string =>
  typeof value === 'bigint' || Math.abs(value) < 1e21 ? String(value) : BigInt(value).toString();

/** As Python's repr() of a float: `1.0`, `2.5e-07`, `1e+16`. */
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

export function enclosed(open: string, items: readonly Text[], close: string, separator = ', '): Text {
  const pieces: Text[] = [new Text(open)];
  for (const [i, item] of items.entries()) pieces.push(...(i > 0 ? [new Text(separator), item] : [item]));
  return Text.join([...pieces, new Text(close)]);
}

export interface JsonOptions {
  /** Spaces per level. */
  readonly indent: number | undefined;
  readonly separators: readonly [string, string] | undefined;
  readonly sortKeys: boolean;
  readonly ensureAscii: boolean;
}

/** As Python's json.dumps. @throws Fault */
export function toJson(value: Value, options: JsonOptions, level = 0): Text {
  if (level > MOST_NESTING) throw new Fault(`expected data of at most ${MOST_NESTING} levels`);
  const { indent, sortKeys, ensureAscii } = options;
  const [separator, colon] = options.separators ?? [indent === undefined ? ', ' : ',', ': '];
  const wrap = (open: string, items: readonly Text[], close: string): Text => {
    if (items.length === 0) return new Text(open + close);
    if (indent === undefined) return enclosed(open, items, close, separator);
    const line = (depth: number): string => `\n${' '.repeat(indent * depth)}`;
    return enclosed(open + line(level + 1), items, line(level) + close, separator + line(level + 1));
  };
  if (value === null) return new Text('null');
  if (typeof value === 'boolean') return new Text(String(value));
  if (value instanceof Float) {
    const text = floatText(value.value);
    return new Text({ nan: 'NaN', inf: 'Infinity', '-inf': '-Infinity' }[text] ?? text);
  }
  if (typeof value === 'number' || typeof value === 'bigint') return new Text(integerText(value));
  if (value instanceof Text) return jsonString(value, ensureAscii);
  if (Array.isArray(value))
    return wrap(
      '[',
      value.map((item) => toJson(item, options, level + 1)),
      ']',
    );
  if (value instanceof Dict && !(value instanceof Namespace)) {
    const entries = [...value.entries.values()];
    if (sortKeys) entries.sort(([a], [b]) => compare(a, b));
    const pair = ([key, item]: readonly [Text, Value]): Text =>
      Text.join([jsonString(key, ensureAscii), new Text(colon), toJson(item, options, level + 1)]);
    return wrap('{', entries.map(pair), '}');
  }
  throw new Fault(`${typeName(value)} cannot be written as JSON`);
}

function jsonString(text: Text, ensureAscii: boolean): Text {
  let json = JSON.stringify(text.value).slice(1, -1);
  if (ensureAscii)
    json = json.replace(/[\x7f-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);
  return Text.join([new Text('"'), text.respelled(json), new Text('"')]);
}
