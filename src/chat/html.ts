/** Filters for HTML and URLs, as markupsafe and Jinja define them. */
import { integerOf } from './numbers.ts';
import { toText } from './represent.ts';
import { escaped, Text } from './text.ts';
import { cut, split } from './text-cuts.ts';
import { spaces } from './unicode.ts';
import { Dict, Fault, isTrue, iterate, listOf, missing, typeName, Undefined, type Value } from './values.ts';
import { spend, spendCharacters } from './work.ts';

export const escapedText = (value: Value): Text => {
  const text = escaped(toText(value));
  spendCharacters(text.length);
  return text;
};

const named: Readonly<Record<string, string>> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'", nbsp: '\xa0' };

/** Removes comments and tags, collapses white space, decodes XML and numeric entities. */
export function striptags(text: Text): Text {
  spend(text.length * 2);
  const { value } = text;
  const pieces: Text[] = [];
  let at = 0;
  for (;;) {
    const comment = value.indexOf('<!--', at);
    const end = comment < 0 ? -1 : value.indexOf('-->', comment);
    if (end < 0) break;
    pieces.push(text.slice(at, comment));
    at = end + 3;
  }
  const plain = Text.join([...pieces, text.slice(at)]);
  const kept: Text[] = [];
  for (at = 0; ; ) {
    const tag = plain.value.indexOf('<', at);
    const end = tag < 0 ? -1 : plain.value.indexOf('>', tag);
    if (end < 0) break;
    kept.push(plain.slice(at, tag));
    at = end + 1;
  }
  const words = split(Text.join([...kept, plain.slice(at)]), undefined, -1);
  const one = Text.join(words.flatMap((word, i) => (i > 0 ? [new Text(' '), word] : [word])));
  return one.replaced(/&(?:#(\d{1,7})|#[xX]([\da-fA-F]{1,6})|(amp|lt|gt|quot|apos|nbsp));/g, (found) => {
    if (found[1] !== '#') return named[found.slice(1, -1)]!;
    const code = /^&#[xX]/.test(found) ? Number.parseInt(found.slice(3), 16) : Number.parseInt(found.slice(2), 10);
    return code === 0 || code > 0x10ffff || (code >= 0xd800 && code < 0xe000) ? '\ufffd' : String.fromCodePoint(code);
  });
}

function quote(value: Value, forQuery: boolean): Text {
  const text = toText(value);
  spend(text.length * 8);
  if (/\p{Cs}/u.test(text.value)) throw new Fault('a URL cannot contain half of a surrogate pair');
  const made = text.replaced(/[^A-Za-z0-9_.~/-]|\//gu, (character) => {
    if (character === '/') return forQuery ? '%2F' : '/';
    if (character === ' ' && forQuery) return '+';
    return [...new TextEncoder().encode(character)]
      .map((byte) => `%${byte.toString(16).toUpperCase().padStart(2, '0')}`)
      .join('');
  });
  spendCharacters(made.length);
  return made;
}

export function urlencode(operand: Value): Text {
  if (operand instanceof Text) return quote(operand, false);
  let pairs: readonly (readonly Value[])[];
  if (operand instanceof Dict) pairs = [...operand.entries.values()];
  else {
    try {
      iterate(operand);
    } catch {
      return quote(operand, false);
    }
    pairs = listOf(operand).map((item) => listOf(item));
  }
  const pieces: Text[] = [];
  for (const pair of pairs) {
    if (pair.length !== 2) throw new Fault(`expected pairs of key and value, found ${pair.length} values`);
    if (pieces.length > 0) pieces.push(new Text('&'));
    pieces.push(quote(pair[0]!, true), new Text('='), quote(pair[1]!, true));
  }
  return Text.join(pieces);
}

export function xmlattr(operand: Value, space: boolean): Text {
  if (operand instanceof Undefined) throw missing(operand);
  if (!(operand instanceof Dict)) throw new Fault(`xmlattr needs a dict, found ${typeName(operand)}`);
  const pieces: Text[] = [];
  for (const [key, value] of operand.entries.values()) {
    if (value === null || value instanceof Undefined) continue;
    if (!(key instanceof Text)) throw new Fault(`expected texts as keys, found ${typeName(key)}`);
    if (/[ \t\n\r\f\v/>=]/.test(key.value))
      throw new Fault(`Invalid character in attribute name: ${key.value.slice(0, 40)}`);
    if (pieces.length > 0 || space) pieces.push(new Text(' '));
    pieces.push(escapedText(key), new Text('="'), escapedText(value), new Text('"'));
  }
  return Text.join(pieces.map((piece) => new Text(piece.value, piece.spans)));
}

