/** Filters and tests of Jinja, those that make sense for text. */
import { argument, capitalize, integerOf, replace, strip, textOf, title } from './methods.ts';
import { Text } from './text.ts';
import {
  type CallArguments,
  compare,
  Dict,
  equals,
  Fault,
  Float,
  isTrue,
  itemsOf,
  numberOf,
  toJson,
  toText,
  typeName,
  Undefined,
  type Value,
  valueOr,
} from './values.ts';

/** What filters need of the interpreter. */
export interface Context {
  /** `object.name` or `object[name]`. */
  item(object: Value, key: Value): Value;
  filter(name: string, operand: Value, args: CallArguments): Value;
  test(name: string, operand: Value, args: CallArguments): boolean;
  /** Takes work into account. @throws Fault beyond the limits */
  spend(steps: number): void;
}

type Filter = (operand: Value, args: CallArguments, context: Context) => Value;
type Test = (operand: Value, args: CallArguments, context: Context) => boolean;

const rest = ({ positional, named }: CallArguments, from: number): CallArguments => ({
  positional: positional.slice(from),
  named,
});
const nameOf = (args: CallArguments, index: number): string => textOf(args.positional[index], 'the name').value;

function lengthOf(value: Value): number {
  if (value instanceof Text) return value.characters;
  if (value instanceof Dict) return value.entries.size;
  if (Array.isArray(value)) return value.length;
  if (value instanceof Undefined) return 0;
  throw new Fault(`${typeName(value)} has no length`);
}

/** Items that a filter goes through; a text is taken apart for them. */
function itemsIn(operand: Value, context: Context): readonly Value[] {
  if (operand instanceof Text) context.spend(operand.length / 2);
  return itemsOf(operand);
}

const itemAt = (operand: Value, index: 0 | -1, context: Context): Value =>
  operand instanceof Text
    ? context.item(operand, index)
    : valueOr(itemsOf(operand).at(index), new Undefined(`the ${index ? 'last' : 'first'} item of nothing`));

/** `a.b.0` of an item. */
function pathOf(item: Value, path: Value | undefined, context: Context): Value {
  if (path === undefined) return item;
  const keys = path instanceof Text ? path.value.split('.') : [path];
  return keys.reduce<Value>(
    (value, key) =>
      context.item(value, typeof key === 'string' ? (/^\d+$/.test(key) ? Number(key) : new Text(key)) : key),
    item,
  );
}

const mapping: Filter = (operand, args, context) => {
  const attribute = args.named.get('attribute');
  return itemsIn(operand, context).map((item) => {
    context.spend(1);
    if (attribute === undefined) return context.filter(nameOf(args, 0), item, rest(args, 1));
    const value = pathOf(item, attribute, context);
    return value instanceof Undefined ? valueOr(args.named.get('default'), value) : value;
  });
};

/** select, reject and their kin by attribute. */
const choosing =
  (wanted: boolean, byAttribute: boolean): Filter =>
  (operand, args, context) =>
    itemsIn(operand, context).filter((item) => {
      context.spend(1);
      const value = byAttribute ? pathOf(item, args.positional[0], context) : item;
      const at = byAttribute ? 1 : 0;
      const holds =
        args.positional.length > at ? context.test(nameOf(args, at), value, rest(args, at + 1)) : isTrue(value);
      return holds === wanted;
    });

const folded = (value: Value, args: CallArguments, index: number): Value =>
  value instanceof Text && !isTrue(argument(args, index, 'case_sensitive') ?? false)
    ? new Text(value.value.toLowerCase())
    : value;

const sorted = (
  items: readonly Value[],
  keyOf: (item: Value) => Value,
  reverse: boolean,
  context: Context,
): Value[] => {
  context.spend(items.length * 4);
  const keyed = items.map((item) => ({ item, key: keyOf(item) }));
  keyed.sort((a, b) => (reverse ? compare(b.key, a.key) : compare(a.key, b.key)));
  return keyed.map(({ item }) => item);
};

const extreme =
  (sign: number): Filter =>
  (operand, args, context) => {
    const attribute = args.named.get('attribute');
    const keyOf = (item: Value): Value => folded(pathOf(item, attribute, context), args, 0);
    return itemsIn(operand, context).reduce<Value>(
      (best, item) => (best instanceof Undefined || sign * compare(keyOf(item), keyOf(best)) > 0 ? item : best),
      new Undefined('the first item of nothing'),
    );
  };

const toNumber = (value: Value): number => {
  const number = value instanceof Text ? Number(value.value.trim() || Number.NaN) : numberOf(value);
  return number ?? Number.NaN;
};

/** As Python's round. */
function roundHalfToEven(value: number): number {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}

