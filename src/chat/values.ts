/** The values of templates: plain data in our own types, so that a template cannot reach any JavaScript object. */
import { JsonNumber } from './json.ts';
import { Text } from './text.ts';
import { Fault, spend, spendCharacters, spendItems } from './work.ts';

/** Jinja's undefined value; `what` names the missing variable or attribute. */
export class Undefined {
  readonly what: string;

  constructor(what: string) {
    this.what = what;
  }
}

/** A Python float. Kept apart from integers, because `1.0` is not written as `1`. */
export class Float {
  readonly value: number;

  constructor(value: number) {
    this.value = value;
  }
}

export class List {
  readonly items: readonly Value[];

  constructor(items: readonly Value[]) {
    this.items = items;
  }
}

export class Tuple {
  readonly items: readonly Value[];
  /** Names of the items, for the groups of `groupby`. */
  readonly names: readonly string[];

  constructor(items: readonly Value[], names: readonly string[] = []) {
    this.items = items;
    this.names = names;
  }
}

/** An ordered mapping. Keys are immutable values and keep their origin. */
export class Dict {
  readonly entries = new Map<unknown, readonly [key: Value, value: Value]>();

  static of(pairs: Iterable<readonly [Value, Value]>): Dict {
    const dict = new Dict();
    for (const [key, value] of pairs) dict.set(key, value);
    return dict;
  }

  get(key: Value): Value | undefined {
    return this.entries.get(hashOf(key))?.[1];
  }

  /** The value of a key that is a text. */
  named(name: string): Value | undefined {
    return this.entries.get(hashOfText(name))?.[1];
  }

  has(key: Value): boolean {
    return this.entries.has(hashOf(key));
  }

  /** Sets a value. If an equal key exists, that key object is kept. */
  set(key: Value, value: Value): void {
    const hash = hashOf(key);
    this.entries.set(hash, [this.entries.get(hash)?.[0] ?? key, value]);
  }
}

/** Values that are not plain data: functions, loops, generators ... */
export abstract class Thing {
  /** Python's name of the type. */
  abstract readonly type: string;

  attribute(_name: string): Value | undefined {
    return undefined;
  }

  call?(args: CallArguments): Value;
  iterate?(): Iterator<Value>;
  size?(): number;

  describe(): Text {
    return new Text(`<${this.type}>`);
  }
}

export class Func extends Thing {
  readonly type = 'function';
  readonly name: string;
  readonly #run: (args: CallArguments) => Value;

  constructor(name: string, run: (args: CallArguments) => Value) {
    super();
    this.name = name;
    this.#run = run;
  }

  override call(args: CallArguments): Value {
    return this.#run(args);
  }

  override describe(): Text {
    return new Text(`<function ${this.name}>`);
  }
}

/** The result of `namespace()`: a template may set its entries. */
export class Namespace extends Thing {
  readonly type = 'Namespace';
  readonly dict = new Dict();

  override attribute(name: string): Value | undefined {
    return this.dict.named(name);
  }
}

/** A lazy sequence that can be read once. */
export class Generator extends Thing {
  readonly type: string = 'generator';
  readonly #values: Iterator<Value>;

  constructor(values: Iterator<Value>) {
    super();
    this.#values = values;
  }

  override iterate(): Iterator<Value> {
    return this.#values;
  }

  override describe(): Text {
    return new Text('<generator object>');
  }
}

export class Range extends Thing {
  readonly type = 'range';
  readonly start: number;
  readonly stop: number;
  readonly step: number;
  readonly length: number;

  constructor(start: number, stop: number, step: number) {
    super();
    const length = Math.max(0, Math.ceil((stop - start) / step));
    this.stop = stop;
    this.start = start;
    this.length = length;
    this.step = step;
  }

  at(index: number): number {
    return this.start + index * this.step;
  }

  override size(): number {
    return this.length;
  }

  override *iterate(): Iterator<Value> {
    for (let i = 0; i < this.length; i++) yield this.at(i);
  }

