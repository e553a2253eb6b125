/** Stripping and splitting of texts; pieces keep their origin. */
import { Text } from './text.ts';
import { isSpace, lineEnds, words } from './unicode.ts';
import { Fault } from './values.ts';
import { checkLength, spend } from './work.ts';

/** Removes the characters of `set` (default: whitespace) from the ends. */
export function strip(text: Text, set: Text | undefined, ends: 'both' | 'left' | 'right' = 'both'): Text {
  if (set && /[\ud800-\udfff]/.test(set.value)) return stripCharacters(text, set, ends);
  const chars = set && new Set(set.value);
  const goes = (unit: string): boolean => (chars ? chars.has(unit) : isSpace(unit));
  const { value } = text;
  let [start, end] = [0, value.length];
  if (ends !== 'right') while (start < end && goes(value[start]!)) start++;
  if (ends !== 'left') while (end > start && goes(value[end - 1]!)) end--;
  return text.slice(start, end);
}

function stripCharacters(text: Text, set: Text, ends: 'both' | 'left' | 'right'): Text {
  const chars = new Set([...set.value]);
  spend(text.length);
  const all = [...text.value];
  let [start, end] = [0, all.length];
  if (ends !== 'right') while (start < end && chars.has(all[start]!)) start++;
  if (ends !== 'left') while (end > start && chars.has(all[end - 1]!)) end--;
  return text.sliceCharacters(start, end);
}

/** @throws Fault for an empty separator */
export function split(text: Text, separator: Text | undefined, most: number): Text[] {
  const pieces: Text[] = [];
  let at = 0;
  if (separator === undefined) {
    for (const { index, 0: word } of text.value.matchAll(words)) {
      spend(4);
      if (pieces.length === most) return [...pieces, text.slice(index)];
      pieces.push(text.slice(index, index + word.length));
    }
    return pieces;
  }
  const { value } = separator;
  if (value === '') throw new Fault('empty separator');
  for (
    let found = text.value.indexOf(value);
    found >= 0 && pieces.length !== most;
    found = text.value.indexOf(value, at)
  ) {
    spend(4);
    pieces.push(text.slice(at, found));
    at = found + value.length;
  }
  return [...pieces, text.slice(at)];
}

/** @throws Fault for an empty separator */
export function splitRight(text: Text, separator: Text | undefined, most: number): Text[] {
  if (most < 0 && separator === undefined) return split(text, separator, most);
  const { value } = text;
  const pieces: Text[] = [];
  if (separator === undefined) {
    const back = (from: number, space: boolean): number => {
      let at = from;
      while (at > 0 && isSpace(value[at - 1]!) === space) at--;
      return at;
    };
    let end = back(value.length, true);
    while (end > 0 && pieces.length < most) {
      spend(4);
      const start = back(end, false);
      pieces.push(text.slice(start, end));
      end = back(start, true);
    }
    return [...(end > 0 ? [text.slice(0, end)] : []), ...pieces.reverse()];
  }
  const { value: joiner } = separator;
  if (joiner === '') throw new Fault('empty separator');
  let end = value.length;
  while (pieces.length !== most && end >= joiner.length) {
    const found = value.lastIndexOf(joiner, end - joiner.length);
    if (found < 0) break;
    spend(4);
    pieces.push(text.slice(found + joiner.length, end));
    end = found;
  }
  return [text.slice(0, end), ...pieces.reverse()];
}

/** @throws Fault for an empty separator */
export function partition(text: Text, separator: Text, last: boolean): [Text, Text, Text] {
  if (separator.length === 0) throw new Fault('empty separator');
  const at = last ? text.value.lastIndexOf(separator.value) : text.value.indexOf(separator.value);
  const nothing = new Text('');
  if (at < 0) return last ? [nothing, nothing, text] : [text, nothing, nothing];
  return [text.slice(0, at), separator, text.slice(at + separator.length)];
}

/** @param keepEnds whether lines keep their line ends */
export function splitLines(text: Text, keepEnds = false): Text[] {
  spend(text.length / 4);
  const { value } = text;
  const lines: Text[] = [];
  let [start, at] = [0, 0];
  while (at < value.length) {
    if (!lineEnds.has(value[at]!)) {
      at++;
      continue;
    }
    spend(4);
    const next = at + (value.startsWith('\r\n', at) ? 2 : 1);
    lines.push(text.slice(start, keepEnds ? next : at));
    start = at = next;
  }
  return start < at ? [...lines, text.slice(start)] : lines;
}

export function replace(text: Text, from: Text, to: Text, most: number): Text {
  if (from.value === '') {
    let left = most < 0 ? Number.POSITIVE_INFINITY : most;
    checkLength(text.length + to.length * Math.min(left, text.characters + 1));
    spend(text.length);
    const pieces = text.split().flatMap((character) => (left-- > 0 ? [to, character] : [character]));
    return Text.join(left > 0 ? [...pieces, to] : pieces);
  }
  const found = most < 0 && from.length < to.length ? text.value.split(from.value).length - 1 : 0;
  checkLength(text.length + found * (to.length - from.length));
  if (!text.isForeign && !to.isForeign && most < 0) return new Text(text.value.replaceAll(from.value, () => to.value));
  const pieces = split(text, from, most);
  return Text.join(pieces.flatMap((piece, i) => (i > 0 ? [to, piece] : [piece])));
}

/** The first `characters` code points. */
export const cut = (text: Text, characters: number): Text =>
  text.sliceCharacters(0, Math.min(characters, text.characters));
