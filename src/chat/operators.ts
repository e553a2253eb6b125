/** The operators of templates. */
import { percent } from './format.ts';
import { arithmetic, integerOf, plainInteger } from './numbers.ts';
import { repeated } from './slices.ts';
import { escaped, Markup, Text } from './text.ts';
import {
  contains,
  equals,
  Fault,
  Float,
  isTrue,
  List,
  less,
  missing,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from './values.ts';
import { checkLength, spend, spendItems } from './work.ts';

/** `a < b`, `a in b`, ... @throws Fault */
export function compares(operator: string, a: Value, b: Value): boolean {
  switch (operator) {
    case '==':
      return equals(a, b);
    case '!=':
      return !equals(a, b);
    case 'in':
      return contains(b, a);
    case 'not in':
      return !contains(b, a);
    case '<':
      return less(a, b);
    case '>':
      return less(b, a);
    case '<=':
      return less(a, b) || (!less(b, a) && equals(a, b));
    default:
      return less(b, a) || (!less(a, b) && equals(a, b));
  }
}

/** Concatenates texts. The origins of the pieces are merged when they are first needed. */
export function concatenated(texts: readonly Text[]): Text {
  checkLength(texts.reduce((sum, text) => sum + text.length, 0));
  spend(texts.length);
  return Text.join(texts);
}

/** @throws Fault */
export function binary(operator: string, a: Value, b: Value): Value {
  if (operator === '+') {
    if (a instanceof Text && b instanceof Text) {
      if (a.isMarkup || b.isMarkup) return Markup.of(concatenated([escaped(a), escaped(b)]));
      return concatenated([a, b]);
    }
    if ((a instanceof List && b instanceof List) || (a instanceof Tuple && b instanceof Tuple)) {
      spendItems(a.items.length + b.items.length);
      const items = [...a.items, ...b.items];
      return a instanceof List ? new List(items) : new Tuple(items);
    }
  } else if (operator === '*') {
    for (const [what, times] of [
      [a, b],
      [b, a],
    ] as const)
      if (
        (what instanceof Text || what instanceof List || what instanceof Tuple) &&
        plainInteger(times) !== undefined
      ) {
        const count = integerOf(times, 'the other factor');
        if (!Number.isSafeInteger(count)) throw new Fault('cannot fit the factor into an index-sized integer');
        const made = repeated(what, count);
        return what instanceof Markup ? Markup.of(made as Text) : made;
      }
  } else if (operator === '%' && a instanceof Text) {
    return percent(a, b);
  }
  return arithmetic(operator, a, b);
}

/** @throws Fault */
export function unary(operator: string, value: Value): Value {
  if (operator === 'not') return !isTrue(value);
  if (value instanceof Undefined) throw missing(value);
  if (value instanceof Float) return operator === '-' ? new Float(-value.value) : value;
  const whole = plainInteger(value);
  if (whole === undefined) throw new Fault(`bad operand type for unary ${operator}: '${typeName(value)}'`);
  if (operator === '+') return whole;
  return typeof whole === 'bigint' ? -whole : 0 - whole;
}
