/** Python's formatting: `%`, `str.format` and format specifications. */
import { fixed, plainInteger, scientific, toFloat, truncated } from './numbers.ts';
import { escapeCode, integerText, represent, toText } from './represent.ts';
import { escaped, Markup, Text } from './text.ts';
import { type CallArguments, Dict, Fault, Float, numberOf, Tuple, typeName, Undefined, type Value } from './values.ts';
import { checkLength, spend, spendCharacters } from './work.ts';

interface Spec {
  readonly fill: string;
  readonly align: string;
  readonly sign: string;
  readonly alternate: boolean;
  readonly width: number;
  readonly grouping: string;
  readonly precision: number | undefined;
  readonly type: string;
  /** Whether negative zero is written as zero. */
  readonly noMinusZero: boolean;
}

const SPEC = /^(?:([\s\S])?([<>=^]))?([-+ ]?)(z?)(#?)(0?)(\d*)([,_]?)(?:\.(\d+))?([a-zA-Z%]?)$/u;

function parseSpec(text: string): Spec {
  const found = SPEC.exec(text);
  if (!found) throw new Fault(`Invalid format specifier '${text.slice(0, 40)}'`);
  const [, fill, align = '', sign, z, alternate, zero, width, grouping, precision, type] = found;
  return {
    fill: fill ?? (zero && !align ? '0' : zero ? '0' : ' '),
    align: align || (zero ? '=' : ''),
    sign: sign!,
    alternate: alternate !== '',
    width: sized(width!),
    grouping: grouping!,
    precision: precision === undefined ? undefined : sized(precision),
    type: type!,
    noMinusZero: z !== '',
  };
}

function sized(digits: string): number {
  const size = Number(digits || 0);
  checkLength(size);
  return size;
}

/** Pads to the width of `spec`. Alignment `=` pads after the first `prefix` characters (sign, `0x`). */
function padded(text: Text, { width, fill }: Spec, align: string, prefix = 0): Text {
  const missing = width - text.characters;
  if (missing <= 0) return text;
  spendCharacters(width);
  const pad = (count: number): Text => new Text(fill.repeat(count));
  if (align === '<') return Text.join([text, pad(missing)]);
  if (align === '^') return Text.join([pad(Math.floor(missing / 2)), text, pad(Math.ceil(missing / 2))]);
  return align === '='
    ? Text.join([text.slice(0, prefix), pad(missing), text.slice(prefix)])
    : Text.join([pad(missing), text]);
}

const grouped = (digits: string, separator: string, size: number): string =>
  separator ? digits.replace(new RegExp(`\\B(?=(.{${size}})+$)`, 'g'), separator) : digits;

/** Adds sign, prefix, grouping and padding to the digits of a number. */
function numeric(digits: string, negative: boolean, prefix: string, size: number, spec: Spec): Text {
  const sign = negative ? '-' : spec.sign === '-' ? '' : spec.sign;
  const [, whole = '', rest = ''] = /^([\da-zA-Z]*?)((?:[.eE%](?![\da-dA-D]*[fF]).*)?)$/.exec(digits) ?? [];
  let body = spec.grouping && size ? grouped(whole, spec.grouping, size) + rest : digits;
  if (spec.grouping && spec.fill === '0' && spec.align === '=') {
    let padding = whole;
    const wanted = spec.width - sign.length - prefix.length - rest.length;
    while (grouped(padding, spec.grouping, size).length < wanted) padding = `0${padding}`;
    body = grouped(padding, spec.grouping, size) + rest;
  }
  return padded(new Text(sign + prefix + body), spec, spec.align || '>', sign.length + prefix.length);
}

/** The digits of the absolute value for a float type (e, f, g ...). */
function floating(value: number, type: string, precision: number | undefined, alternate: boolean): string {
  const upper = type === 'F' || type === 'E' || type === 'G';
  const write = (): string => {
    if (Number.isNaN(value)) return 'nan';
    if (!Number.isFinite(value)) return 'inf';
    const places = precision ?? 6;
    if (places > 10_000) throw new Fault('expected a precision of at most 10000');
    spend(places);
    const point = alternate && places === 0 ? '.' : '';
    switch (type.toLowerCase()) {
      case 'f':
        return fixed(value, places) + point;
      case '%':
        return `${fixed(value * 100, places)}${point}%`;
      case 'e': {
        const [digits, exponent] = scientific(value, places);
        return digits + point + exponentText(exponent);
      }
      default:
        return general(value, Math.max(places, 1), alternate, false);
    }
  };
  return upper ? write().toUpperCase() : write();
}

const exponentText = (exponent: number): string =>
  `e${exponent < 0 ? '-' : '+'}${String(Math.abs(exponent)).padStart(2, '0')}`;

function general(value: number, places: number, alternate: boolean, keepPoint: boolean): string {
  const [digits, exponent] = scientific(value, places - 1);
  const trim = (text: string): string => (alternate || !text.includes('.') ? text : text.replace(/\.?0+$/, ''));
  // `g` switches to an exponent by precision; str() always does at 1e+16.
  if (exponent < -4 || exponent >= places - (keepPoint ? 1 : 0)) return trim(digits) + exponentText(exponent);
  const plain = trim(fixed(value, Math.max(0, places - 1 - exponent)));
  return keepPoint && !plain.includes('.') ? `${plain}.0` : plain;
}

const bases: Readonly<Record<string, readonly [base: number, prefix: string]>> = {
  b: [2, '0b'],
  o: [8, '0o'],
  x: [16, '0x'],
  X: [16, '0X'],
};

/** Python's format(). @throws Fault */
export function formatValue(value: Value, specText: string): Text {
  if (specText === '') return toText(value);
  if (value instanceof Text) return formatText(value, specText);
  const whole = plainInteger(value);
  if (whole === undefined && !(value instanceof Float))
    throw new Fault(`unsupported format string passed to ${typeName(value)}`);
  const spec = parseSpec(specText);
  if (whole === undefined || /[eEfFgG%]/.test(spec.type)) return formatFloat(value, spec);
  return formatInteger(value, BigInt(whole), spec);
}

function formatText(text: Text, specText: string): Text {
  const spec = parseSpec(specText);
  if (spec.type !== '' && spec.type !== 's')
    throw new Fault(`Unknown format code '${spec.type}' for object of type 'str'`);
  if (spec.sign || spec.alternate || spec.grouping || spec.noMinusZero || /^(?:[\s\S])?=/u.test(specText))
    throw new Fault(`the format specifier '${specText.slice(0, 40)}' is for numbers, found a text`);
  const cut = spec.precision === undefined ? text : text.sliceCharacters(0, Math.min(spec.precision, text.characters));
  return padded(cut, spec, spec.align === '=' || spec.align === '' ? '<' : spec.align);
}

function formatInteger(value: Value, whole: bigint, spec: Spec): Text {
  if (spec.precision !== undefined) throw new Fault('Precision not allowed in integer format specifier');
  const negative = whole < 0n;
  const magnitude = negative ? -whole : whole;
  if (spec.type === 'c') {
    const code = Number(whole);
    if (!(code >= 0 && code <= 0x10ffff) || spec.sign) throw new Fault('%c arg not in range(0x110000)');
    return padded(Text.foreign(String.fromCodePoint(code)), spec, spec.align || '<');
  }
  if (Object.hasOwn(bases, spec.type)) {
    const [base, prefix] = bases[spec.type]!;
    if (spec.grouping === ',') throw new Fault(`Cannot specify ',' with '${spec.type}'.`);
    const digits = magnitude.toString(base);
    return numeric(spec.type === 'X' ? digits.toUpperCase() : digits, negative, spec.alternate ? prefix : '', 4, spec);
  }
  if (!['', 'd', 'n'].includes(spec.type))
    throw new Fault(`Unknown format code '${spec.type}' for object of type '${typeName(value)}'`);
  return numeric(integerText(magnitude), negative, '', 3, spec);
}

function formatFloat(value: Value, spec: Spec): Text {
  const number = numberOf(value)!;
  if (!['', 'e', 'E', 'f', 'F', 'g', 'G', 'n', '%'].includes(spec.type))
    throw new Fault(`Unknown format code '${spec.type}' for object of type '${typeName(value)}'`);
  let digits: string;
  if (spec.type === '' && Number.isFinite(number)) {
    digits =
      spec.precision === undefined
        ? toText(new Float(Math.abs(number))).value
        : general(number, Math.max(spec.precision, 1), spec.alternate, true);
  } else
    digits = floating(number, spec.type === '' || spec.type === 'n' ? 'g' : spec.type, spec.precision, spec.alternate);
  const negative = (number < 0 || Object.is(number, -0)) && !(spec.noMinusZero && /^[0.]*(e.*)?%?$/.test(digits));
  return numeric(
    digits,
    negative,
    '',
    3,
    Number.isFinite(number) || spec.fill !== '0' || spec.align !== '=' ? spec : { ...spec },
  );
}

const asciiOf = (text: Text): Text => text.replaced(/\P{ASCII}/gu, escapeCode);

/** `text % values`. @throws Fault */
export function percent(text: Text, values: Value): Text {
  const pieces: Text[] = [];
  const safe = (made: Text): Text => (text.isMarkup ? escaped(made) : made);
  const several = values instanceof Tuple ? values.items : undefined;
  let next = 0;
  const take = (): Value => {
    if (next >= (several?.length ?? 1)) throw new Fault('not enough arguments for format string');
    const value = several ? several[next]! : values;
    next++;
    return value;
  };
  const star = (digits: string): number => {
    if (digits !== '*') return sized(digits);
    const width = plainInteger(take());
    if (width === undefined) throw new Fault('* wants int');
    checkLength(Math.abs(Number(width)));
    return Number(width);
  };
  const pattern = /%(?:\(((?:[^()]|\([^()]*\))*)\))?([-+ #0]*)(\*|\d*)(?:\.(\*|\d*))?[hlL]?([\s\S]?)/gu;
  let at = 0;
  let mapped = false;
  for (const { index, 0: all, 1: key, 2: flags, 3: width, 4: precision, 5: type } of text.value.matchAll(pattern)) {
    pieces.push(text.slice(at, index));
    at = index + all.length;
    if (type === '%') {
      pieces.push(text.slice(at - 1, at));
      continue;
    }
    if (type === '') throw new Fault('incomplete format');
    let value: Value | undefined;
    let size = 0;
    if (key !== undefined) {
      if (!(values instanceof Dict)) throw new Fault('format requires a mapping');
      mapped = true;
      value = values.get(new Text(key));
      if (value === undefined) throw new Fault(`format lacks the key '${key.slice(0, 40)}'`);
      size = sized(width === '*' ? '' : width!);
    } else size = star(width!);
    const places = precision === undefined ? undefined : Math.max(0, star(precision));
    if (value === undefined) value = take();
    pieces.push(safe(converted(value, type!, size < 0 ? `-${flags}` : flags!, Math.abs(size), places)));
  }
  if (
    !mapped &&
    next < (several?.length ?? (values instanceof Dict ? 0 : 1)) &&
    (several !== undefined || !isMappingLike(values))
  )
    throw new Fault('not all arguments converted during string formatting');
  const made = Text.join([...pieces, text.slice(at)]);
  spendCharacters(made.length);
  return text.isMarkup ? Markup.of(made) : made;
}

/** Whether Python allows this right side of `%` to be unused: values with items except texts and tuples. */
const isMappingLike = (value: Value): boolean =>
  value instanceof Dict || ['list', 'range', 'Namespace', 'Undefined'].includes(typeName(value));

function converted(value: Value, type: string, flags: string, width: number, precision: number | undefined): Text {
  const left = flags.includes('-');
  const spec: Spec = {
    fill: flags.includes('0') && !left ? '0' : ' ',
    align: left ? '<' : flags.includes('0') ? '=' : '>',
    sign: flags.includes('+') ? '+' : flags.includes(' ') ? ' ' : '',
    alternate: flags.includes('#'),
    width,
    grouping: '',
    precision,
    type,
    noMinusZero: false,
  };
  const plain = { ...spec, fill: ' ' };
  if ('sra'.includes(type)) {
    const text = type === 's' ? toText(value) : type === 'r' ? represent(value) : asciiOf(represent(value));
    const cut = precision === undefined ? text : text.sliceCharacters(0, Math.min(precision, text.characters));
    return padded(cut, plain, left ? '<' : '>');
  }
  if (type === 'c') {
    const code = plainInteger(value);
    if (value instanceof Text && value.characters === 1) return padded(value, plain, left ? '<' : '>');
    if (code === undefined || code < 0 || code > 0x10ffff) throw new Fault('%c requires int or char');
    return padded(Text.foreign(String.fromCodePoint(Number(code))), plain, left ? '<' : '>');
  }
  if ('diuxXo'.includes(type)) {
    const number = numberOf(value);
    if (value instanceof Undefined || number === undefined || ('xXo'.includes(type) && value instanceof Float))
      throw new Fault(`%${type} format: a number is required, not ${typeName(value)}`);
    const whole = BigInt(value instanceof Float ? truncated(value.value) : plainInteger(value)!);
    const [base, prefix] = bases[type] ?? [10, ''];
    let digits = (whole < 0n ? -whole : whole).toString(base);
    if (type === 'X') digits = digits.toUpperCase();
    digits = digits.padStart(Math.min(precision ?? 0, 100_000), '0');
    return numeric(digits, whole < 0n, spec.alternate ? prefix : '', 0, spec);
  }
  if ('eEfFgG'.includes(type)) {
    const number = value instanceof Text ? undefined : toFloat(value);
    if (number === undefined) throw new Fault(`must be real number, not ${typeName(value)}`);
    return formatFloat(new Float(number), spec);
  }
  throw new Fault(`unsupported format character '${type}'`);
}

const MOST_FIELDS = 2;

/** Resolves attributes and items of format fields. */
export interface Lookup {
  attribute(object: Value, name: string): Value;
  item(object: Value, key: Value): Value;
}

interface Fields {
  readonly args: CallArguments;
  readonly lookup: Lookup;
  /** Number of the next unnumbered field; undefined after a numbered field. */
  auto: number | undefined;
}

/** `text.format(...)`. @throws Fault */
export function formatBraces(text: Text, args: CallArguments, lookup: Lookup): Text {
  const made = braces(text, { args, lookup, auto: 0 }, MOST_FIELDS);
  return text.isMarkup ? Markup.of(made) : made;
}

function braces(text: Text, fields: Fields, depth: number): Text {
  if (depth < 0) throw new Fault('Max string recursion exceeded');
  const { value } = text;
  const pieces: Text[] = [];
  let at = 0;
  const brace = /[{}]/g;
  for (;;) {
    brace.lastIndex = at;
    const found = brace.exec(value);
    if (!found) break;
    const begin = found.index;
    if (value[begin + 1] === found[0]) {
      pieces.push(text.slice(at, begin + 1));
      at = begin + 2;
      continue;
    }
    if (found[0] === '}') throw new Fault("Single '}' encountered in format string");
    pieces.push(text.slice(at, begin));
    let end = begin + 1;
    for (let open = 1; ; end++) {
      if (end >= value.length) throw new Fault("expected '}' before end of string");
      if (value[end] === '{') open++;
      else if (value[end] === '}' && --open === 0) break;
    }
    pieces.push(field(text.slice(begin + 1, end), fields, depth, text.isMarkup));
    at = end + 1;
  }
  const made = Text.join([...pieces, text.slice(at)]);
  spendCharacters(made.length);
  return made;
}

function field(text: Text, fields: Fields, depth: number, markup: boolean): Text {
  const found = /^((?:[^[\]!:{}]|\[[^\]]*\])*)(?:!([^:]?))?(:[\s\S]*)?$/.exec(text.value);
  if (!found || found[2] === '') throw new Fault(`invalid format field {${text.value.slice(0, 40)}}`);
  const [, name, conversion, spec] = found as unknown as [string, string, string | undefined, string | undefined];
  let value = fieldValue(name, fields);
  if (conversion === 'r') value = represent(value);
  else if (conversion === 'a') value = asciiOf(represent(value));
  else if (conversion === 's') value = toText(value);
  else if (conversion !== undefined) throw new Fault(`Unknown conversion specifier '${conversion}'`);
  const inner =
    spec === undefined ? new Text('') : braces(text.slice(text.length - spec.length + 1), fields, depth - 1);
  const made = formatValue(value, inner.value);
  const known = inner.isForeign ? Text.foreign(made.value) : made;
  return markup ? escaped(known) : known;
}

function fieldValue(name: string, fields: Fields): Value {
  const { positional, named } = fields.args;
  const first = /^[^.[]*/.exec(name)![0];
  let value: Value | undefined;
  if (first === '' || /^\d+$/.test(first)) {
    if (first === '') {
      if (fields.auto === undefined)
        throw new Fault('cannot switch from manual field specification to automatic field numbering');
      value = positional[fields.auto++];
    } else {
      if (fields.auto !== undefined && fields.auto > 0)
        throw new Fault('cannot switch from automatic field numbering to manual field specification');
      fields.auto = undefined;
      value = positional[Number(first)];
    }
    if (value === undefined) throw new Fault('Replacement index out of range for positional args tuple');
  } else value = named.get(first);
  if (value === undefined) throw new Fault(`the field ${first.slice(0, 40)} has no value`);
  let at = first.length;
  const part = /\.([^.[]+)|\[([^\]]+)\]/y;
  while (at < name.length) {
    part.lastIndex = at;
    const found = part.exec(name);
    if (!found) throw new Fault(`invalid format field {${name.slice(0, 40)}}`);
    at += found[0].length;
    if (found[1] !== undefined) value = fields.lookup.attribute(value, found[1]);
    else value = fields.lookup.item(value, /^\d+$/.test(found[2]!) ? Number(found[2]) : new Text(found[2]!));
  }
  return value;
}
