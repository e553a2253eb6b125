/** Character classes and case conversion of Python's str. */
import type { Text } from './text.ts';

/** Whitespace of Python's str.strip, as the inside of a character class. */
export const SPACE = '\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000';
export const spaces = new RegExp(`[${SPACE}]+`, 'g');
export const words = new RegExp(`[^${SPACE}]+`, 'g');
const oneSpace = new RegExp(`[${SPACE}]`);
const onlySpaces = new RegExp(`^[${SPACE}]+$`);

export function isSpace(unit: string): boolean {
  const code = unit.charCodeAt(0);
  return code < 128 ? code === 32 || (code >= 9 && code <= 13) || (code >= 28 && code <= 31) : oneSpace.test(unit);
}

const blank = new RegExp(`^[${SPACE}]*$`);
export const isBlank = (text: string): boolean => blank.test(text);

export function trimEnd(text: string): string {
  let end = text.length;
  while (end > 0 && isSpace(text[end - 1]!)) end--;
  return text.slice(0, end);
}

/** Line ends of Python's str.splitlines; \r\n counts as one. */
export const lineEnds = new Set('\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029');

/** Digits that are not decimal digits, such as superscripts and circled digits. */
const DIGITS =
  '\\u00b2\\u00b3\\u00b9\\u1369-\\u1371\\u19da\\u2070\\u2074-\\u2079\\u2080-\\u2089\\u2460-\\u2468\\u2474-\\u247c\\u2488-\\u2490' +
  '\\u24ea\\u24f5-\\u24fd\\u24ff\\u2776-\\u277e\\u2780-\\u2788\\u278a-\\u2792\\u{10a40}-\\u{10a43}\\u{10e60}-\\u{10e68}' +
  '\\u{11052}-\\u{1105a}\\u{1f100}-\\u{1f10a}';
/** Ideographs with a numeric value. */
const NUMERALS =
  '㐅㒃㠪㭍一七万三九二五亖亿什仟仨伍佰億兆兩八六十千卄卅卌叁参參叄四壱壹幺廾廿弌弍弎弐拾捌柒漆玖百肆萬貮貳贰阡陆陌陸零' +
  '\\uf96b\\uf973\\uf978\\uf9b2\\uf9d1\\uf9d3\\uf9fd\\u{20001}\\u{20064}\\u{200e2}\\u{20121}\\u{2092a}\\u{20983}\\u{2098c}\\u{2099c}' +
  '\\u{20aea}\\u{20afd}\\u{20b19}\\u{22390}\\u{22998}\\u{23b1b}\\u{2626d}\\u{2f890}';

const whole = (set: string): RegExp => new RegExp(`^[${set}]+$`, 'u');

/** Patterns of str.isalnum and so on; they do not match an empty text. */
export const classes: Readonly<Record<string, RegExp>> = {
  isalnum: whole('\\p{L}\\p{N}'),
  isalpha: whole('\\p{L}'),
  isdecimal: whole('\\p{Nd}'),
  isdigit: whole(`\\p{Nd}${DIGITS}`),
  isnumeric: whole(`\\p{N}${NUMERALS}`),
  isspace: onlySpaces,
  isidentifier: /^[\p{XID_Start}_]\p{XID_Continue}*$/u,
};

/** Characters that Python's repr escapes. */
export const notPrintable = /(?! )[\p{C}\p{Z}]/gu;

const CASED = /[\p{Lowercase}\p{Uppercase}\p{Lt}]/u;
export const isUpper = (text: string): boolean => /\p{Uppercase}/u.test(text) && !/[\p{Lowercase}\p{Lt}]/u.test(text);
export const isLower = (text: string): boolean => /\p{Lowercase}/u.test(text) && !/[\p{Uppercase}\p{Lt}]/u.test(text);

/** str.istitle: every word begins with an upper or title case letter and goes on in lower case. */
export function isTitle(text: string): boolean {
  let [cased, any] = [false, false];
  for (const character of text) {
    const isLowerCase = /\p{Lowercase}/u.test(character);
    if (isLowerCase !== cased && CASED.test(character)) return false;
    cased = CASED.test(character);
    any ||= cased;
  }
  return any;
}

const digraphs: Readonly<Record<string, string>> = { Ǆ: 'ǅ', Ǉ: 'ǈ', Ǌ: 'ǋ', Ǳ: 'ǲ' };

/** The title case of one character. */
function titleCase(character: string): string {
  if (/[\u10d0-\u10fa\u10fd-\u10ff]/.test(character)) return character;
  const upper = character.toUpperCase();
  if (digraphs[upper]) return digraphs[upper];
  if (character >= '\u1f80' && character <= '\u1fff' && upper.endsWith('Ι') && upper.length > 1)
    return `${upper.slice(0, -1)}\u0345`.normalize('NFC');
  if (upper.length <= character.length || character === 'ŉ') return upper;
  return upper[0]! + upper.slice(1).toLowerCase();
}

/** Lower case of a character; a sigma after a letter and not before one becomes ς. */
const lowerAt = (value: string, character: string, index: number, behindLetter: boolean): string =>
  character === 'Σ' && behindLetter ? `α${value.slice(index, index + 9)}`.toLowerCase()[1]! : character.toLowerCase();

/** str.title: a word begins after each character without case. */
export const title = (text: Text): Text => {
  let cased = false;
  return text.replaced(/[\s\S]/gu, (character, index) => {
    // `replaced` may call this twice for the whole text: index 0 resets the state.
    const begins = index === 0 || !cased;
    cased = CASED.test(character);
    return begins ? titleCase(character) : lowerAt(text.value, character, index, true);
  });
};

export const capitalize = (text: Text): Text => {
  const first = String.fromCodePoint(text.value.codePointAt(0) ?? 32);
  if (text.length === 0) return text;
  return text.respelled(titleCase(first) + text.value.toLowerCase().slice(first.toLowerCase().length));
};

export const swapcase = (text: Text): Text =>
  text.replaced(/\p{Uppercase}|\p{Lowercase}/gu, (character, index) =>
    /\p{Uppercase}/u.test(character)
      ? lowerAt(text.value, character, index, index > 0 && CASED.test(text.value[index - 1]!))
      : character.toUpperCase(),
  );

/** str.casefold. */
export const casefold = (text: Text): Text =>
  text.replaced(/[\s\S]/gu, (character) => {
    if (/[\u13a0-\u13f5]/.test(character) || character === 'ı') return character;
    if (/[\u13f8-\u13fd]/.test(character)) return String.fromCharCode(character.charCodeAt(0) - 8);
    if (/[\uab70-\uabbf]/.test(character)) return String.fromCharCode(character.charCodeAt(0) - 0x97d0);
    if (character === 'ẞ') return 'ss';
    if (character === 'İ') return 'i̇';
    return character.toUpperCase().toLowerCase().replaceAll('ς', 'σ');
  });
