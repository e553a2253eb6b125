/** Methods of Python's str. */
import { textIn } from './builtin.ts';
import { encoded } from './bytes.ts';
import { integerOf } from './numbers.ts';
import { toText } from './represent.ts';
import { bound, signature } from './signature.ts';
import { sliceBounds } from './slices.ts';
import { escaped, Markup, Text } from './text.ts';
import { partition, replace, split, splitLines, splitRight, strip } from './text-cuts.ts';
import { capitalize, casefold, classes, isLower, isTitle, isUpper, notPrintable, swapcase, title } from './unicode.ts';
import { type CallArguments, Dict, Fault, Func, isTrue, List, listOf, Tuple, type Value } from './values.ts';
import { checkLength, spend, spendCharacters } from './work.ts';

type Run = (text: Text, args: readonly (Value | undefined)[], all: CallArguments) => Value;
export type Methods = Readonly<Record<string, readonly [signature: string, run: Run]>>;

const optional = (value: Value | undefined): Value | undefined => (value === null ? undefined : value);
const whole = (name: string): readonly [string, Run] => ['', (text) => classes[name]!.test(text.value)];
const made = (text: Text): Text => {
  spendCharacters(text.length);
  return text;
};

/** Changes a text by a function whose time is proportional to its length, and accounts for it. */
const eachCharacter = (text: Text, change: (text: Text) => Text): Text => {
  spend(text.length * 3);
  return made(change(text));
};

/** The text between start and end (code points), and its start. */
function within(
  text: Text,
  start: Value | undefined,
  end: Value | undefined,
): readonly [text: Text, offset: number] | undefined {
  if (optional(start) === undefined && optional(end) === undefined) return [text, 0];
  const from = optional(start) === undefined ? 0 : integerOf(start, 'start');
  if (from > text.characters) return undefined;
  const [first, last] = sliceBounds([start, end], text.characters);
  return last < first ? undefined : [text.sliceCharacters(first, last), first];
}

function find(last: boolean): Run {
  return (text, [part, start, end]) => {
    const { value } = textIn(part, 'what to find');
    const range = within(text, start, end);
    if (!range) return -1;
    const unit = last ? range[0].value.lastIndexOf(value) : range[0].value.indexOf(value);
    return unit < 0 ? -1 : range[0].characterOf(unit) + range[1];
  };
}

function index(last: boolean): Run {
  return (text, args, all) => {
    const at = find(last)(text, args, all);
    if (at === -1) throw new Fault('substring not found');
    return at;
  };
}

function begins(test: (text: Text, part: string) => boolean): Run {
  return (text, [part, start, end]) => {
    const parts = part instanceof Tuple ? part.items : [part];
    const range = within(text, start, end);
    return parts.some((one) => {
      const { value } = textIn(one, 'a prefix or suffix');
      return range !== undefined && test(range[0], value);
    });
  };
}

function count(text: Text, part: Text): number {
  if (part.length === 0) return text.characters + 1;
  let found = 0;
  for (let at = text.value.indexOf(part.value); at >= 0; at = text.value.indexOf(part.value, at + part.length)) found++;
  return found;
}

function justified(side: 'left' | 'right' | 'both'): Run {
  return (text, [width, fill]) => {
    const pad = fill === undefined ? new Text(' ') : textIn(fill, 'the fill character');
    if (pad.characters !== 1) throw new Fault('The fill character must be exactly one character long');
    const total = integerOf(width, 'the width');
    const missing = total - text.characters;
    if (missing <= 0) return text;
    checkLength(total);
    spendCharacters(total);
    // For an odd number of fill characters, Python puts the extra one to the left if the width is odd.
    const left = side === 'left' ? missing : side === 'right' ? 0 : Math.floor(missing / 2) + (missing & total & 1);
    const run = (times: number): Text => {
      const value = pad.value.repeat(times);
      return pad.isForeign ? Text.foreign(value) : new Text(value);
    };
    return Text.join([run(left), text, run(missing - left)]);
  };
}

function expandTabs(text: Text, size: number): Text {
  let column = 0;
  let total = 0;
  const pieces = text.split().map((character) => {
    if (character.value === '\t') {
      const width = size > 0 ? size - (column % size) : 0;
      column += width;
      checkLength((total += width));
      return new Text(' '.repeat(width));
    }
    column = character.value === '\n' || character.value === '\r' ? 0 : column + 1;
    return character;
  });
  return Text.join(pieces);
}

