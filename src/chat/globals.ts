/** Global functions of templates. */

import { fromKeys } from './methods.ts';
import { integerOf } from './numbers.ts';
import { toText } from './represent.ts';
import { bound, signature } from './signature.ts';
import { Markup, Text } from './text.ts';
import { formatTime } from './time.ts';
import {
  type CallArguments,
  Dict,
  Fault,
  Func,
  isTrue,
  listOf,
  Namespace,
  Range,
  Thing,
  Tuple,
  typeName,
  type Value,
  valueOr,
} from './values.ts';
import { spendCharacters, spendItems } from './work.ts';

/** Thrown by `raise_exception`, with the template's message. */
export class Raised extends Error {}

/** The limit of Jinja's sandbox. */
const LONGEST_RANGE = 100_000;

function range({ positional, named }: CallArguments): Range {
  if (named.size > 0 || positional.length < 1 || positional.length > 3)
    throw new Fault('range takes one to three integers');
  const numbers = positional.map((value) => integerOf(value, 'a bound of range'));
  const [start, stop, step] = numbers.length > 1 ? [numbers[0]!, numbers[1]!, numbers[2] ?? 1] : [0, numbers[0]!, 1];
  if (step === 0) throw new Fault('the step of a range must not be 0');
  const length = Math.max(0, Math.ceil((stop - start) / step));
  if (!(length <= LONGEST_RANGE)) throw new Fault(`expected a range of at most ${LONGEST_RANGE} numbers`);
  return new Range(start, stop, step);
}

/** Adds the entries of a dict or of pairs, and named arguments, to `dict`. @throws Fault */
function filled(dict: Dict, { positional, named }: CallArguments): Dict {
  if (positional.length > 1) throw new Fault(`dict expected at most 1 argument, got ${positional.length}`);
  const [first] = positional;
  if (first instanceof Dict) {
    spendItems(first.entries.size * 2);
    for (const [key, value] of first.entries.values()) dict.set(key, value);
  } else if (first !== undefined) {
    for (const item of listOf(first)) {
      const pair = listOf(item);
      if (pair.length !== 2) throw new Fault(`expected pairs of key and value, found ${pair.length} values`);
      dict.set(pair[0]!, pair[1]!);
    }
  }
  for (const [name, value] of named) dict.set(new Text(name), value);
  return dict;
}

class DictFunction extends Thing {
  readonly type = 'TemplateDict';

  override call(args: CallArguments): Value {
    return filled(new Dict(), args);
  }

  override attribute(name: string): Value | undefined {
    if (name !== 'fromkeys') return undefined;
    return new Func(name, (args) => {
      const [keys, value] = bound(name, signature('iterable value? /'), args);
      return fromKeys(keys!, value ?? null);
    });
  }
}

/** @throws Fault for names that begin with `_` */
export function checkAttribute(name: Value): void {
  if (name instanceof Text && name.value.startsWith('_'))
    throw new Fault(`expected attributes of a namespace that do not begin with _, found ${name.value.slice(0, 40)}`);
}

function namespace(args: CallArguments): Namespace {
  const made = new Namespace();
  filled(made.dict, args);
  for (const [key] of made.dict.entries.values()) checkAttribute(key);
  return made;
}

class Cycler extends Thing {
  readonly type = 'Cycler';
  readonly #items: readonly Value[];
  #position = 0;

  constructor({ positional, named }: CallArguments) {
    super();
    if (positional.length === 0 || named.size > 0) throw new Fault('cycler needs at least one item');
    this.#items = positional;
  }

  override attribute(name: string): Value | undefined {
    if (name === 'items') return new Tuple(this.#items);
    if (name === 'pos') return this.#position;
    if (name === 'current') return this.#items[this.#position]!;
    if (name === 'next')
      return new Func('next', () => {
        const value = this.#items[this.#position]!;
        this.#position = (this.#position + 1) % this.#items.length;
        return value;
      });
    if (name !== 'reset') return undefined;
    return new Func('reset', () => {
      this.#position = 0;
      return null;
    });
  }
}

class Joiner extends Thing {
  readonly type = 'Joiner';
  readonly #separator: Value;
  #used = false;

  constructor(args: CallArguments) {
    super();
    this.#separator = valueOr(bound('joiner', signature('sep?'), args)[0], new Text(', '));
  }

  override attribute(name: string): Value | undefined {
    return name === 'sep' ? this.#separator : name === 'used' ? this.#used : undefined;
  }

  override call(args: CallArguments): Value {
    bound('joiner', signature(''), args);
    if (this.#used) return this.#separator;
    this.#used = true;
    return new Text('');
  }
}

const LOREM =
  'Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore et dolore magna aliqua.';

function lipsum(args: CallArguments): Text {
  const [n, html, min] = bound('lipsum', signature('n? html? min? max?'), args);
  const words = LOREM.split(' ');
  const wanted = integerOf(min, 'min', 20);
  const count = Math.max(0, integerOf(n, 'n', 5));
  spendCharacters(count * Math.max(wanted, 1) * 8);
  const paragraph = Array.from({ length: wanted }, (_, i) => words[i % words.length]!).join(' ');
  const ended = paragraph.replace(/[,.]?$/, '.');
  const isHtml = isTrue(valueOr(html, true));
  const all = Array.from({ length: count }, () => (isHtml ? `<p>${ended}</p>` : ended)).join(isHtml ? '\n' : '\n\n');
  return isHtml ? Markup.of(new Text(all)) : new Text(all);
}

/** Global names and values. @param now the time for `strftime_now`; default: the clock */
export function globalsOf(now: Date | undefined): [string, Value][] {
  return [
    ['cycler', new Func('cycler', (args) => new Cycler(args))],
    ['dict', new DictFunction()],
    ['joiner', new Func('joiner', (args) => new Joiner(args))],
    ['lipsum', new Func('lipsum', lipsum)],
    ['namespace', new Func('namespace', namespace)],
    [
      'raise_exception',
      new Func('raise_exception', (args) => {
        const [message] = bound('raise_exception', signature('message'), args);
        throw new Raised(toText(message!).value);
      }),
    ],
    ['range', new Func('range', range)],
    [
      'strftime_now',
      new Func('strftime_now', (args) => {
        const [format] = bound('strftime_now', signature('format'), args);
        if (!(format instanceof Text)) throw new Fault(`the format must be a text, found ${typeName(format!)}`);
        const time = formatTime(format.value, now ?? new Date());
        return format.isForeign ? Text.foreign(time) : new Text(time);
      }),
    ],
  ];
}
