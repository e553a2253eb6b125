/** Filters over the items of a value. */
import { getAttribute, getItem } from './access.ts';
import { type Context, type Filter, type Table, textIn } from './builtin.ts';
import { Bytes } from './bytes.ts';
import { arithmetic, integerOf } from './numbers.ts';
import { toText } from './represent.ts';
import { Text } from './text.ts';
import { joined } from './text-methods.ts';
import {
  type CallArguments,
  Dict,
  equals,
  Fault,
  Generator,
  isTrue,
  iterate,
  List,
  lengthOf,
  less,
  listOf,
  missing,
  Range,
  Thing,
  Tuple,
  typeName,
  Undefined,
  type Value,
  View,
  valueOr,
} from './values.ts';
import { spend, spendItems } from './work.ts';

const lowered = (value: Value, sensitive: Value | undefined): Value =>
  value instanceof Text && !isTrue(sensitive ?? false) ? value.respelled(value.value.toLowerCase()) : value;

const keysOf = (path: Value | undefined): readonly Value[] => {
  if (path === undefined || path === null) return [];
  if (!(path instanceof Text)) return [path];
  return path.value.split('.').map((key) => (/^\d+$/.test(key) ? Number(key) : new Text(key)));
};

/** Follows a path such as `a.b.0` from an item. `fallback` replaces undefined values along the path. */
function pathOf(item: Value, path: Value | undefined, fallback?: Value): Value {
  let value = item;
  for (const key of keysOf(path)) {
    spend(1);
    value = getItem(value, key);
    if (value instanceof Undefined && fallback !== undefined && fallback !== null) value = fallback;
  }
  return value;
}

function* through(operand: Value): Values {
  for (const values = iterate(operand); ; ) {
    const next = values.next();
    if (next.done) return;
    spend(1);
    yield next.value;
  }
}
type Values = IterableIterator<Value>;

function sorted(items: readonly Value[], keyOf: (item: Value) => Value, reverse = false): Value[] {
  spendItems(items.length);
  const keyed = items.map((item) => ({ item, key: keyOf(item) }));
  const order = (a: Value, b: Value): number => (less(a, b) ? -1 : less(b, a) ? 1 : 0);
  keyed.sort((a, b) => {
    spend(1);
    return reverse ? order(b.key, a.key) : order(a.key, b.key);
  });
  if (keyed.length === 1) return [...items];
  return keyed.map(({ item }) => item);
}

function extreme(wantsLess: boolean): Filter {
  return (operand, [sensitive, path]) => {
    let best: { item: Value; key: Value } | undefined;
    for (const item of through(operand)) {
      const key = lowered(pathOf(item, path), sensitive);
      if (!best || (wantsLess ? less(key, best.key) : less(best.key, key))) best = { item, key };
    }
    return best ? best.item : new Undefined('No aggregated item, sequence was empty.');
  };
}

const rest = ({ positional, named }: CallArguments, from: number): CallArguments => ({
  positional: positional.slice(from),
  named,
});

function* mapped(operand: Value, all: CallArguments, context: Context): Values {
  if (!isTrue(operand)) return;
  const { positional, named } = all;
  if (positional.length === 0 && named.has('attribute')) {
    for (const name of named.keys())
      if (name !== 'attribute' && name !== 'default')
        throw new Fault(`Unexpected keyword argument '${name.slice(0, 40)}'`);
    for (const item of through(operand)) yield pathOf(item, named.get('attribute'), named.get('default'));
    return;
  }
  if (positional.length === 0) throw new Fault('map requires a filter argument');
  const name = textIn(positional[0], 'the name of a filter').value;
  for (const item of through(operand)) yield context.filter(name, item, rest(all, 1));
}

function* chosen(operand: Value, all: CallArguments, context: Context, wanted: boolean, byPath: boolean): Values {
  if (!isTrue(operand)) return;
  const at = byPath ? 1 : 0;
  const { positional } = all;
  if (positional.length < at) throw new Fault('Missing parameter for attribute name');
  for (const item of through(operand)) {
    const value = byPath ? pathOf(item, positional[0]) : item;
    const holds =
      positional.length > at
        ? context.test(textIn(positional[at], 'the name of a test').value, value, rest(all, at + 1))
        : isTrue(value);
    if (holds === wanted) yield item;
  }
}

