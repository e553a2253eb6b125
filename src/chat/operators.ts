/** What the operators of a template do with values. */
import { contains } from './filters.ts';
import { integerOf } from './methods.ts';
import { Text } from './text.ts';
import { compare, equals, Fault, Float, itemsOf, numberOf, typeName, type Value } from './values.ts';

/** `a < b`, `a in b`, ... @throws Fault */
export function compares(operator: string, a: Value, b: Value): boolean {
  if (operator === '==') return equals(a, b);
  if (operator === '!=') return !equals(a, b);
  if (operator === 'in') return contains(b, a);
  if (operator === 'not in') return !contains(b, a);
  const order = compare(a, b);
  if (operator === '<') return order < 0;
  if (operator === '<=') return order <= 0;
  return operator === '>' ? order > 0 : order >= 0;
}

/** @throws Fault */
export function arithmetic(operator: string, a: Value, b: Value): Value {
  const [x, y] = [numberOf(a), numberOf(b)];
  if (x === undefined || y === undefined)
    throw new Fault(`expected numbers or texts on both sides of ${operator}, found ${typeName(a)} and ${typeName(b)}`);
  if (y === 0 && /[/%]/.test(operator)) throw new Fault('division by zero');
  const results: Readonly<Record<string, number>> = {
    '+': x + y,
    '-': x - y,
    '*': x * y,
    '/': x / y,
    '//': Math.floor(x / y),
    '%': x - y * Math.floor(x / y),
    '**': x ** y,
  };
  const result = results[operator]!;
  const isFloat = a instanceof Float || b instanceof Float || operator === '/' || (operator === '**' && y < 0);
  return isFloat || !Number.isFinite(result) ? new Float(result) : result;
}

/** `object[start:stop:step]`, by Python's rules. */
export function slice(object: Value, bounds: readonly (Value | undefined)[]): Value {
  const step = integerOf(bounds[2], 'the step', 1);
  const whole = object instanceof Text && step === 1;
  const items = whole ? { length: object.characters } : itemsOf(object);
  if (step === 0) throw new Fault('the step of a slice must not be 0');
  const [low, high] = step > 0 ? [0, items.length] : [-1, items.length - 1];
  const place = (bound: Value | undefined, fallback: number): number => {
    const index = integerOf(bound, 'a bound', fallback);
    if (bound === undefined || bound === null) return index;
    return Math.min(Math.max(index < 0 ? index + items.length : index, low), high);
  };
  const start = place(bounds[0], step > 0 ? low : high);
  const stop = place(bounds[1], step > 0 ? high : low);
  if (whole) return object.sliceCharacters(start, Math.max(start, stop));
  const chosen: Value[] = [];
  for (let i = start; step > 0 ? i < stop : i > stop; i += step) chosen.push((items as readonly Value[])[i]!);
  return object instanceof Text ? Text.join(chosen as Text[]) : chosen;
}