const roundings: Readonly<Record<string, (value: number) => number>> = {
  common: roundHalfToEven,
  ceil: Math.ceil,
  floor: Math.floor,
};

export const filters: Readonly<Record<string, Filter>> = {
  trim: (operand, args) => strip(toText(operand), argument(args, 0, 'chars')),
  length: lengthOf,
  count: lengthOf,
  string: (operand) => toText(operand),
  safe: (operand) => operand,
  upper: (operand) => toText(operand).respelled(toText(operand).value.toUpperCase()),
  lower: (operand) => toText(operand).respelled(toText(operand).value.toLowerCase()),
  capitalize: (operand) => capitalize(toText(operand)),
  title: (operand) => title(toText(operand)),
  replace: (operand, args) =>
    replace(
      toText(operand),
      textOf(argument(args, 0, 'old'), 'old'),
      textOf(argument(args, 1, 'new'), 'new'),
      integerOf(argument(args, 2, 'count'), 'count', -1),
    ),
  tojson(operand, args) {
    const indent = argument(args, 0, 'indent');
    const separators = args.named.get('separators');
    const pair = Array.isArray(separators) ? separators.map((item) => textOf(item, 'a separator').value) : [];
    return toJson(operand, {
      indent: indent === undefined || indent === null ? undefined : Math.min(integerOf(indent, 'indent'), 16),
      separators: pair.length === 2 ? [pair[0]!, pair[1]!] : undefined,
      sortKeys: isTrue(args.named.get('sort_keys') ?? false),
      ensureAscii: isTrue(args.named.get('ensure_ascii') ?? false),
    });
  },
  join(operand, args, context) {
    const separator = toText(argument(args, 0, 'd') ?? new Text(''));
    const texts = itemsIn(operand, context).map((item) =>
      toText(pathOf(item, argument(args, 1, 'attribute'), context)),
    );
    return Text.join(texts.flatMap((text, i) => (i > 0 ? [separator, text] : [text])));
  },
  first: (operand, _, context) => itemAt(operand, 0, context),
  last: (operand, _, context) => itemAt(operand, -1, context),
  list: (operand, _, context) => itemsIn(operand, context),
  default(operand, args) {
    const missing = operand instanceof Undefined || (isTrue(argument(args, 1, 'boolean') ?? false) && !isTrue(operand));
    return missing ? valueOr(argument(args, 0, 'default_value'), new Text('')) : operand;
  },
  items: (operand) =>
    operand instanceof Dict ? [...operand.entries.values()].map(([key, value]) => [key, value]) : [],
  dictsort(operand, args, context) {
    if (!(operand instanceof Dict)) throw new Fault(`${typeName(operand)} is no dict to sort`);
    const by = toText(argument(args, 1, 'by') ?? new Text('key')).value === 'value' ? 1 : 0;
    const pairs = [...operand.entries.values()].map(([key, value]): readonly Value[] => [key, value]);
    const reverse = isTrue(argument(args, 2, 'reverse') ?? false);
    return sorted(pairs, (pair) => folded((pair as readonly Value[])[by]!, args, 0), reverse, context);
  },
  map: mapping,
  select: choosing(true, false),
  reject: choosing(false, false),
  selectattr: choosing(true, true),
  rejectattr: choosing(false, true),
  sort: (operand, args, context) =>
    sorted(
      itemsIn(operand, context),
      (item) => folded(pathOf(item, argument(args, 2, 'attribute'), context), args, 1),
      isTrue(argument(args, 0, 'reverse') ?? false),
      context,
    ),
  unique(operand, args, context) {
    const seen: Value[] = [];
    return itemsIn(operand, context).filter((item) => {
      const key = folded(pathOf(item, argument(args, 1, 'attribute'), context), args, 0);
      context.spend(1 + seen.length);
      if (seen.some((other) => equals(other, key))) return false;
      seen.push(key);
      return true;
    });
  },
  reverse(operand, _, context) {
    const items = itemsIn(operand, context).toReversed();
    return operand instanceof Text ? Text.join(items as Text[]) : items;
  },
  min: extreme(-1),
  max: extreme(1),
  sum: (operand, args, context) => {
    const numbers = itemsIn(operand, context).map((item) => pathOf(item, argument(args, 0, 'attribute'), context));
    const total = numbers.reduce<number>((sum, value) => sum + toNumber(value), 0);
    return numbers.some((value) => value instanceof Float) ? new Float(total) : total;
  },
  int: (operand, args) => {
    const number = Math.trunc(toNumber(operand));
    return Number.isFinite(number) ? number : integerOf(argument(args, 0, 'default'), 'default', 0);
  },
  float: (operand) => new Float(Number.isNaN(toNumber(operand)) ? 0 : toNumber(operand)),
  abs: (operand) =>
    operand instanceof Float ? new Float(Math.abs(operand.value)) : Math.abs(integerOf(operand, 'what abs takes')),
  round: (operand, args) => {
    const scale = 10 ** integerOf(argument(args, 0, 'precision'), 'precision', 0);
    const method = toText(argument(args, 1, 'method') ?? new Text('common')).value;
    if (!Object.hasOwn(roundings, method)) throw new Fault('the method of round must be common, ceil or floor');
    return new Float(roundings[method]!(toNumber(operand) * scale) / scale);
  },
  indent(operand, args) {
    const width = argument(args, 0, 'width') ?? 4;
    const pad = width instanceof Text ? width : new Text(' '.repeat(Math.min(integerOf(width, 'width'), 1000)));
    const lines = replace(toText(operand), new Text('\n'), Text.join([new Text('\n'), pad]), -1);
    return isTrue(argument(args, 1, 'first') ?? false) ? Text.join([pad, lines]) : lines;
  },
  escape: (operand) => {
    const html: Readonly<Record<string, string>> = {
      '&': '&amp;',
      '<': '&lt;',
      '>': '&gt;',
      '"': '&#34;',
      "'": '&#39;',
    };
    const text = toText(operand);
    return text.respelled(text.value.replace(/[&<>"']/g, (character) => html[character]!));
  },
};

const aliases: Readonly<Record<string, string>> = { d: 'default', e: 'escape' };

/** @throws Fault */
export function findFilter(name: string): Filter {
  const full = Object.hasOwn(aliases, name) ? aliases[name]! : name;
  if (Object.hasOwn(filters, full)) return filters[full]!;
  throw new Fault(`no filter named ${JSON.stringify(name.slice(0, 40))}`);
}

const other = (args: CallArguments): Value => args.positional[0] ?? null;
const isInteger = (value: Value): boolean => typeof value === 'number' || typeof value === 'bigint';
const integer = (value: Value): number => integerOf(value, 'what is tested');

const tests: Readonly<Record<string, Test>> = {
  defined: (value) => !(value instanceof Undefined),
  undefined: (value) => value instanceof Undefined,
  none: (value) => value === null,
  string: (value) => value instanceof Text,
  number: (value) => numberOf(value) !== undefined,
  integer: isInteger,
  float: (value) => value instanceof Float,
  boolean: (value) => typeof value === 'boolean',
  true: (value) => value === true,
  false: (value) => value === false,
  mapping: (value) => value instanceof Dict,
  sequence: (value) => Array.isArray(value) || value instanceof Text || value instanceof Dict,
  iterable: (value) =>
    Array.isArray(value) || value instanceof Text || value instanceof Dict || value instanceof Undefined,
  callable: (value) => typeof value === 'function',
  even: (value) => integer(value) % 2 === 0,
  odd: (value) => integer(value) % 2 !== 0,
  divisibleby: (value, args) => integer(value) % integer(other(args)) === 0,
  equalto: (value, args) => equals(value, other(args)),
  ne: (value, args) => !equals(value, other(args)),
  lt: (value, args) => compare(value, other(args)) < 0,
  le: (value, args) => compare(value, other(args)) <= 0,
  gt: (value, args) => compare(value, other(args)) > 0,
  ge: (value, args) => compare(value, other(args)) >= 0,
  in: (value, args) => contains(other(args), value),
  sameas: (value, args) => value === other(args) || (typeof value !== 'object' && equals(value, other(args))),
  upper: (value) => toText(value).value === toText(value).value.toUpperCase(),
  lower: (value) => toText(value).value === toText(value).value.toLowerCase(),
};

const testAliases: Readonly<Record<string, string>> = {
  eq: 'equalto',
  '==': 'equalto',
  '!=': 'ne',
  '<': 'lt',
  lessthan: 'lt',
  '<=': 'le',
  '>': 'gt',
  greaterthan: 'gt',
  '>=': 'ge',
};

/** @throws Fault */
export function findTest(name: string): Test {
  const full = Object.hasOwn(testAliases, name) ? testAliases[name]! : name;
  if (Object.hasOwn(tests, full)) return tests[full]!;
  throw new Fault(`no test named ${JSON.stringify(name.slice(0, 40))}`);
}

/** `item in container`. @throws Fault */
export function contains(container: Value, item: Value): boolean {
  if (container instanceof Text) return container.value.includes(textOf(item, 'what is looked for in a text').value);
  if (container instanceof Dict) return item instanceof Text && container.entries.has(item.value);
  if (Array.isArray(container)) return container.some((entry) => equals(entry, item));
  if (container instanceof Undefined) return false;
  throw new Fault(`${typeName(container)} has no items`);
}