function makeTable([from, to, gone]: readonly (Value | undefined)[]): Dict {
  const code = (text: Text): number => text.value.codePointAt(0)!;
  const table = new Dict();
  if (to === undefined) {
    if (!(from instanceof Dict)) throw new Fault('if you give only one argument to maketrans it must be a dict');
    for (const [key, value] of from.entries.values()) {
      if (key instanceof Text && key.characters !== 1)
        throw new Fault('string keys in translate table must be of length 1');
      table.set(key instanceof Text ? code(key) : key, value);
    }
    return table;
  }
  const [a, b] = [textIn(from, 'the first argument').split(), textIn(to, 'the second argument').split()];
  if (a.length !== b.length) throw new Fault('the first two maketrans arguments must have equal length');
  for (const [i, character] of a.entries()) table.set(code(character), code(b[i]!));
  if (gone !== undefined)
    for (const character of textIn(gone, 'the third argument').split()) table.set(code(character), null);
  return table;
}

function translate(text: Text, table: Value): Text {
  if (!(table instanceof Dict)) throw new Fault('expected a dict as table of translate');
  spend(text.length);
  return Text.join(
    text.split().map((character) => {
      const other = table.get(character.value.codePointAt(0)!);
      if (other === undefined) return character;
      if (other === null) return new Text('');
      if (other instanceof Text) return character.isForeign ? Text.foreign(other.value) : other;
      if (typeof other !== 'number' || other < 0 || other > 0x10ffff)
        throw new Fault('character mapping must be a text, an integer or None');
      return Text.foreign(String.fromCodePoint(other));
    }),
  );
}

export function zeroFilled(text: Text, width: number): Text {
  const missing = width - text.characters;
  if (missing <= 0) return text;
  spendCharacters(width);
  const sign = /^[+-]/.test(text.value) ? 1 : 0;
  return Text.join([text.slice(0, sign), new Text('0'.repeat(missing)), text.slice(sign)]);
}

const most = (value: Value | undefined, name: string): number => integerOf(value, name, -1);
const separatorOf = (value: Value | undefined): Text | undefined =>
  optional(value) === undefined ? undefined : textIn(value, 'the separator');
const parts = (items: readonly Text[]): List => new List(items);

