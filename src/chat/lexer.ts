/** Splits a template into tokens, with the whitespace control of chat templates: trim_blocks and lstrip_blocks. */
import { TemplateError } from '../errors.ts';
import { isBlank, isSpace, SPACE, trimEnd } from './unicode.ts';

export interface Token {
  readonly type: 'data' | 'begin' | 'end' | 'name' | 'string' | 'integer' | 'float' | 'operator' | 'eof';
  /** Text of the token. For `begin` and `end` the kind of tag, `{{` or `{%`. */
  readonly value: string;
  /** Offset in the template. */
  readonly at: number;
}

/** Deepest nesting of parentheses and tags. */
export const MAX_DEPTH = 256;

const NAME = /[\p{L}\p{N}_\p{XID_Continue}]+/uy;
const IDENTIFIER = /^[\p{XID_Start}_]\p{XID_Continue}*$/u;
const FLOAT = /(?<!\.)(?:\d+_)*\d+(?:(?:\.(?:\d+_)*\d+)?[eE][+-]?(?:\d+_)*\d+|\.(?:\d+_)*\d+)/y;
const INTEGER = /0[bB](?:_?[01])+|0[oO](?:_?[0-7])+|0[xX](?:_?[\da-fA-F])+|[1-9](?:_?\d)*|0(?:_?0)*/y;
const OPERATOR = /\*\*|\/\/|==|!=|<=|>=|[-+*/%~<>=.,:|()[\]{};]/y;
const RAW = new RegExp(`^\\{%[-+]?[${SPACE}]*raw[${SPACE}]*(-?)%\\}`);
const ESCAPE = /\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{1,3})|([\s\S]))/gu;
const escapes: Readonly<Record<string, string>> = {
  n: '\n',
  t: '\t',
  r: '\r',
  b: '\b',
  f: '\f',
  v: '\v',
  a: '\x07',
  '\n': '',
  '\\': '\\',
  "'": "'",
  '"': '"',
};
const closers: Readonly<Record<string, string>> = { '(': ')', '[': ']', '{': '}' };

/** A syntax error with line and column of an offset in the template. */
export function templateError(template: string, at: number, what: string): TemplateError {
  const before = template.slice(0, at);
  const line = before.split('\n').length;
  return new TemplateError('InvalidTemplate', what, { line, column: at - before.lastIndexOf('\n') });
}