const choosing =
  (wanted: boolean, byPath: boolean): Filter =>
  (operand, _, context, all) =>
    new Generator(chosen(operand, all, context, wanted, byPath));

function* unique(operand: Value, sensitive: Value | undefined, path: Value | undefined): Values {
  const seen = new Dict();
  for (const item of through(operand)) {
    const key = lowered(pathOf(item, path), sensitive);
    if (seen.has(key)) continue;
    seen.set(key, null);
    yield item;
  }
}

function* batches(operand: Value, count: Value | undefined, fill: Value): Values {
  let batch: Value[] = [];
  const size = typeof count === 'number' ? count : undefined;
  for (const item of through(operand)) {
    if (batch.length === size) {
      yield new List(batch);
      batch = [];
    }
    batch.push(item);
  }
  if (batch.length === 0) return;
  if (fill !== null) {
    const wanted = integerOf(count, 'linecount');
    spendItems(Math.max(0, wanted - batch.length));
    while (batch.length < wanted) batch.push(fill);
  }
  yield new List(batch);
}

function* slices(operand: Value, count: Value | undefined, fill: Value): Values {
  const items = listOf(operand);
  const number = integerOf(count, 'slices');
  if (number === 0) throw new Fault('integer division or modulo by zero');
  spendItems(number);
  const size = Math.floor(items.length / number);
  const longer = items.length - size * number;
  let start = 0;
  for (let i = 0; i < number; i++) {
    spend(1);
    const end = start + size + (i < longer ? 1 : 0);
    const slice = items.slice(start, end);
    yield new List(fill !== null && i >= longer ? [...slice, fill] : slice);
    start = end;
  }
}

function groups(operand: Value, [path, fallback, sensitive]: readonly (Value | undefined)[]): List {
  const keyOf = (item: Value): Value => lowered(pathOf(item, path, fallback), sensitive);
  const found: { key: Value; items: Value[] }[] = [];
  for (const item of sorted(listOf(operand), keyOf)) {
    const key = keyOf(item);
    const last = found.at(-1);
    if (last && equals(last.key, key)) last.items.push(item);
    else found.push({ key, items: [item] });
  }
  const shown = (key: Value, items: readonly Value[]): Value =>
    isTrue(sensitive ?? false) ? key : pathOf(items[0]!, path, fallback);
  return new List(found.map(({ key, items }) => new Tuple([shown(key, items), new List(items)], ['grouper', 'list'])));
}

function sum(operand: Value, path: Value | undefined, start: Value): Value {
  if (start instanceof Text || start instanceof Bytes) throw new Fault("sum() can't sum strings");
  let total = start as Value;
  for (const item of through(operand)) {
    const value = path === null || path === undefined ? item : pathOf(item, path);
    if (value instanceof Undefined) throw missing(value);
    if ((total instanceof List && value instanceof List) || (total instanceof Tuple && value instanceof Tuple)) {
      spendItems(total.items.length + value.items.length);
      const items = [...total.items, ...value.items];
      total = total instanceof List ? new List(items) : new Tuple(items);
    } else total = arithmetic('+', total, value);
  }
  return total;
}

function reversed(operand: Value): Value {
  if (operand instanceof Text) {
    spend(operand.length);
    return Text.join(operand.split().reverse());
  }
  return new Generator(listOf(operand).toReversed()[Symbol.iterator]());
}

function last(operand: Value): Value {
  if (operand instanceof Thing && !(operand instanceof Range || operand instanceof View))
    throw new Fault(`'${typeName(operand)}' object is not reversible`);
  return valueOr(listOf(operand).at(-1), new Undefined('No last item, sequence was empty.'));
}

