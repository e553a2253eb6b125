/** Jinja's tests (`is ...`). */
import type { Table, Test } from './builtin.ts';
import { arithmetic } from './numbers.ts';
import { toText } from './represent.ts';
import { Text } from './text.ts';
import { isLower, isUpper } from './unicode.ts';
import {
  contains,
  Dict,
  equals,
  Fault,
  Float,
  isInteger,
  iterate,
  List,
  less,
  numberOf,
  Range,
  Thing,
  Tuple,
  Undefined,
  type Value,
} from './values.ts';
import { spend } from './work.ts';

const one = (run: (value: Value) => boolean): readonly [string, Test] => ['', run];
const two = (run: (value: Value, other: Value) => boolean): readonly [string, Test] => [
  'other',
  (value, [other]) => run(value, other!),
];

/** `value % by`. */
const remainder = (value: Value, by: Value): Value => arithmetic('%', value, by);
const spelled = (value: Value): string => {
  const text = toText(value);
  spend(text.length / 8);
  return text.value;
};

function isIterable(value: Value): boolean {
  try {
    // Generators are not consumed.
    if (value instanceof Thing) return value.iterate !== undefined;
    return value instanceof Text || iterate(value) !== undefined;
  } catch (error) {
    if (error instanceof Fault) return false;
    throw error;
  }
}

/** The name of a filter or test to look up. @throws Fault for values that cannot be keys */
function nameIn(value: Value): string {
  new Dict().has(value);
  return value instanceof Text ? value.value : '';
}

const same = (a: Value, b: Value): boolean => {
  if (a instanceof Text && b instanceof Text) return a === b || (a.length < 2 && a.value === b.value);
  if (typeof a === 'number' && typeof b === 'number') return a === b;
  return a === b;
};

const eq = two(equals);
const ne = two((a, b) => !equals(a, b));
const lt = two(less);
const gt = two((a, b) => less(b, a));
const le = two((a, b) => less(a, b) || (equals(a, b) && !less(b, a)));
const ge = two((a, b) => less(b, a) || (equals(a, b) && !less(a, b)));

export const tests: Table<Test> = {
  '!=': ne,
  '<': lt,
  '<=': le,
  '==': eq,
  '>': gt,
  '>=': ge,
  boolean: one((value) => typeof value === 'boolean'),
  callable: one((value) => value instanceof Undefined || (value instanceof Thing && value.call !== undefined)),
  defined: one((value) => !(value instanceof Undefined)),
  divisibleby: ['num', (value, [num]) => equals(remainder(value, num!), 0)],
  eq,
  equalto: eq,
  escaped: one((value) => value instanceof Text && value.isMarkup),
  even: one((value) => equals(remainder(value, 2), 0)),
  false: one((value) => value === false),
  filter: ['', (value, _, context) => context.knows('filter', nameIn(value))],
  float: one((value) => value instanceof Float),
  ge,
  greaterthan: gt,
  gt,
  in: ['seq', (value, [seq]) => contains(seq!, value)],
  integer: one(isInteger),
  iterable: one(isIterable),
  le,
  lessthan: lt,
  lower: one((value) => isLower(spelled(value))),
  lt,
  mapping: one((value) => value instanceof Dict),
  ne,
  none: one((value) => value === null),
  number: one((value) => numberOf(value) !== undefined),
  odd: one((value) => equals(remainder(value, 2), 1)),
  sameas: two(same),
  sequence: one(
    (value) =>
      value instanceof Undefined ||
      value instanceof Text ||
      value instanceof List ||
      value instanceof Tuple ||
      value instanceof Dict ||
      value instanceof Range ||
      (value instanceof Thing && value.type === 'bytes'),
  ),
  string: one((value) => value instanceof Text),
  test: ['', (value, _, context) => context.knows('test', nameIn(value))],
  true: one((value) => value === true),
  undefined: one((value) => value instanceof Undefined),
  upper: one((value) => isUpper(spelled(value))),
};
