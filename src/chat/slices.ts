/** Slices, indices and repetition of sequences. */
import { integerOf } from './numbers.ts';
import { Markup, Text } from './text.ts';
import { equals, Fault, List, missing, Range, Tuple, typeName, Undefined, type Value } from './values.ts';
import { checkLength, spend, spendCharacters, spendItems } from './work.ts';

/** Start, stop and step for a sequence of `length` items, by Python's rules. @throws Fault */
export function sliceBounds(
  bounds: readonly (Value | undefined)[],
  length: number,
): readonly [start: number, stop: number, step: number] {
  const given = bounds.map((bound) =>
    bound === null || bound === undefined ? undefined : integerOf(bound, 'a slice index'),
  );
  const step = given[2] ?? 1;
  if (step === 0) throw new Fault('the step of a slice must not be 0');
  const [low, high] = step > 0 ? [0, length] : [-1, length - 1];
  const place = (index: number | undefined, fallback: number): number =>
    index === undefined ? fallback : Math.min(Math.max(index < 0 ? index + length : index, low), high);
  return [place(given[0], step > 0 ? low : high), place(given[1], step > 0 ? high : low), step];
}

/** `object[start:stop:step]`. @throws Fault */
export function slice(object: Value, bounds: readonly (Value | undefined)[]): Value {
  if (object instanceof Undefined) throw missing(object);
  if (object instanceof Text) {
    const [start, stop, step] = sliceBounds(bounds, object.characters);
    if (object.isForeign) spend(object.spans.length / 2);
    if (step === 1) {
      if (object.characters !== object.length) spend(object.length / 8);
      spendCharacters(Math.max(0, stop - start));
      return alike(object, object.sliceCharacters(start, Math.max(start, stop)));
    }
    spend(object.length);
    return alike(object, Text.join(chosen(object.split(), start, stop, step)));
  }
  if (object instanceof List || object instanceof Tuple) {
    const [start, stop, step] = sliceBounds(bounds, object.items.length);
    const items =
      step === 1 ? object.items.slice(start, Math.max(start, stop)) : chosen(object.items, start, stop, step);
    spendItems(items.length);
    return object instanceof List ? new List(items) : new Tuple(items);
  }
  if (object instanceof Range) {
    const [start, stop, step] = sliceBounds(bounds, object.length);
    return new Range(object.at(start), object.at(stop), object.step * step);
  }
  throw new Fault(`'${typeName(object)}' object has no slices`);
}

/** A part of a Markup text as Markup. */
export const alike = (whole: Text, part: Text): Text => (whole.isMarkup ? Markup.of(part) : part);

function chosen<T>(items: readonly T[], start: number, stop: number, step: number): T[] {
  const found: T[] = [];
  for (let i = start; step > 0 ? i < stop : i > stop; i += step) found.push(items[i]!);
  return found;
}

/** `what * count` for a text, list or tuple. @throws Fault */
export function repeated(what: Text | List | Tuple, count: number): Value {
  const times = Math.max(0, count);
  if (what instanceof Text) {
    checkLength(what.length * times);
    if (!what.isForeign) {
      spendCharacters(what.length * times);
      return new Text(what.value.repeat(times));
    }
    spend(times);
    return Text.join(Array.from({ length: what.length === 0 ? 0 : times }, () => what));
  }
  spendItems(what.items.length * times);
  const items = what.items.length === 0 ? [] : Array.from({ length: times }, () => what.items).flat();
  return what instanceof List ? new List(items) : new Tuple(items);
}

/** Index of an item in a sequence. @throws Fault if it is not there */
export function indexOf(items: readonly Value[], item: Value, from = 0, to = items.length): number {
  const [start, stop] = sliceBounds([from, to], items.length);
  for (let i = start; i < stop; i++) {
    spendItems(1);
    if (equals(items[i]!, item)) return i;
  }
  throw new Fault('the item is not in the list');
}