const HTTP = new RegExp(
  '^((https?://|www\\.)(([\\p{L}\\p{N}_%-]+\\.)+)?([a-z]{2,63}|xn--[\\p{L}\\p{N}_%]{2,59})' +
    '|([\\p{L}\\p{N}_%-]{2,63}\\.)+(com|net|int|edu|gov|org|info|mil)' +
    '|(https?://)(((\\p{Nd}{1,3})(\\.\\p{Nd}{1,3}){3})|(\\[([\\p{Nd}a-f]{0,4}:){2}([\\p{Nd}a-f]{0,4}:?){1,6}\\])))' +
    '(?::\\p{Nd}{1,5})?(?:[/?#]\\S*)?\\n?$',
  'iu',
);
const EMAIL = /^\S+@[\p{L}\p{N}_][\p{L}\p{N}_.-]*\.[\p{L}\p{N}_]+\n?$/u;
/** Longer words are not treated as URLs: matching them takes too long. */
const LONGEST_ADDRESS = 2048;

const occurrences = (text: string, part: string): number => text.split(part).length - 1;

/** Jinja's `urlize`. @throws Fault */
export function urlize(operand: Value, args: readonly (Value | undefined)[]): Text {
  const [limit, nofollow, target, rel, schemes] = args;
  const most = limit === undefined || limit === null ? undefined : integerOf(limit, 'trim_url_limit');
  const rels = new Set([
    ...toTextOr(rel).value.split(/\s+/),
    ...(isTrue(nofollow ?? false) ? ['nofollow'] : []),
    'noopener',
  ]);
  rels.delete('');
  const attributes = [new Text(` rel="${escaped(new Text([...rels].sort().join(' '))).value}"`)];
  if (isTrue(target ?? null)) attributes.push(new Text(` target="`), escapedText(target!), new Text('"'));
  const extra = schemes === undefined || schemes === null ? [] : listOf(schemes).map((scheme) => toText(scheme));
  for (const { value } of extra)
    if (!/^[\p{L}\p{N}_.+-]{2,}:\/{0,2}$/u.test(value))
      throw new Fault(`${value.slice(0, 40)} is not a valid URI scheme prefix.`);
  const whole = escapedText(operand);
  const text = new Text(whole.value, whole.spans);
  const pieces: Text[] = [];
  let at = 0;
  const add = (end: number): void => {
    spend(40 + (end - at) * 2);
    if (end > at) pieces.push(linked(text.slice(at, end), attributes, most, extra));
  };
  for (const { index, 0: space } of text.value.matchAll(spaces)) {
    add(index);
    pieces.push(text.slice(index, index + space.length));
    at = index + space.length;
  }
  add(text.length);
  const made = Text.join(pieces);
  spendCharacters(made.length);
  return made;
}

const toTextOr = (value: Value | undefined): Text =>
  value === undefined || value === null ? new Text('') : toText(value);

function linked(word: Text, attributes: readonly Text[], most: number | undefined, extra: readonly Text[]): Text {
  if (word.length > LONGEST_ADDRESS) return word;
  const start = /^(?:[(<]|&lt;)+/.exec(word.value)?.[0].length ?? 0;
  let end = word.length;
  const tail = /(?:[)>.,\n]|&gt;)+$/.exec(word.value.slice(start));
  if (tail) end = start + tail.index;
  for (const [open, close] of [
    ['(', ')'],
    ['<', '>'],
    ['&lt;', '&gt;'],
  ] as const) {
    const middle = word.value.slice(start, end);
    const opened = occurrences(middle, open);
    if (opened <= occurrences(middle, close)) continue;
    for (let i = Math.min(opened, occurrences(word.value.slice(end), close)); i > 0; i--)
      end = word.value.indexOf(close, end) + close.length;
  }
  const inner = word.slice(start, end);
  const { value } = inner;
  const shown =
    most !== undefined && inner.characters > most ? Text.join([cut(inner, Math.max(0, most)), new Text('...')]) : inner;
  const link = (prefix: string, label: Text, extras: readonly Text[] = attributes): Text =>
    Text.join([
      word.slice(0, start),
      new Text(`<a href="${prefix}`),
      inner,
      new Text('"'),
      ...extras,
      new Text('>'),
      label,
      new Text('</a>'),
      word.slice(end),
    ]);
  if (HTTP.test(value)) return link(/^https?:\/\//.test(value) ? '' : 'https://', shown);
  if (value.startsWith('mailto:') && EMAIL.test(value.slice(7))) return link('', inner.slice(7), []);
  if (value.includes('@') && !/^(?:www\.|@)/.test(value) && !value.includes(':') && EMAIL.test(value))
    return link('mailto:', inner, []);
  const scheme = extra.find((one) => value !== one.value && value.startsWith(one.value));
  if (scheme) return link('', inner);
  return word;
}
