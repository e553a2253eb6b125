/** Jinja's text and tags as tokens, with whitespace control as chat templates expect it: trim_blocks and lstrip_blocks. */
import { TemplateError } from '../errors.ts';

export interface Token {
  readonly type: 'data' | 'begin' | 'end' | 'name' | 'string' | 'integer' | 'float' | 'operator' | 'eof';
  /** Of `begin` and `end`: `{{` or `{%`, whichever tag it is. */
  readonly value: string;
  /** Offset in the template. */
  readonly at: number;
}

/** Parentheses and tags may be nested so deep. */
export const MAX_DEPTH = 256;

const NAME = /[\p{L}_][\p{L}\p{N}_]*/uy;
const NUMBER = /\d[\d_]*(?:(?:\.\d+)?(?:[eE][+-]?\d+)|\.\d+)?/y;
const OPERATOR = /\*\*|\/\/|==|!=|<=|>=|[-+*/%~<>=.,:|()[\]{}]/y;
const SPACE = /\s+/y;
const ESCAPE = /\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(\r\n|.))/gs;
const escapes: Readonly<Record<string, string>> = {
  n: '\n',
  t: '\t',
  r: '\r',
  b: '\b',
  f: '\f',
  v: '\v',
  a: '\x07',
  '0': '\0',
};
const closers: Readonly<Record<string, string>> = { '(': ')', '[': ']', '{': '}' };

/** A mistake at an offset of a template. */
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
  /** What the tag before does to the text that follows. */
  let after: 'trim' | 'newline' | undefined;
  let lineStarts = true;
  while (at <= source.length) {
    opening.lastIndex = at;
    const found = opening.exec(source);
    const tag = found?.[0];
    const begin = found?.index ?? source.length;
    const sign = tag && /[-+]/.test(source[begin + 2] ?? '') ? source[begin + 2] : '';
    let text = source.slice(at, begin);
    let start = at;
    if (after === 'trim') start += text.length - text.trimStart().length;
    else if (after === 'newline' && text.startsWith('\n')) start++;
    lineStarts ||= start > at;
    text = source.slice(start, begin);
    if (sign === '-') text = text.trimEnd();
    else if (tag && tag !== '{{' && sign !== '+') text = stripLine(text, lineStarts);
    if (text) tokens.push({ type: 'data', value: text, at: start });
    if (!tag) break;
    const raw = /^\{%[-+]?\s*raw\s*([-+]?)%\}/.exec(source.slice(begin, begin + 100));
    if (tag === '{#') {
      const end = source.indexOf('#}', begin + 2);
      if (end < 0) throw templateError(source, begin, 'expected the end of the comment, #}');
      after = source[end - 1] === '-' ? 'trim' : source[end - 1] === '+' ? undefined : 'newline';
      at = end + 2;
    } else if (raw) {
      const close = /\{%([-+]?)\s*endraw\s*([-+]?)%\}/g;
      close.lastIndex = begin + raw[0].length;
      const end = close.exec(source);
      if (!end) throw templateError(source, begin, 'expected {% endraw %}');
      let inner = source.slice(begin + raw[0].length, end.index);
      if (raw[1] === '-') inner = inner.trimStart();
      else if (raw[1] === '') inner = inner.replace(/^\n/, '');
      inner = end[1] === '-' ? inner.trimEnd() : end[1] === '+' ? inner : stripLine(inner, false);
      if (inner) tokens.push({ type: 'data', value: inner, at: begin });
      after = end[2] === '-' ? 'trim' : end[2] === '+' ? undefined : 'newline';
      at = close.lastIndex;
    } else {
      at = readTag(source, begin, tag, tokens);
      const closing = source[at - 3];
      after = closing === '-' ? 'trim' : tag === '{{' || closing === '+' ? undefined : 'newline';
    }
    lineStarts = false;
  }
  tokens.push({ type: 'eof', value: 'the end', at: source.length });
  return tokens;
}

/** Without the spaces before a tag that is the first thing in its line. */
function stripLine(text: string, lineStarts: boolean): string {
  const line = text.lastIndexOf('\n') + 1;
  return (line > 0 || lineStarts) && /^[^\S\n]*$/.test(text.slice(line)) ? text.slice(0, line) : text;
}

/** Adds the tokens of a tag. @returns the offset behind it */
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
    at += take(SPACE)?.length ?? 0;
    if (at >= source.length) throw templateError(source, begin, `expected the end of the tag, ${end}`);
    const sign = /[-+]/.test(source[at]!) && source.startsWith(end, at + 1) ? 1 : 0;
    if (open.length === 0 && source.startsWith(end, at + sign)) {
      tokens.push({ type: 'end', value: tag, at });
      return at + sign + 2;
    }
    const quote = source[at]!;
    if (quote === '"' || quote === "'") {
      const close = endOfString(source, at);
      tokens.push({ type: 'string', value: unescaped(source.slice(at + 1, close)), at });
      at = close + 1;
      continue;
    }
    const name = take(NAME);
    const number = name === undefined ? take(NUMBER) : undefined;
    const operator = name ?? number ?? take(OPERATOR);
    if (operator === undefined)
      throw templateError(source, at, `expected an expression, found ${JSON.stringify(quote)}`);
    const type =
      name !== undefined ? 'name' : number === undefined ? 'operator' : /[.eE]/.test(number) ? 'float' : 'integer';
    if (type === 'operator' && operator in closers) open.push(closers[operator]!);
    if (type === 'operator' && /^[)\]}]$/.test(operator) && open.pop() !== operator) {
      throw templateError(source, at, `found ${operator} without its beginning`);
    }
    if (open.length > MAX_DEPTH)
      throw templateError(source, at, `expected at most ${MAX_DEPTH} brackets in each other`);
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

function unescaped(text: string): string {
  return text.replace(ESCAPE, (whole, two?: string, four?: string, eight?: string, letter?: string) => {
    const hex = two ?? four ?? eight;
    if (hex !== undefined)
      return Number.parseInt(hex, 16) > 0x10ffff ? whole : String.fromCodePoint(Number.parseInt(hex, 16));
    if (letter === '\n' || letter === '\r\n') return '';
    return escapes[letter!] ?? (/['"\\]/.test(letter!) ? letter! : whole);
  });
}
