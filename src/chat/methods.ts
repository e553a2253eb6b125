/** Methods of texts, dicts and lists that templates call, as Python defines them. */
import { Text } from './text.ts';
import {
  type CallArguments,
  type Callable,
  Dict,
  equals,
  Fault,
  isTrue,
  itemsOf,
  Namespace,
  numberOf,
  type Value,
  valueOr,
} from './values.ts';

/** The argument by place or name. */
export function argument({ positional, named }: CallArguments, index: number, name: string): Value | undefined {
  return index < positional.length ? positional[index] : named.get(name);
}

/** @throws Fault */
export function textOf(value: Value | undefined, what: string): Text {
  if (value instanceof Text) return value;
  throw new Fault(`${what} must be a text`);
}

/** @throws Fault */
export function integerOf(value: Value | undefined, what: string, fallback?: number): number {
  const number =
    value === undefined || value === null ? fallback : typeof value === 'object' ? undefined : numberOf(value);
  if (number !== undefined) return number;
  throw new Fault(`${what} must be an integer`);
}

/** The method of a value, bound to it; undefined where there is none of that name. */
export function methodOf(value: Value, name: string): Callable | undefined {
  if (value instanceof Text) return bind(textMethods, name, value);
  if (value instanceof Dict && !(value instanceof Namespace)) return bind(dictMethods, name, value);
  if (Array.isArray(value)) return bind(listMethods, name, value as readonly Value[]);
  return undefined;
}

type Methods<T> = Readonly<Record<string, (self: T, args: CallArguments) => Value>>;

function bind<T>(methods: Methods<T>, name: string, self: T): Callable | undefined {
  return Object.hasOwn(methods, name) ? (args) => methods[name]!(self, args) : undefined;
}

/** What Python's str.strip takes for whitespace, outside the astral planes. */
const SPACE = new Set(
  '\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000',
);

/** What Python's str.splitlines takes for the end of a line; \r\n is one. */
const LINE_ENDS = new Set('\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029');

/** Without the characters of `set` (whitespace where undefined) at its ends. */
export function strip(text: Text, set: Value | undefined, ends: 'both' | 'left' | 'right' = 'both'): Text {
  const chars = set === undefined || set === null ? undefined : new Set(textOf(set, 'what strip takes away').value);
  const goes = (unit: string): boolean => (chars ? chars.has(unit) : SPACE.has(unit));
  const { value } = text;
  let [start, end] = [0, value.length];
  if (ends !== 'right') while (start < end && goes(value[start]!)) start++;
  if (ends !== 'left') while (end > start && goes(value[end - 1]!)) end--;
  return text.slice(start, end);
}

function split(text: Text, separator: Value | undefined, most: number): Text[] {
  const pieces: Text[] = [];
  let at = 0;
  if (separator === undefined || separator === null) {
    for (const { index, 0: word } of text.value.matchAll(/\S+/g)) {
      if (pieces.length === most) return [...pieces, text.slice(index)];
      pieces.push(text.slice(index, index + word.length));
    }
    return pieces;
  }
  const { value } = textOf(separator, 'the separator of split');
  if (value === '') throw new Fault('the separator of split must not be empty');
  for (
    let found = text.value.indexOf(value);
    found >= 0 && pieces.length !== most;
    found = text.value.indexOf(value, at)
  ) {
    pieces.push(text.slice(at, found));
    at = found + value.length;
  }
  return [...pieces, text.slice(at)];
}

function splitRight(text: Text, separator: Value | undefined, most: number): Text[] {
  if (most < 0) return split(text, separator, most);
  const { value } = text;
  const pieces: Text[] = [];
  if (separator === undefined || separator === null) {
    const back = (from: number, space: boolean): number => {
      let at = from;
      while (at > 0 && SPACE.has(value[at - 1]!) === space) at--;
      return at;
    };
    let end = back(value.length, true);
    while (end > 0 && pieces.length < most) {
      const start = back(end, false);
      pieces.push(text.slice(start, end));
      end = back(start, true);
    }
    return [...(end > 0 ? [text.slice(0, end)] : []), ...pieces.reverse()];
  }
  const { value: joiner } = textOf(separator, 'the separator of rsplit');
  if (joiner === '') throw new Fault('the separator of rsplit must not be empty');
  let end = value.length;
  while (pieces.length < most && end >= joiner.length) {
    const found = value.lastIndexOf(joiner, end - joiner.length);
    if (found < 0) break;
    pieces.push(text.slice(found + joiner.length, end));
    end = found;
  }
  return [text.slice(0, end), ...pieces.reverse()];
}

/** @param keepEnds leaves what ends a line in it */
function splitLines(text: Text, keepEnds: boolean): Text[] {
  const { value } = text;
  const lines: Text[] = [];
  let [start, at] = [0, 0];
  while (at < value.length) {
    if (!LINE_ENDS.has(value[at]!)) {
      at++;
      continue;
    }
    const next = at + (value.startsWith('\r\n', at) ? 2 : 1);
    lines.push(text.slice(start, keepEnds ? next : at));
    start = at = next;
  }
  return start < at ? [...lines, text.slice(start)] : lines;
}