  override attribute(name: string): Value | undefined {
    return name === 'start' || name === 'stop' || name === 'step' ? this[name] : undefined;
  }

  override describe(): Text {
    return new Text(`range(${this.start}, ${this.stop}${this.step === 1 ? '' : `, ${this.step}`})`);
  }
}

/** The result of `keys()`, `values()` and `items()` of a dict. */
export class View extends Thing {
  readonly type: 'dict_keys' | 'dict_values' | 'dict_items';
  readonly dict: Dict;

  constructor(type: View['type'], dict: Dict) {
    super();
    this.type = type;
    this.dict = dict;
  }

  override size(): number {
    return this.dict.entries.size;
  }

  override *iterate(): Iterator<Value> {
    for (const [key, value] of this.dict.entries.values())
      yield this.type === 'dict_keys' ? key : this.type === 'dict_values' ? value : new Tuple([key, value]);
  }

  override attribute(name: string): Value | undefined {
    return name === 'mapping' ? this.dict : undefined;
  }
}

export interface CallArguments {
  readonly positional: readonly Value[];
  readonly named: ReadonlyMap<string, Value>;
}

/** Integers are bigints only beyond 2^53 - 1, see `integer`. */
export type Value = Undefined | null | boolean | number | bigint | Float | Text | List | Tuple | Dict | Thing;

/** `value`, or `other` if it is undefined. null is Python's None, a value. */
export const valueOr = (value: Value | undefined, other: Value): Value => (value === undefined ? other : value);

const MOST_NESTING = 100;
const MOST_BITS = 100_000;

/** An integer as a number if that is exact, else as a bigint. @throws Fault beyond MOST_BITS */
export function integer(value: bigint): number | bigint {
  if (value >= -9007199254740991n && value <= 9007199254740991n) return Number(value);
  const bits = value.toString(16).length * 4;
  spend(bits / 32);
  if (bits > MOST_BITS) throw new Fault(`expected integers of at most ${MOST_BITS} bits`);
  return value;
}

/** Converts JavaScript data to template values; texts become user text. @throws Fault for anything but plain data */
export function fromData(data: unknown, depth = 0): Value {
  if (depth > MOST_NESTING) throw new Fault(`expected data of at most ${MOST_NESTING} levels`);
  if (data === null || typeof data === 'boolean') return data;
  if (data === undefined) return new Undefined('a value');
  if (typeof data === 'string') return Text.foreign(data);
  if (typeof data === 'bigint') return integer(data);
  if (data instanceof JsonNumber) return data.isFloat ? new Float(data.valueOf()) : integer(BigInt(data.source));
  if (typeof data === 'number') {
    if (!Number.isInteger(data)) return new Float(data);
    return Number.isSafeInteger(data) ? data + 0 : BigInt(data);
  }
  if (Array.isArray(data)) return new List(data.map((item) => fromData(item, depth + 1)));
  if (typeof data !== 'object') throw new Fault(`expected plain data, found a ${typeof data}`);
  const dict = new Dict();
  for (const [key, value] of Object.entries(data)) {
    if (value !== undefined) dict.set(Text.foreign(key), fromData(value, depth + 1));
  }
  return dict;
}

const hashOfText = (text: string): string => (text.startsWith('\udc00') ? `\udc00s${text}` : text);

/** The hash of a key: equal values have equal hashes. @throws Fault for mutable values */
function hashOf(key: Value): unknown {
  if (key instanceof Text) return hashOfText(key.value);
  if (typeof key === 'number' || typeof key === 'bigint' || key === null) return key;
  if (typeof key === 'boolean') return Number(key);
  if (key instanceof Float)
    return Number.isInteger(key.value) && !Number.isSafeInteger(key.value) ? BigInt(key.value) : key.value + 0;
  if (key instanceof Undefined) return Undefined;
  if (key instanceof Tuple) {
    spendItems(key.items.length);
    return `\udc00t${key.items.map((item) => JSON.stringify(String(hashKind(hashOf(item))))).join()}`;
  }
  if (key instanceof Range)
    return `\udc00r${key.length},${key.length > 0 ? key.start : ''},${key.length > 1 ? key.step : ''}`;
  if (key instanceof Thing && !(key instanceof View)) return key;
  throw new Fault(`unhashable type: '${typeName(key)}'`);
}

