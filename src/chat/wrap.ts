/** Python's textwrap and pprint. */
import { textIn } from './builtin.ts';
import { integerOf } from './numbers.ts';
import { represent } from './represent.ts';
import { Text } from './text.ts';
import { splitLines } from './text-cuts.ts';
import { isBlank, SPACE } from './unicode.ts';
import { Dict, Fault, isTrue, List, less, missing, Tuple, typeName, Undefined, type Value, valueOr } from './values.ts';
import { spend, spendCharacters } from './work.ts';

const S = '\\t\\n\\x0b\\x0c\\r ';
const W = '[\\p{L}\\p{N}_]';
const LETTER = '(?:(?![\\p{Nd}_])[\\p{L}\\p{N}_])';
const PUNCTUATION = `[\\p{L}\\p{N}_!"'&.,?]`;
/** The chunks of textwrap: white space, dashes, and words that may be broken after hyphens. */
const withHyphens = new RegExp(
  `[${S}]+|(?<=${PUNCTUATION})-{2,}(?=${W})|[^${S}](?:(?![${S}])[^])*?(?:-(?:(?<=${LETTER}{2}-)|(?<=${LETTER}-${LETTER}-))(?=${LETTER}-?${LETTER})|(?=[${S}]|$)|(?<=${PUNCTUATION})(?=-{2,}${W}))`,
  'gu',
);
const LONGEST_WORD = 4096;
const wordsWithSpaces = new RegExp(`[^${SPACE}]*[${SPACE}]*`, 'g');

function chunksOf(line: Text, hyphens: boolean): Text[] {
  const chunks: Text[] = [];
  const add = (start: number, end: number): void => {
    if (end > start) chunks.push(line.slice(start, end));
  };
  // Hyphens in very long words are ignored: the pattern takes too long there.
  for (const { index, 0: word } of line.value.matchAll(new RegExp(`[${S}]+|[^${S}]+`, 'g'))) {
    spend(8 + word.length * 2);
    const [, space] = /^([\t\n\v\f\r ])?/.exec(word)!;
    if (space || !hyphens || word.length > LONGEST_WORD || !word.includes('-')) {
      add(index, index + word.length);
      continue;
    }
    spend(word.length);
    let at = 0;
    for (const found of word.matchAll(withHyphens)) {
      add(index + at, index + found.index);
      add(index + found.index, index + found.index + found[0].length);
      at = found.index + found[0].length;
    }
    add(index + at, index + word.length);
  }
  return chunks;
}

function wrapLine(line: Text, width: number, breakLong: boolean, hyphens: boolean): Text[] {
  const lines: Text[] = [];
  const chunks = chunksOf(line, hyphens).reverse();
  while (chunks.length > 0) {
    spend(1);
    const current: Text[] = [];
    let length = 0;
    if (lines.length > 0 && isBlank(chunks.at(-1)!.value)) chunks.pop();
    while (chunks.length > 0 && length + chunks.at(-1)!.characters <= width) {
      length += chunks.at(-1)!.characters;
      current.push(chunks.pop()!);
    }
    const next = chunks.at(-1);
    if (next && next.characters > width) {
      const room = width < 1 ? 1 : width - length;
      if (breakLong && room > 0) {
        let cut = room;
        if (hyphens && next.characters > room) {
          const at = next.characterOf(next.value.lastIndexOf('-', next.unitOf(room) - 1));
          if (at > 0 && /[^-]/.test(next.value.slice(0, next.unitOf(at)))) cut = at + 1;
        }
        current.push(next.sliceCharacters(0, cut));
        chunks[chunks.length - 1] = next.sliceCharacters(cut, next.characters);
      } else if (!breakLong && current.length === 0) current.push(chunks.pop()!);
      length = current.reduce((sum, chunk) => sum + chunk.characters, 0);
    }
    if (current.length > 0 && isBlank(current.at(-1)!.value)) current.pop();
    if (current.length > 0) lines.push(Text.join(current));
  }
  return lines;
}

/** The filter `wordwrap`. @throws Fault */
export function wrap(operand: Value, [width, long, wrapper, hyphens]: readonly (Value | undefined)[]): Text {
  if (operand instanceof Undefined) throw missing(operand);
  const text = textIn(operand, 'what is wrapped');
  const size = integerOf(width, 'width', 79);
  if (size <= 0) throw new Fault(`invalid width ${size} (must be > 0)`);
  const separator = wrapper === undefined || wrapper === null ? new Text('\n') : textIn(wrapper, 'wrapstring');
  const pieces: Text[] = [];
  for (const [i, line] of splitLines(text).entries()) {
    if (i > 0) pieces.push(separator);
    for (const [j, one] of wrapLine(
      line,
      size,
      isTrue(valueOr(long, true)),
      isTrue(valueOr(hyphens, true)),
    ).entries()) {
      if (j > 0) pieces.push(separator);
      pieces.push(one);
    }
  }
  const made = Text.join(pieces);
  spendCharacters(made.length);
  return made;
}

