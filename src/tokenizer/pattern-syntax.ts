/**
 * Parses the regular expressions of tokenizers (Oniguruma's syntax) to trees. Features that tokenizers do not use (back
 * references, recursion, conditions) are refused.
 */
import { CharSet } from './char-set.ts';

export type PatternNode =
  | { readonly kind: 'set'; readonly set: CharSet }
  | { readonly kind: 'sequence'; readonly items: readonly PatternNode[] }
  | { readonly kind: 'choice'; readonly options: readonly PatternNode[] }
  | {
      readonly kind: 'repeat';
      readonly item: PatternNode;
      readonly min: number;
      readonly max: number;
      readonly mode: 'greedy' | 'lazy' | 'possessive';
    }
  | { readonly kind: 'atomic'; readonly item: PatternNode }
  | { readonly kind: 'ahead'; readonly item: PatternNode; readonly negative: boolean }
  | { readonly kind: 'behind'; readonly set: CharSet; readonly negative: boolean }
  | { readonly kind: 'anchor'; readonly holds: (text: string, index: number) => boolean };

/** Limits of a pattern: counted repetitions, nesting, length. */
const MOST_REPEATS = 1000;
const DEEPEST = 50;
const LONGEST = 20_000;

/** Oniguruma's shorthand classes in JavaScript's syntax. */
const shortClasses: Readonly<Record<string, string>> = {
  s: '\\p{White_Space}',
  S: '\\P{White_Space}',
  d: '\\p{Nd}',
  D: '\\P{Nd}',
  w: '[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}]',
  W: '[^\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}]',
  h: '[0-9a-fA-F]',
  H: '[^0-9a-fA-F]',
};
const controls: Readonly<Record<string, number>> = { n: 10, r: 13, t: 9, f: 12, v: 11, a: 7, e: 27, 0: 0 };
const posixClasses: Readonly<Record<string, string>> = {
  alpha: '\\p{Alphabetic}',
  digit: '\\p{Nd}',
  alnum: '[\\p{Alphabetic}\\p{Nd}]',
  upper: '\\p{Uppercase}',
  lower: '\\p{Lowercase}',
  space: '\\p{White_Space}',
  punct: '[\\p{P}\\p{S}]',
  cntrl: '\\p{Cc}',
  word: '[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}]',
  xdigit: '[0-9a-fA-F]',
};

export class PatternSyntaxError extends Error {}

/** @throws PatternSyntaxError */
export function parsePattern(source: string): PatternNode {
  if (source.length > LONGEST) throw new PatternSyntaxError(`longer than ${LONGEST} characters`);
  return new Parser(source).parse();
}

const escaped = (codePoint: number): string => `\\u{${codePoint.toString(16)}}`;
const wordSet = CharSet.of(shortClasses.w!);

class Parser {
  readonly #source: string;
  #at = 0;
  #depth = 0;
  #ignoreCase = false;

  constructor(source: string) {
    this.#source = source;
  }

  parse(): PatternNode {
    const node = this.#choice();
    if (this.#at < this.#source.length) this.#fail('unbalanced )');
    return node;
  }

  #fail(what: string): never {
    throw new PatternSyntaxError(`${what} at ${this.#at} of ${JSON.stringify(this.#source.slice(0, 100))}`);
  }