/** @throws TemplateError */
export function tokenize(template: string): Token[] {
  const source = template.replace(/\r\n?/g, '\n').replace(/\n$/, '');
  const tokens: Token[] = [];
  const opening = /\{[{%#]/g;
  let at = 0;
  while (at <= source.length) {
    const start = at;
    opening.lastIndex = at;
    const found = opening.exec(source);
    const tag = found?.[0];
    const begin = found?.index ?? source.length;
    const raw = tag === '{%' ? rawAt(source, begin) : undefined;
    let sign = '';
    if (tag && /[-+]/.test(source[begin + 2] ?? '')) sign = source[begin + 2]!;
    let text = source.slice(start, begin);
    if (sign === '-') text = trimEnd(text);
    // The text is also at the start of a line if the previous tag has removed the line feed.
    else if (tag && tag !== '{{' && sign !== '+') text = stripLine(text, start === 0 || source[start - 1] === '\n');
    if (text) tokens.push({ type: 'data', value: text, at: start });
    if (!tag) break;
    if (tag === '{#') {
      const end = source.indexOf('#}', begin + 2 + sign.length);
      if (end < 0) throw templateError(source, begin, 'expected the end of the comment, #}');
      const close = end > begin + 2 + sign.length ? source[end - 1]! : '';
      at = afterTag(source, end + 2, close === '-' || close === '+' ? close : '', true);
    } else if (raw) {
      const from = raw.trims ? skipSpace(source, raw.end) : raw.end;
      const close = new RegExp(`\\{%([-+]?)[${SPACE}]*endraw[${SPACE}]*([-+]?)%\\}`, 'g');
      close.lastIndex = from;
      const end = close.exec(source);
      if (!end) throw templateError(source, begin, 'expected {% endraw %}');
      let inner = source.slice(from, end.index);
      if (end[1] === '-') inner = trimEnd(inner);
      else if (end[1] !== '+') inner = stripLine(inner, source[from - 1] === '\n');
      if (inner) tokens.push({ type: 'data', value: inner, at: from });
      at = afterTag(source, close.lastIndex, end[2]!, true);
    } else {
      at = readTag(source, begin, tag, tokens);
      const closing = source[at - 3];
      at = afterTag(source, at, closing === '-' || (closing === '+' && tag === '{%') ? closing : '', tag === '{%');
    }
  }
  tokens.push({ type: 'eof', value: 'the end', at: source.length });
  return tokens;
}

/** Start of the text after a tag: `-` skips all white space, the end of a block one line feed. */
function afterTag(source: string, end: number, sign: string, block: boolean): number {
  if (sign === '-') return skipSpace(source, end);
  return block && sign === '' && source[end] === '\n' ? end + 1 : end;
}

function skipSpace(source: string, from: number): number {
  let at = from;
  while (at < source.length && isSpace(source[at]!)) at++;
  return at;
}

function rawAt(source: string, begin: number): { end: number; trims: boolean } | undefined {
  const found = RAW.exec(source.slice(begin, begin + 1000));
  return found ? { end: begin + found[0].length, trims: found[1] === '-' } : undefined;
}

/** Without the spaces before a tag that is the first thing in its line. */
function stripLine(text: string, lineStarts: boolean): string {
  const line = text.lastIndexOf('\n') + 1;
  return (line > 0 || lineStarts) && isBlank(text.slice(line)) ? text.slice(0, line) : text;
}

/** Adds the tokens of a tag and returns the offset after it. */
function readTag(source: string, begin: number, tag: string, tokens: Token[]): number {
  const end = tag === '{{' ? '}}' : '%}';
  const open: string[] = [];
  tokens.push({ type: 'begin', value: tag, at: begin });
  let at = begin + 2 + (/[-+]/.test(source[begin + 2] ?? '') ? 1 : 0);
  const take = (pattern: RegExp): string | undefined => {
    pattern.lastIndex = at;
    return pattern.exec(source)?.[0];
  };
  for (;;) {
    at = skipSpace(source, at);
    if (at >= source.length) throw templateError(source, begin, `expected the end of the tag, ${end}`);
    const closing = source[at]!;
    const sign = (closing === '-' || (closing === '+' && tag === '{%')) && source.startsWith(end, at + 1) ? 1 : 0;
    if (open.length === 0 && source.startsWith(end, at + sign)) {
      tokens.push({ type: 'end', value: tag, at });
      return at + sign + 2;
    }
    const quote = source[at]!;
    if (quote === '"' || quote === "'") {
      const close = endOfString(source, at);
      tokens.push({ type: 'string', value: unescaped(source, at + 1, close), at });
      at = close + 1;
      continue;
    }
    const float = take(FLOAT);
    const whole = float === undefined ? take(INTEGER) : undefined;
    const name = (float ?? whole) === undefined ? take(NAME) : undefined;
    const operator = float ?? whole ?? name ?? take(OPERATOR);
    if (operator === undefined || (name !== undefined && !IDENTIFIER.test(name)))
      throw templateError(source, at, `expected an expression, found ${JSON.stringify(quote)}`);
    const type =
      float !== undefined ? 'float' : whole !== undefined ? 'integer' : name !== undefined ? 'name' : 'operator';
    if (type === 'operator' && operator in closers) open.push(closers[operator]!);
    if (type === 'operator' && /^[)\]}]$/.test(operator) && open.pop() !== operator) {
      throw templateError(source, at, `found ${operator} without an opening bracket`);
    }
    if (open.length > MAX_DEPTH) throw templateError(source, at, `expected at most ${MAX_DEPTH} nested brackets`);
    tokens.push({ type, value: operator, at });
    at += operator.length;
  }
}

function endOfString(source: string, begin: number): number {
  for (let at = begin + 1; at < source.length; at++) {
    if (source[at] === '\\') at++;
    else if (source[at] === source[begin]) return at;
  }
  throw templateError(source, begin, 'expected the end of the string');
}

/** As Python reads escapes. @throws TemplateError for one that is cut off */
function unescaped(source: string, begin: number, end: number): string {
  return source.slice(begin, end).replace(ESCAPE, (whole, ...groups: (string | undefined)[]) => {
    const [two, four, eight, octal, letter] = groups;
    const hex = two ?? four ?? eight;
    if (octal !== undefined) return String.fromCharCode(Number.parseInt(octal, 8));
    if (hex !== undefined && Number.parseInt(hex, 16) <= 0x10ffff)
      return String.fromCodePoint(Number.parseInt(hex, 16));
    if (hex !== undefined || /^[xuUN]$/.test(letter!))
      throw templateError(source, begin, `expected a character after ${JSON.stringify(whole.slice(0, 2))} in a string`);
    return Object.hasOwn(escapes, letter!) ? escapes[letter!]! : whole;
  });
}