export function replace(text: Text, from: Text, to: Text, most: number): Text {
  if (from.value === '') {
    const pieces = [...text.value].flatMap((character) => [to, new Text(character)]);
    return text.respelled([...pieces, to].map(({ value }) => value).join(''));
  }
  const plain = text.spans.length === 0 && to.spans.length === 0;
  if (plain && most < 0) return new Text(text.value.replaceAll(from.value, () => to.value));
  const pieces = split(text, from, most);
  return Text.join(pieces.flatMap((piece, i) => (i > 0 ? [to, piece] : [piece])));
}

const starts = ({ positional: [what] }: CallArguments, test: (prefix: string) => boolean): boolean =>
  (Array.isArray(what) ? what : [what]).some((prefix) => test(textOf(prefix, 'a prefix or suffix').value));

export const capitalize = (text: Text): Text =>
  text.respelled(text.value.slice(0, 1).toUpperCase() + text.value.slice(1).toLowerCase());
export const title = (text: Text): Text =>
  text.respelled(text.value.replace(/\p{L}+/gu, (word) => word[0]!.toUpperCase() + word.slice(1).toLowerCase()));
const count = (text: string, part: string): number => (part === '' ? text.length + 1 : text.split(part).length - 1);
const whole = (pattern: RegExp) => (text: Text) => pattern.test(text.value);

const textMethods: Methods<Text> = {
  strip: (text, args) => strip(text, argument(args, 0, 'chars')),
  lstrip: (text, args) => strip(text, argument(args, 0, 'chars'), 'left'),
  rstrip: (text, args) => strip(text, argument(args, 0, 'chars'), 'right'),
  split: (text, args) =>
    split(text, argument(args, 0, 'sep'), integerOf(argument(args, 1, 'maxsplit'), 'maxsplit', -1)),
  rsplit: (text, args) =>
    splitRight(text, argument(args, 0, 'sep'), integerOf(argument(args, 1, 'maxsplit'), 'maxsplit', -1)),
  splitlines: (text, args) => splitLines(text, isTrue(argument(args, 0, 'keepends') ?? false)),
  startswith: (text, args) => starts(args, (prefix) => text.value.startsWith(prefix)),
  endswith: (text, args) => starts(args, (suffix) => text.value.endsWith(suffix)),
  removeprefix: (text, { positional: [prefix] }) =>
    text.value.startsWith(textOf(prefix, 'the prefix').value) ? text.slice((prefix as Text).length) : text,
  removesuffix: (text, { positional: [suffix] }) =>
    text.value.endsWith(textOf(suffix, 'the suffix').value)
      ? text.slice(0, text.length - (suffix as Text).length)
      : text,
  upper: (text) => text.respelled(text.value.toUpperCase()),
  lower: (text) => text.respelled(text.value.toLowerCase()),
  title,
  capitalize,
  replace: (text, args) =>
    replace(
      text,
      textOf(argument(args, 0, 'old'), 'old'),
      textOf(argument(args, 1, 'new'), 'new'),
      integerOf(argument(args, 2, 'count'), 'count', -1),
    ),
  join: (text, { positional: [items] }) =>
    Text.join(
      itemsOf(items ?? null).flatMap((item, i) =>
        i > 0 ? [text, textOf(item, 'an item of join')] : [textOf(item, 'an item of join')],
      ),
    ),
  find: (text, { positional: [part] }) => text.value.indexOf(textOf(part, 'what to find').value),
  rfind: (text, { positional: [part] }) => text.value.lastIndexOf(textOf(part, 'what to find').value),
  count: (text, { positional: [part] }) => count(text.value, textOf(part, 'what to count').value),
  isdigit: whole(/^\p{Nd}+$/u),
  isnumeric: whole(/^\p{N}+$/u),
  isalpha: whole(/^\p{L}+$/u),
  isalnum: whole(/^[\p{L}\p{N}]+$/u),
  isspace: whole(/^\s+$/),
  isupper: (text) => text.value !== text.value.toLowerCase() && text.value === text.value.toUpperCase(),
  islower: (text) => text.value !== text.value.toUpperCase() && text.value === text.value.toLowerCase(),
};

const dictMethods: Methods<Dict> = {
  get: (dict, { positional: [key, fallback] }) =>
    valueOr(key instanceof Text ? dict.get(key.value) : undefined, valueOr(fallback, null)),
  items: (dict) => [...dict.entries.values()].map(([key, value]) => [key, value]),
  keys: (dict) => itemsOf(dict),
  values: (dict) => [...dict.entries.values()].map(([, value]) => value),
  copy: (dict) => dict,
};

const listMethods: Methods<readonly Value[]> = {
  index: (list, { positional: [item = null] }) => {
    const index = list.findIndex((other) => equals(other, item));
    if (index < 0) throw new Fault('the list does not have this item');
    return index;
  },
  count: (list, { positional: [item = null] }) => list.filter((other) => equals(other, item)).length,
};
