/** Filters that return texts or numbers. */
import { type Filter, type Table, textIn } from './builtin.ts';
import { percent } from './format.ts';
import { escapedText, striptags, urlencode, urlize, xmlattr } from './html.ts';
import { fixed, integerOf, plainInteger, round, toFloat, toInteger, truncated } from './numbers.ts';
import { jsonOptions, toJson, toText } from './represent.ts';
import { Markup, Text } from './text.ts';
import { replace, splitLines, splitRight, strip } from './text-cuts.ts';
import { textMethod } from './text-methods.ts';
import { capitalize } from './unicode.ts';
import {
  Dict,
  Fault,
  Float,
  isTrue,
  lengthOf,
  missing,
  Tuple,
  typeName,
  Undefined,
  type Value,
  valueOr,
} from './values.ts';
import { checkLength, spend, spendCharacters } from './work.ts';
import { pretty, wrap } from './wrap.ts';

const kept = (from: Text, made: Text): Text => {
  spendCharacters(made.length);
  return from.isMarkup ? Markup.of(made) : made;
};

/** Jinja's `title`: words begin after spaces, hyphens and opening brackets. */
function title(text: Text): Text {
  spend(text.length * 2);
  return text.replaced(/[^-\s({[<]+/g, (word) => {
    const first = String.fromCodePoint(word.codePointAt(0)!);
    return first.toUpperCase() + word.slice(first.length).toLowerCase();
  });
}

function indent(operand: Value, [width, first, blank]: readonly (Value | undefined)[]): Text {
  if (operand instanceof Undefined) throw missing(operand);
  const text = textIn(operand, 'what is indented');
  const count = width instanceof Text ? 0 : Math.max(0, integerOf(width, 'width', 4));
  checkLength(count);
  const pad = width instanceof Text ? width : new Text(' '.repeat(count));
  const line = new Text('\n');
  const lines = splitLines(Text.join([text, line]));
  const pieces: Text[] = isTrue(first ?? false) ? [pad] : [];
  let length = 0;
  for (const [i, content] of lines.entries()) {
    if (i > 0) pieces.push(line);
    if (i > 0 && (content.length > 0 || isTrue(blank ?? false))) pieces.push(pad);
    pieces.push(content);
    spend(1);
    checkLength((length += pad.length + content.length + 1));
  }
  return kept(text, Text.join(pieces));
}

function truncate(operand: Value, [length, kill, end, leeway]: readonly (Value | undefined)[]): Value {
  const most = integerOf(length, 'length', 255);
  const tail = end === undefined ? new Text('...') : textIn(end, 'end');
  const slack = leeway === undefined || leeway === null ? 5 : integerOf(leeway, 'leeway');
  if (most < tail.characters) throw new Fault(`expected length >= ${tail.characters}, got ${most}`);
  if (slack < 0) throw new Fault(`expected leeway >= 0, got ${slack}`);
  if (lengthOf(operand) <= most + slack) return operand;
  const text = textIn(operand, 'what is truncated');
  const cut = text.sliceCharacters(0, most - tail.characters);
  return kept(text, Text.join([isTrue(kill ?? false) ? cut : splitRight(cut, new Text(' '), 1)[0]!, tail]));
}

function filesize(operand: Value, binary: boolean): Text {
  const bytes = toFloat(operand);
  if (bytes === undefined) throw new Fault(`filesizeformat needs a number, found ${typeName(operand)}`);
  const base = binary ? 1024 : 1000;
  if (bytes === 1) return new Text('1 Byte');
  if (bytes < base) return new Text(`${truncated(bytes)} Bytes`);
  const prefixes = ['k', 'M', 'G', 'T', 'P', 'E', 'Z', 'Y'];
  let at = prefixes.findIndex((_, i) => bytes < base ** (i + 2));
  if (at < 0) at = prefixes.length - 1;
  const number = (base * bytes) / base ** (at + 2);
  const prefix = binary ? `${prefixes[at]!.toUpperCase()}iB` : `${prefixes[at]}B`;
  return new Text(`${Number.isFinite(number) ? fixed(number, 1) : number > 0 ? 'inf' : 'nan'} ${prefix}`);
}

function int(operand: Value, [fallback, base]: readonly (Value | undefined)[]): Value {
  const other = fallback === undefined ? 0 : fallback;
  if (operand instanceof Undefined) throw missing(operand);
  if (operand instanceof Float && !Number.isFinite(operand.value)) {
    if (Number.isNaN(operand.value)) return other;
    throw new Fault('cannot convert float infinity to integer');
  }
  const whole = toInteger(operand, integerOf(base, 'base', 10));
  if (whole !== undefined) return whole;
  const number = toFloat(operand);
  return number !== undefined && Number.isFinite(number) ? truncated(number) : other;
}

function rounding(operand: Value, [precision, method]: readonly (Value | undefined)[]): Value {
  if (operand instanceof Undefined) throw missing(operand);
  const how = method === undefined ? 'common' : textIn(method, 'method').value;
  if (!['common', 'ceil', 'floor'].includes(how)) throw new Fault('method must be common, ceil or floor');
  if (how === 'common' && precision === null)
    return plainInteger(round(operand, 0)) ?? truncated((round(operand, 0) as Float).value);
  const places = integerOf(precision, 'precision', 0);
  if (how === 'common') return round(operand, places);
  const number = toFloat(operand instanceof Text ? null : operand);
  if (number === undefined) throw new Fault(`must be real number, not ${typeName(operand)}`);
  const scale = 10 ** places;
  const scaled = truncated(Math[how as 'ceil' | 'floor'](number * scale));
  return new Float(Number(scaled) / scale);
}

function abs(operand: Value): Value {
  if (operand instanceof Undefined) throw missing(operand);
  if (operand instanceof Float) return new Float(Math.abs(operand.value));
  const whole = plainInteger(operand);
  if (whole === undefined) throw new Fault(`bad operand type for abs(): '${typeName(operand)}'`);
  return typeof whole === 'bigint' ? (whole < 0n ? -whole : whole) : Math.abs(whole);
}

/** A filter that converts its operand to text and calls a method of texts. */
const method =
  (name: string): Filter =>
  (operand, _, __, all) =>
    textMethod(toText(operand), name)!.call(all);

const fallback: readonly [string, Filter] = [
  'default_value? boolean?',
  (operand, [other, boolean]) =>
    operand instanceof Undefined || (isTrue(boolean ?? false) && !isTrue(operand))
      ? valueOr(other, new Text(''))
      : operand,
];
const escaping: readonly [string, Filter] = ['', (operand) => escapedText(operand)];

export const textFilters: Table<Filter> = {
  abs: ['', abs],
  capitalize: ['', (operand) => kept(toText(operand), capitalize(toText(operand)))],
  center: [
    'width?',
    (operand, [width], _) =>
      textMethod(toText(operand), 'center')!.call({ positional: [width ?? 80], named: new Map() }),
  ],
  d: fallback,
  default: fallback,
  e: escaping,
  escape: escaping,
  filesizeformat: ['binary?', (operand, [binary]) => filesize(operand, isTrue(binary ?? false))],
  float: [
    'default?',
    (operand, [other]) => {
      if (operand instanceof Undefined) throw missing(operand);
      const number = toFloat(operand);
      return number === undefined ? valueOr(other, new Float(0)) : new Float(number);
    },
  ],
  forceescape: ['', (operand) => escapedText(new Text(toText(operand).value, toText(operand).spans))],
  format: [
    '* **',
    (operand, _, __, { positional, named }) => {
      if (positional.length > 0 && named.size > 0)
        throw new Fault("can't handle positional and keyword arguments at the same time");
      const names = [...named].map(([key, value]) => [new Text(key), value] as const);
      return percent(toText(operand), names.length > 0 ? Dict.of(names) : new Tuple(positional));
    },
  ],
  indent: ['width? first? blank?', indent],
  int: ['default? base?', int],
  lower: ['', method('lower')],
  pprint: ['', (operand) => pretty(operand)],
  replace: [
    'old new count?',
    (operand, [from, to, count]) => {
      const text = new Text(toText(operand).value, toText(operand).spans);
      const most = count === undefined || count === null ? -1 : integerOf(count, 'count');
      return replace(text, toText(from!), toText(to!), most);
    },
  ],
  round: ['precision? method?', rounding],
  safe: ['', (operand) => Markup.of(toText(operand))],
  string: ['', (operand) => toText(operand)],
  striptags: ['', (operand) => striptags(toText(operand))],
  title: ['', (operand) => kept(new Text(''), title(toText(operand)))],
  tojson: [
    'ensure_ascii? indent? separators? sort_keys?',
    (operand, [ascii, indent, separators, sort]) =>
      toJson(operand, jsonOptions(ascii ?? false, indent ?? null, separators ?? null, sort ?? false)),
  ],
  trim: [
    'chars?',
    (operand, [chars]) => {
      const text = toText(operand);
      return kept(text, strip(text, chars === undefined || chars === null ? undefined : textIn(chars, 'chars')));
    },
  ],
  truncate: ['length? killwords? end? leeway?', truncate],
  upper: ['', method('upper')],
  urlencode: ['', (operand) => urlencode(operand)],
  urlize: ['trim_url_limit? nofollow? target? rel? extra_schemes?', urlize],
  wordcount: [
    '',
    (operand) => {
      const text = toText(operand);
      spend(text.length / 8);
      return text.value.match(/[\p{L}\p{N}_]+/gu)?.length ?? 0;
    },
  ],
  wordwrap: ['width? break_long_words? wrapstring? break_on_hyphens?', wrap],
  xmlattr: ['autospace?', (operand, [space]) => xmlattr(operand, isTrue(valueOr(space, true)))],
};