const identities = new WeakMap<object, number>();
let count = 0;

/** A hash as a string, with a prefix that keeps hashes of different kinds apart. */
function hashKind(hash: unknown): string {
  if (typeof hash !== 'object' && typeof hash !== 'function') return `${typeof hash === 'string' ? 's' : 'n'}${hash}`;
  if (hash === null) return 'None';
  if (!identities.has(hash)) identities.set(hash, count++);
  return `o${identities.get(hash)}`;
}

export function isTrue(value: Value): boolean {
  if (value === null || value instanceof Undefined) return false;
  if (typeof value === 'boolean') return value;
  if (typeof value === 'number' || typeof value === 'bigint') return Number(value) !== 0;
  if (value instanceof Float) return value.value !== 0;
  if (value instanceof Text) return value.length > 0;
  if (value instanceof List || value instanceof Tuple) return value.items.length > 0;
  if (value instanceof Dict) return value.entries.size > 0;
  return value.size ? value.size() > 0 : true;
}

/** Python's name of a value's type. */
export function typeName(value: Value): string {
  if (value === null) return 'NoneType';
  if (value instanceof Undefined) return 'Undefined';
  if (typeof value === 'boolean') return 'bool';
  if (typeof value === 'number' || typeof value === 'bigint') return 'int';
  if (value instanceof Float) return 'float';
  if (value instanceof Text) return value.isMarkup ? 'Markup' : 'str';
  if (value instanceof Dict) return 'dict';
  if (value instanceof Tuple) return 'tuple';
  return value instanceof List ? 'list' : value.type;
}

export const isInteger = (value: Value | undefined): value is number | bigint =>
  typeof value === 'number' || typeof value === 'bigint';

/** The value of a number or boolean as a JavaScript number; undefined for others. */
export function numberOf(value: Value): number | undefined {
  if (typeof value === 'number') return value;
  if (typeof value === 'boolean' || typeof value === 'bigint') return Number(value);
  return value instanceof Float ? value.value : undefined;
}

/** Like `numberOf`, but exact for bigints, for comparisons. */
export function exactOf(value: Value): number | bigint | undefined {
  return typeof value === 'bigint' ? value : numberOf(value);
}

/** The error for the use of an undefined value. */
export const missing = ({ what }: Undefined): Fault => new Fault(what.includes(' ') ? what : `${what} is undefined`);

export function equals(a: Value, b: Value): boolean {
  const [x, y] = [exactOf(a), exactOf(b)];
  // == compares numbers and bigints by value, as Python does.
  // biome-ignore lint/suspicious/noDoubleEquals: see above
  if (x !== undefined || y !== undefined) return x == y && x !== undefined && y !== undefined;
  if (a instanceof Text && b instanceof Text) {
    if (a.length !== b.length) return false;
    spendCharacters(a.length);
    return a.value === b.value;
  }
  if ((a instanceof List && b instanceof List) || (a instanceof Tuple && b instanceof Tuple)) {
    if (a === b) return true;
    const others = b.items;
    if (a.items.length !== others.length) return false;
    return a.items.every((item, i) => {
      spendItems(1);
      return equals(item, others[i]!);
    });
  }
  if (a instanceof Dict && b instanceof Dict) {
    if (a.entries.size !== b.entries.size) return false;
    return [...a.entries].every(([hash, [, value]]) => {
      spendItems(1);
      const other = b.entries.get(hash);
      return other !== undefined && equals(value, other[1]);
    });
  }
  if (a instanceof Range && b instanceof Range)
    return a.length === b.length && (a.length === 0 || (a.start === b.start && (a.length === 1 || a.step === b.step)));
  if (a instanceof View && b instanceof View && a.type !== 'dict_values' && b.type !== 'dict_values') {
    const items = listOf(b);
    return a.size() === items.length && items.every((item) => contains(a, item));
  }
  return a === b || (a instanceof Undefined && b instanceof Undefined);
}