const WIDTH = 80;

/** Python's pprint.pformat. @throws Fault */
export function pretty(value: Value): Text {
  const pieces: Text[] = [];
  format(value, 0, 0, pieces, 0);
  const made = Text.join(pieces);
  spendCharacters(made.length);
  return made;
}

const sortedPairs = (dict: Dict): (readonly [Value, Value])[] =>
  [...dict.entries.values()].sort(([a], [b]) => order(a, b));

/** Compares keys; keys that cannot be ordered are compared by type, as in pprint. */
function order(a: Value, b: Value): number {
  try {
    return less(a, b) ? -1 : less(b, a) ? 1 : 0;
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    return typeName(a) < typeName(b) ? -1 : typeName(a) > typeName(b) ? 1 : 0;
  }
}

/** The value with the keys of all dicts sorted. */
function ordered(value: Value): Value {
  spend(1);
  if (value instanceof Dict) return Dict.of(sortedPairs(value).map(([key, item]) => [key, ordered(item)] as const));
  if (value instanceof List) return new List(value.items.map(ordered));
  return value instanceof Tuple ? new Tuple(value.items.map(ordered)) : value;
}

function format(value: Value, indent: number, allowance: number, pieces: Text[], level: number): void {
  const plain = represent(ordered(value));
  const room = WIDTH - indent - allowance;
  if (plain.characters <= room) pieces.push(plain);
  else if (value instanceof Dict) {
    pieces.push(new Text('{'));
    const pairs = sortedPairs(value);
    for (const [i, [key, item]] of pairs.entries()) {
      if (i > 0) pieces.push(new Text(`,\n${' '.repeat(indent + 1)}`));
      const shown = represent(ordered(key));
      pieces.push(shown, new Text(': '));
      format(item, indent + 1 + shown.characters + 2, i === pairs.length - 1 ? allowance + 1 : 1, pieces, level + 1);
    }
    pieces.push(new Text('}'));
  } else if (value instanceof List || value instanceof Tuple) {
    const [open, close] = value instanceof List ? ['[', ']'] : ['(', value.items.length === 1 ? ',)' : ')'];
    pieces.push(new Text(open!));
    for (const [i, item] of value.items.entries()) {
      if (i > 0) pieces.push(new Text(`,\n${' '.repeat(indent + 1)}`));
      format(item, indent + 1, i === value.items.length - 1 ? allowance + close!.length : 1, pieces, level + 1);
    }
    pieces.push(new Text(close!));
  } else if (value instanceof Text && value.length > 0 && !value.isMarkup)
    formatText(value, indent, allowance, pieces, level + 1);
  else pieces.push(plain);
}

/** Writes a long text as several literals. */
function formatText(text: Text, indentWithin: number, allowanceWithin: number, pieces: Text[], level: number): void {
  const [indent, allowance] = level === 1 ? [indentWithin + 1, allowanceWithin + 1] : [indentWithin, allowanceWithin];
  const chunks: Text[] = [];
  const lines = splitLines(text, true);
  const most = WIDTH - indent;
  for (const [i, line] of lines.entries()) {
    const last = i === lines.length - 1;
    const plain = represent(line);
    const lineRoom = last ? most - allowance : most;
    if (plain.characters <= lineRoom) {
      chunks.push(plain);
      continue;
    }
    const parts = [...line.value.matchAll(wordsWithSpaces)].filter(([part]) => part !== '');
    let current = new Text('');
    for (const [j, part] of parts.entries()) {
      spend(4 + current.length);
      const piece = line.slice(part.index, part.index + part[0].length);
      const candidate = Text.join([current, piece]);
      const room = j === parts.length - 1 && last ? most - allowance : most;
      if (represent(candidate).characters > room) {
        if (current.length > 0) chunks.push(represent(current));
        current = piece;
      } else current = candidate;
    }
    if (current.length > 0) chunks.push(represent(current));
  }
  if (chunks.length === 1) {
    pieces.push(chunks[0]!);
    return;
  }
  if (level === 1) pieces.push(new Text('('));
  for (const [i, chunk] of chunks.entries()) {
    if (i > 0) pieces.push(new Text(`\n${' '.repeat(indent)}`));
    pieces.push(chunk);
  }
  if (level === 1) pieces.push(new Text(')'));
}