  #peek(text: string): boolean {
    return this.#source.startsWith(text, this.#at);
  }

  #take(text: string): boolean {
    if (!this.#peek(text)) return false;
    this.#at += text.length;
    return true;
  }

  #codePoint(): number {
    const codePoint = this.#source.codePointAt(this.#at);
    if (codePoint === undefined) this.#fail('unexpected end');
    this.#at += codePoint > 0xffff ? 2 : 1;
    return codePoint;
  }

  #choice(): PatternNode {
    if (++this.#depth > DEEPEST) this.#fail(`nested deeper than ${DEEPEST}`);
    const ignoreCase = this.#ignoreCase;
    const options = [this.#sequence()];
    while (this.#take('|')) options.push(this.#sequence());
    this.#ignoreCase = ignoreCase;
    this.#depth--;
    return options.length === 1 ? options[0]! : { kind: 'choice', options };
  }

  #sequence(): PatternNode {
    const items: PatternNode[] = [];
    while (this.#at < this.#source.length && !this.#peek('|') && !this.#peek(')')) {
      const item = this.#atom();
      if (item) items.push(this.#repeats(item));
    }
    return items.length === 1 ? items[0]! : { kind: 'sequence', items };
  }

  #repeats(item: PatternNode): PatternNode {
    const bounds = this.#bounds();
    if (!bounds) return item;
    if (item.kind === 'anchor' || item.kind === 'behind') this.#fail('nothing to repeat');
    const mode = this.#take('?') ? 'lazy' : this.#take('+') ? 'possessive' : 'greedy';
    return this.#repeats({ kind: 'repeat', item, ...bounds, mode });
  }

  #bounds(): { min: number; max: number } | undefined {
    if (this.#take('*')) return { min: 0, max: Number.POSITIVE_INFINITY };
    if (this.#take('+')) return { min: 1, max: Number.POSITIVE_INFINITY };
    if (this.#take('?')) return { min: 0, max: 1 };
    const counted = /^\{(\d{0,5})(,?)(\d{0,5})\}/.exec(this.#source.slice(this.#at, this.#at + 20));
    if (!counted || counted[0] === '{}' || counted[0] === '{,}') return undefined;
    this.#at += counted[0].length;
    const min = Number(counted[1] || 0);
    const max = counted[2] === '' ? min : counted[3] === '' ? Number.POSITIVE_INFINITY : Number(counted[3]);
    if (min > MOST_REPEATS || (max > MOST_REPEATS && max !== Number.POSITIVE_INFINITY) || max < min) {
      this.#fail(`expected at most ${MOST_REPEATS} repetitions`);
    }
    return { min, max };
  }

  /** Undefined for flags such as `(?i)`, which are not a node. */
  #atom(): PatternNode | undefined {
    if (this.#take('(')) return this.#group();
    if (this.#peek('[')) return this.#set(this.#class());
    if (this.#take('.')) return this.#set('[^\\n]');
    if (this.#take('^')) return anchor((text, i) => i === 0 || text.charCodeAt(i - 1) === 10);
    if (this.#take('$')) return anchor((text, i) => i === text.length || text.charCodeAt(i) === 10);
    if (this.#peek('\\')) return this.#escape();
    if (this.#peek('*') || this.#peek('+') || this.#peek('?')) this.#fail('nothing to repeat');
    return this.#set(escaped(this.#codePoint()));
  }

  #set(source: string): PatternNode {
    try {
      return { kind: 'set', set: CharSet.of(source, this.#ignoreCase) };
    } catch {
      return this.#fail(`unknown characters ${source.slice(0, 80)}`);
    }
  }

  #group(): PatternNode | undefined {
    const ignoreCase = this.#ignoreCase;
    const flags = /^\?([imsx]*)(?:-([imsx]+))?([:)])/.exec(this.#source.slice(this.#at, this.#at + 12));
    if (flags) {
      this.#at += flags[0].length;
      if (/[msx]/.test(`${flags[1]}${flags[2] ?? ''}`)) this.#fail('unknown flag');
      if (flags[1]!.includes('i')) this.#ignoreCase = true;
      if (flags[2]?.includes('i')) this.#ignoreCase = false;
      // These flags apply up to the end of the enclosing group, where #choice restores the old ones.
      if (flags[3] === ')') return undefined;
    }
    const kind = flags ? '' : (['?=', '?!', '?<=', '?<!', '?>'].find((mark) => this.#take(mark)) ?? '');
    if (kind === '' && !flags && this.#take('?')) this.#fail('unknown kind of group');
    const item = this.#choice();
    if (!this.#take(')')) this.#fail('expected )');
    this.#ignoreCase = ignoreCase;
    if (kind === '?=' || kind === '?!') return { kind: 'ahead', item, negative: kind === '?!' };
    if (kind === '?>') return { kind: 'atomic', item };
    if (kind === '') return item;
    if (item.kind !== 'set') this.#fail('expected one character to look behind for');
    return { kind: 'behind', set: item.set, negative: kind === '?<!' };
  }

  #escape(): PatternNode {
    if (this.#take('\\A')) return anchor((_, i) => i === 0);
    if (this.#take('\\z')) return anchor((text, i) => i === text.length);
    if (this.#take('\\Z')) return anchor((text, i) => i === text.length || (i === text.length - 1 && text[i] === '\n'));
    if (this.#take('\\b')) return anchor(atWordBoundary);
    if (this.#take('\\B')) return anchor((text, i) => !atWordBoundary(text, i));
    return this.#set(this.#classEscape());
  }

  /** An escape for a character or class, in JavaScript's syntax. */
  #classEscape(): string {
    this.#at++;
    const letter = String.fromCodePoint(this.#codePoint());
    const short = shortClasses[letter];
    if (short !== undefined) return short;
    if (letter === 'p' || letter === 'P') return this.#property(letter === 'P');
    if (letter === 'x' || letter === 'u') {
      const hex = /^(?:\{([0-9a-fA-F]{1,6})\}|([0-9a-fA-F]{2,4}))/.exec(this.#source.slice(this.#at, this.#at + 8));
      if (!hex) this.#fail('expected a number in hexadecimal');
      const digits = hex[1] ?? hex[2]!.slice(0, letter === 'x' ? 2 : 4);
      this.#at += hex[1] === undefined ? digits.length : digits.length + 2;
      return escaped(Math.min(Number.parseInt(digits, 16), 0x10ffff));
    }
    const control = controls[letter];
    if (control !== undefined) return escaped(control);
    if (/[0-9A-Za-z]/.test(letter)) this.#fail(`unknown escape \\${letter}`);
    return escaped(letter.codePointAt(0)!);
  }

  #property(negative: boolean): string {
    const named = /^\{(\^?)([A-Za-z_][\w=]*)\}/.exec(this.#source.slice(this.#at, this.#at + 60));
    if (!named) this.#fail('expected the name of a property');
    this.#at += named[0].length;
    const name = named[2]!;
    const letter = negative !== (named[1] === '^') ? 'P' : 'p';
    for (const source of [`\\${letter}{${name}}`, `\\${letter}{Script=${name}}`]) {
      if (isClass(source)) return source;
    }
    const posix = posixClasses[name.toLowerCase()];
    if (posix === undefined) this.#fail(`unknown property ${name}`);
    return letter === 'P' ? `[^${posix}]` : posix;
  }

  /** A bracket class, with nested classes, in JavaScript's syntax. */
  #class(): string {
    if (++this.#depth > DEEPEST) this.#fail(`nested deeper than ${DEEPEST}`);
    this.#at++;
    const negative = this.#take('^');
    const sides: string[] = [''];
    for (let first = true; first || !this.#peek(']'); first = false) {
      if (this.#take('&&')) sides.push('');
      else sides[sides.length - 1] += this.#classItem();
    }
    this.#at++;
    this.#depth--;
    const inside = sides.length === 1 ? sides[0] : sides.map((side) => `[${side}]`).join('&&');
    return `[${negative ? '^' : ''}${inside}]`;
  }

  #classItem(): string {
    const posix = /^\[:(\^?)([a-z]+):\]/.exec(this.#source.slice(this.#at, this.#at + 20));
    if (posix) {
      this.#at += posix[0].length;
      const source = posixClasses[posix[2]!] ?? this.#fail(`unknown class ${posix[2]}`);
      return posix[1] ? `[^${source}]` : source;
    }
    if (this.#peek('[')) return this.#class();
    const low = this.#classCharacter();
    // A minus before the closing bracket is literal.
    if (!this.#peek('-') || this.#peek('-]') || !low.startsWith('\\u')) return low;
    this.#at++;
    const high = this.#classCharacter();
    if (!high.startsWith('\\u')) return `${low}\\u{2d}${high}`;
    return `${low}-${high}`;
  }

  #classCharacter(): string {
    return this.#peek('\\') ? this.#classEscape() : escaped(this.#codePoint());
  }
}

const anchor = (holds: (text: string, index: number) => boolean): PatternNode => ({ kind: 'anchor', holds });

function isClass(source: string): boolean {
  try {
    new RegExp(source, 'v');
    return true;
  } catch {
    return false;
  }
}

const atWordBoundary = (text: string, i: number): boolean => (i > 0 && wordBefore(text, i)) !== wordSet.at(text, i) > 0;

const wordBefore = (text: string, i: number): boolean => wordSet.at(text, startOfCharacter(text, i)) > 0;

/** Start index of the character that ends at `end` > 0. */
export const startOfCharacter = (text: string, end: number): number =>
  end > 1 && (text.charCodeAt(end - 1) & 0xfc00) === 0xdc00 ? end - 2 : end - 1;