function first(operand: Value): Value {
  if (operand instanceof Text) {
    const text = operand.value;
    return text === ''
      ? new Undefined('No first item, sequence was empty.')
      : operand.slice(0, text.codePointAt(0)! > 0xffff ? 2 : 1);
  }
  const { done, value } = iterate(operand).next();
  return done ? new Undefined('No first item, sequence was empty.') : value;
}

function dictsort(operand: Value, [sensitive, by, reverse]: readonly (Value | undefined)[]): List {
  const place = by === undefined ? 'key' : by instanceof Text ? by.value : '';
  if (place !== 'key' && place !== 'value') throw new Fault('You can only sort by either "key" or "value"');
  if (!(operand instanceof Dict)) throw new Fault(`dictsort needs a dict, found ${typeName(operand)}`);
  const pairs = [...operand.entries.values()].map(([key, value]) => new Tuple([key, value]));
  const keyOf = (pair: Value): Value => lowered((pair as Tuple).items[place === 'key' ? 0 : 1]!, sensitive);
  return new List(sorted(pairs, keyOf, integerOf(reverse, 'reverse', 0) !== 0));
}

function sort(operand: Value, [reverse, sensitive, path]: readonly (Value | undefined)[]): List {
  const paths = path instanceof Text ? path.value.split(',').map((one) => new Text(one)) : [path];
  const keyOf = (item: Value): Value => new List(paths.map((one) => lowered(pathOf(item, one), sensitive)));
  return new List(sorted(listOf(operand), keyOf, integerOf(reverse, 'reverse', 0) !== 0));
}

function* pairs(operand: Value): Values {
  if (operand instanceof Undefined) return;
  if (!(operand instanceof Dict)) throw new Fault('Can only get item pairs from a mapping.');
  for (const [key, value] of operand.entries.values()) yield new Tuple([key, value]);
}

const length: readonly [string, Filter] = ['', (operand) => lengthOf(operand)];

export const itemFilters: Table<Filter> = {
  attr: [
    'name',
    (operand, [name]) => {
      const value = getAttribute(
        operand instanceof Dict ? new Dict() : operand,
        textIn(name, 'the name of an attribute').value,
      );
      const own = operand instanceof Dict ? getAttribute(operand, (name as Text).value) : value;
      return value instanceof Undefined ? value : own;
    },
  ],
  batch: ['linecount fill_with?', (operand, [count, fill]) => new Generator(batches(operand, count, fill ?? null))],
  count: length,
  dictsort: ['case_sensitive? by? reverse?', dictsort],
  first: ['', first],
  groupby: ['attribute default? case_sensitive?', groups],
  items: ['', (operand) => new Generator(pairs(operand))],
  join: [
    'd? attribute?',
    (operand, [separator, path]) => {
      const items = listOf(operand).map((item) => (path === undefined || path === null ? item : pathOf(item, path)));
      return joined(toText(valueOr(separator, new Text(''))), items, toText);
    },
  ],
  last: ['', last],
  length,
  list: ['', (operand) => new List(listOf(operand))],
  map: ['* **', (operand, _, context, all) => new Generator(mapped(operand, all, context))],
  max: ['case_sensitive? attribute?', extreme(false)],
  min: ['case_sensitive? attribute?', extreme(true)],
  random: [
    '',
    (operand) => {
      if (lengthOf(operand) === 0) return new Undefined('No random item, sequence was empty.');
      return getItem(operand, 0);
    },
  ],
  reject: ['* **', choosing(false, false)],
  rejectattr: ['* **', choosing(false, true)],
  reverse: ['', reversed],
  select: ['* **', choosing(true, false)],
  selectattr: ['* **', choosing(true, true)],
  slice: ['slices fill_with?', (operand, [count, fill]) => new Generator(slices(operand, count, fill ?? null))],
  sort: ['reverse? case_sensitive? attribute?', sort],
  sum: ['attribute? start?', (operand, [path, start]) => sum(operand, path, valueOr(start, 0))],
  unique: [
    'case_sensitive? attribute?',
    (operand, [sensitive, path]) => new Generator(unique(operand, sensitive, path)),
  ],
};