export const textMethods: Methods = {
  capitalize: ['', (text) => capitalize(text)],
  casefold: ['', (text) => eachCharacter(text, casefold)],
  center: ['width fillchar? /', justified('both')],
  count: [
    'sub start? end? /',
    (text, [part, start, end]) => {
      const sub = textIn(part, 'what to count');
      const range = within(text, start, end);
      return range ? count(range[0], sub) : 0;
    },
  ],
  encode: ['encoding? errors?', (text, [encoding, errors]) => encoded(text, encoding, errors)],
  endswith: ['suffix start? end? /', begins((text, part) => text.value.endsWith(part))],
  expandtabs: ['tabsize?', (text, [size]) => made(expandTabs(text, integerOf(size, 'tabsize', 8)))],
  find: ['sub start? end? /', find(false)],
  index: ['sub start? end? /', index(false)],
  isalnum: whole('isalnum'),
  isalpha: whole('isalpha'),
  isascii: ['', (text) => !/\P{ASCII}/u.test(text.value)],
  isdecimal: whole('isdecimal'),
  isdigit: whole('isdigit'),
  isidentifier: whole('isidentifier'),
  islower: ['', (text) => isLower(text.value)],
  isnumeric: whole('isnumeric'),
  isprintable: ['', (text) => text.value.search(notPrintable) < 0],
  isspace: whole('isspace'),
  istitle: [
    '',
    (text) => {
      spend(text.length / 8);
      return isTitle(text.value);
    },
  ],
  isupper: ['', (text) => isUpper(text.value)],
  join: ['iterable /', (text, [items]) => joined(text, listOf(items!), (item) => textIn(item, 'an item of join'))],
  ljust: ['width fillchar? /', justified('right')],
  lower: ['', (text) => text.respelled(text.value.toLowerCase())],
  lstrip: ['chars? /', (text, [chars]) => strip(text, separatorOf(chars), 'left')],
  maketrans: ['x y? z? /', (_, args) => makeTable(args)],
  partition: ['sep /', (text, [separator]) => new Tuple(partition(text, textIn(separator, 'the separator'), false))],
  removeprefix: [
    'prefix /',
    (text, [prefix]) =>
      text.value.startsWith(textIn(prefix, 'the prefix').value) ? text.slice((prefix as Text).length) : text,
  ],
  removesuffix: [
    'suffix /',
    (text, [suffix]) =>
      text.value.endsWith(textIn(suffix, 'the suffix').value)
        ? text.slice(0, text.length - (suffix as Text).length)
        : text,
  ],
  replace: [
    'old new count? /',
    (text, [from, to, times]) => replace(text, textIn(from, 'old'), textIn(to, 'new'), most(times, 'count')),
  ],
  rfind: ['sub start? end? /', find(true)],
  rindex: ['sub start? end? /', index(true)],
  rjust: ['width fillchar? /', justified('left')],
  rpartition: ['sep /', (text, [separator]) => new Tuple(partition(text, textIn(separator, 'the separator'), true))],
  rsplit: [
    'sep? maxsplit?',
    (text, [separator, times]) => parts(splitRight(text, separatorOf(separator), most(times, 'maxsplit'))),
  ],
  rstrip: ['chars? /', (text, [chars]) => strip(text, separatorOf(chars), 'right')],
  split: [
    'sep? maxsplit?',
    (text, [separator, times]) => parts(split(text, separatorOf(separator), most(times, 'maxsplit'))),
  ],
  splitlines: ['keepends?', (text, [keep]) => parts(splitLines(text, isTrue(keep ?? false)))],
  startswith: ['prefix start? end? /', begins((text, part) => text.value.startsWith(part))],
  strip: ['chars? /', (text, [chars]) => strip(text, separatorOf(chars), 'both')],
  swapcase: ['', (text) => eachCharacter(text, swapcase)],
  title: ['', (text) => eachCharacter(text, title)],
  translate: ['table /', (text, [table]) => made(translate(text, table!))],
  upper: ['', (text) => text.respelled(text.value.toUpperCase())],
  zfill: ['width /', (text, [width]) => zeroFilled(text, integerOf(width, 'the width'))],
};

/** Python's str.join. @throws Fault */
export function joined(separator: Text, items: readonly Value[], textOfItem: (item: Value) => Text): Text {
  const pieces: Text[] = [];
  let length = 0;
  for (const [i, item] of items.entries()) {
    if (i > 0) pieces.push(separator);
    pieces.push(textOfItem(item));
    checkLength((length += pieces.at(-1)!.length + separator.length));
    spend(1);
  }
  return made(Text.join(pieces));
}

/** Methods without special handling for Markup: most return no text, `format` and `format_map` handle it themselves. */
const plainMarkup = [
  'encode',
  'format',
  'format_map',
  'maketrans',
  'count',
  'find',
  'rfind',
  'index',
  'rindex',
  'startswith',
  'endswith',
];

export function textMethod(text: Text, name: string): Func | undefined {
  if (!Object.hasOwn(textMethods, name)) return undefined;
  const [parameters, run] = textMethods[name]!;
  const known = signature(parameters);
  return new Func(name, (args) => {
    spend(text.weight);
    const values = bound(name, known, args);
    if (!text.isMarkup || plainMarkup.includes(name)) return run(text, values, args);
    const escapes = [
      'join',
      'replace',
      'partition',
      'rpartition',
      'split',
      'rsplit',
      'ljust',
      'rjust',
      'center',
    ].includes(name)
      ? escaped
      : (one: Text) => one;
    const safe = (value: Value | undefined): Value | undefined =>
      value instanceof Text
        ? escapes(value)
        : value instanceof List && name === 'join'
          ? new List(value.items.map((item) => safe(item)!))
          : value;
    const given =
      name === 'join' ? [new List(listOf(values[0]!).map((item) => escaped(toText(item))))] : values.map(safe);
    return marked(run(text, given, args));
  });
}

function marked(value: Value): Value {
  if (value instanceof Text) return Markup.of(value);
  if (value instanceof List) return new List(value.items.map(marked));
  return value instanceof Tuple ? new Tuple(value.items.map(marked)) : value;
}