/** Whether a is less than b. @throws Fault for types without an order */
export function less(a: Value, b: Value): boolean {
  const [x, y] = [exactOf(a), exactOf(b)];
  if (x !== undefined && y !== undefined) return x < y;
  if (a instanceof Text && b instanceof Text) {
    spendCharacters(Math.min(a.length, b.length));
    return compareCodePoints(a.value, b.value) < 0;
  }
  if ((a instanceof List && b instanceof List) || (a instanceof Tuple && b instanceof Tuple)) {
    for (let i = 0; i < Math.min(a.items.length, b.items.length); i++) {
      spendItems(1);
      if (!equals(a.items[i]!, b.items[i]!)) return less(a.items[i]!, b.items[i]!);
    }
    return a.items.length < b.items.length;
  }
  for (const value of [a, b]) if (value instanceof Undefined) throw missing(value);
  throw new Fault(`${typeName(a)} and ${typeName(b)} cannot be ordered`);
}

function compareCodePoints(a: string, b: string): number {
  const shorter = Math.min(a.length, b.length);
  let at = 0;
  while (at < shorter && a.charCodeAt(at) === b.charCodeAt(at)) at++;
  if (at === shorter) return a.length - b.length;
  // Two surrogate pairs may differ only in the second code unit: compare from the first.
  const inside = (text: string): boolean => at > 0 && text.codePointAt(at - 1)! > 0xffff;
  if (inside(a) || inside(b)) at--;
  return a.codePointAt(at)! - b.codePointAt(at)!;
}

/** `item in container`. @throws Fault */
export function contains(container: Value, item: Value): boolean {
  if (container instanceof Text) {
    if (!(item instanceof Text)) throw new Fault(`expected a text on the left of in, found ${typeName(item)}`);
    spendCharacters(container.length);
    return container.value.includes(item.value);
  }
  if (container instanceof Dict) return container.has(item);
  if (container instanceof View && container.type === 'dict_keys') return container.dict.has(item);
  if (container instanceof Namespace) throw new Fault('argument of type Namespace is not iterable');
  for (const values = iterate(container); ; ) {
    const { done, value } = values.next();
    if (done) return false;
    spendItems(1);
    if (value === item || equals(value, item)) return true;
  }
}

/** Iterates over a value. @throws Fault if it is not iterable */
export function iterate(value: Value): Iterator<Value> {
  if (value instanceof List || value instanceof Tuple) return value.items[Symbol.iterator]();
  if (value instanceof Dict) return keysOf(value);
  if (value instanceof Undefined) return [][Symbol.iterator]();
  if (value instanceof Text) return value.split()[Symbol.iterator]();
  if (value instanceof Thing && value.iterate) return value.iterate();
  throw new Fault(`'${typeName(value)}' object is not iterable`);
}

function* keysOf(dict: Dict): Iterator<Value> {
  for (const [key] of dict.entries.values()) yield key;
}

/** All items of a value. @throws Fault if it is not iterable */
export function listOf(value: Value): readonly Value[] {
  if (value instanceof List || value instanceof Tuple) return value.items;
  const items: Value[] = [];
  for (const values = iterate(value); ; ) {
    const next = values.next();
    if (next.done) return items;
    items.push(next.value);
    spendItems(1);
  }
}

/** Python's len(). @throws Fault */
export function lengthOf(value: Value): number {
  if (value instanceof Text) {
    return value.characters;
  }
  if (value instanceof Dict) return value.entries.size;
  if (value instanceof List || value instanceof Tuple) return value.items.length;
  if (value instanceof Undefined) return 0;
  if (value instanceof Thing && value.size) return value.size();
  throw new Fault(`object of type '${typeName(value)}' has no len()`);
}

export { Fault };
