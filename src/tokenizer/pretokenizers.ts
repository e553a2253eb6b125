/** Pre-tokenizers of tokenizer.json, which split a text into the pieces that the model encodes. */
import { toByteAlphabet } from './byte-level.ts';
import { CharSet, whitespace } from './char-set.ts';
import { punctuation, readPattern } from './normalizers.ts';
import { Pattern } from './pattern.ts';
import type { Settings } from './settings.ts';

/** Receives a piece. `first`: the piece is the beginning of the whole text. */
export type Emit = (piece: string, first: boolean) => void;
/** Calls `emit` with the pieces of `text`, in order. Some may be empty. */
export type PreTokenizer = (text: string, first: boolean, emit: Emit) => void;

/** Calls `found` for each match in a text, from left to right. */
type Finder = (text: string, found: (start: number, end: number) => void) => void;

/** What happens to the matches of a pattern. */
const behaviors = ['Removed', 'Isolated', 'MergedWithPrevious', 'MergedWithNext', 'Contiguous'] as const;
type Behavior = (typeof behaviors)[number];

/** GPT-2's words: contractions; letters, numbers or other characters with a space before them; white space. */
export const GPT2_PATTERN = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

const LONGEST_PIECE = 2 ** 30;

/** @throws TokenizerError */
export function readPreTokenizer(settings: Settings | undefined): PreTokenizer {
  if (settings === undefined) return whole;
  const type = settings.string('type');
  const read = Object.hasOwn(readers, type) ? readers[type]! : settings.fail('type', 'a known pre-tokenizer');
  return read(settings);
}

/**
 * Like `readPreTokenizer`, but leaves a final rewrite to the byte alphabet to the model (`spellsBytes`), which then does it
 * once per distinct word.
 * @throws TokenizerError
 */
export function readWords(settings: Settings | undefined): { words: PreTokenizer; spellsBytes: boolean } {
  const steps = settings?.get('type') === 'Sequence' ? settings.objects('pretokenizers') : settings ? [settings] : [];
  const last = steps.at(-1);
  if (last?.get('type') !== 'ByteLevel') return { words: readPreTokenizer(settings), spellsBytes: false };
  const before = steps.slice(0, -1).map(readPreTokenizer);
  const { prefixSpace, split } = readByteLevel(last);
  return { words: inSequence([...before, byteLevelWords(prefixSpace, split, last.where)]), spellsBytes: true };
}

const readByteLevel = (settings: Settings): { prefixSpace: boolean; split: boolean } => ({
  prefixSpace: settings.flag('add_prefix_space', true),
  split: settings.flag('use_regex', true),
});

const readers: Readonly<Record<string, (settings: Settings) => PreTokenizer>> = {
  Sequence: (settings) => inSequence(settings.objects('pretokenizers').map(readPreTokenizer)),
  ByteLevel(settings) {
    const { prefixSpace, split } = readByteLevel(settings);
    const spell: PreTokenizer = (text, first, emit) => emit(toByteAlphabet(text), first);
    return inSequence([byteLevelWords(prefixSpace, split, settings.where), spell]);
  },
  Metaspace(settings) {
    const scheme = settings.has('prepend_scheme')
      ? settings.oneOf('prepend_scheme', ['always', 'first', 'never'])
      : settings.flag('add_prefix_space', true)
        ? 'always'
        : 'never';
    return metaspace(settings.string('replacement', '▁'), scheme, settings.flag('split', true));
  },
  Split(settings) {
    const pattern = readPattern(settings);
    const find: Finder =
      typeof pattern === 'string' ? findText(pattern) : (text, found) => pattern.forEach(text, found);
    return splitAt(find, readBehavior(settings, 'behavior'), settings.flag('invert', false));
  },
  Digits: (settings) =>
    splitAt(findSet(CharSet.of('\\p{N}')), settings.flag('individual_digits', false) ? 'Isolated' : 'Contiguous'),
  Punctuation: (settings) => splitAt(findSet(punctuation), readBehavior(settings, 'behavior', 'Isolated')),
  CharDelimiterSplit: (settings) => splitAt(findText(settings.string('delimiter')), 'Removed'),
  Whitespace(settings) {
    const words = new Pattern('\\w+|[^\\w\\s]+', settings.where);
    return splitAt((text, found) => words.forEach(text, found), 'Removed', true);
  },
  WhitespaceSplit: () => splitAt(findSet(whitespace), 'Removed'),
  BertPreTokenizer: () => bertWords,
  FixedLength: (settings) => fixedLength(settings.integer('length', 1, LONGEST_PIECE)),
};

function readBehavior(settings: Settings, key: string, fallback?: Behavior): Behavior {
  // Names are written in two ways: MergedWithNext and merged_with_next.
  const name = settings.string(key, fallback).toLowerCase().replaceAll('_', '');
  return behaviors.find((one) => one.toLowerCase() === name) ?? settings.fail(key, `one of ${behaviors.join(', ')}`);
}

export const whole: PreTokenizer = (text, first, emit) => emit(text, first);

export function inSequence(steps: readonly PreTokenizer[]): PreTokenizer {
  return steps.reduceRight<PreTokenizer>(
    (rest, step) => (text, first, emit) => step(text, first, (piece, isFirst) => rest(piece, isFirst, emit)),
    whole,
  );
}

/** @param invert whether the behavior applies to the text between matches instead of the matches */
export function splitAt(find: Finder, behavior: Behavior, invert = false): PreTokenizer {
  return (text, first, emit) => {
    let at = 0;
    const join = joiner(behavior, (start, end) => emit(text.slice(start, end), first && start === 0));
    find(text, (start, end) => {
      if (start > at) join.add(at, start, invert);
      join.add(start, end, !invert);
      at = end;
    });
    if (at < text.length) join.add(at, text.length, invert);
    join.end();
  };
}

interface Joiner {
  add(start: number, end: number, isMatch: boolean): void;
  end(): void;
}

/** Joins matches and the text between them according to the behavior. */
function joiner(behavior: Behavior, emit: (start: number, end: number) => void): Joiner {
  if (behavior === 'Removed' || behavior === 'Isolated') {
    const removed = behavior === 'Removed';
    const add = (start: number, end: number, isMatch: boolean): void => {
      if (!(removed && isMatch)) emit(start, end);
    };
    return { add, end: () => {} };
  }
  let [start, end, last] = [-1, -1, false];
  const joins = (isMatch: boolean): boolean => {
    if (behavior === 'Contiguous') return isMatch === last;
    if (behavior === 'MergedWithPrevious') return isMatch && !last;
    return last && !isMatch;
  };
  return {
    add(from, to, isMatch) {
      if (start >= 0 && joins(isMatch)) end = to;
      else {
        if (start >= 0) emit(start, end);
        [start, end] = [from, to];
      }
      last = isMatch;
    },
    end: () => void (start >= 0 && emit(start, end)),
  };
}

const findText =
  (pattern: string): Finder =>
  (text, found) => {
    if (pattern === '') return;
    for (let at = text.indexOf(pattern); at >= 0; at = text.indexOf(pattern, at + pattern.length)) {
      found(at, at + pattern.length);
    }
  };

const findSet =
  (set: CharSet): Finder =>
  (text, found) => {
    for (let at = 0; at < text.length; ) {
      const units = set.at(text, at);
      if (units) found(at, at + units);
      at += units || (text.codePointAt(at)! > 0xffff ? 2 : 1);
    }
  };

export const splitByPattern = (source: string, where: string, behavior: Behavior = 'Isolated'): PreTokenizer => {
  const pattern = new Pattern(source, where);
  return splitAt((text, found) => pattern.forEach(text, found), behavior);
};

/** ByteLevel without the rewrite to the byte alphabet. @param split whether to split into GPT-2's words */
export function byteLevelWords(prefixSpace: boolean, split: boolean, where: string): PreTokenizer {
  const words = split ? splitByPattern(GPT2_PATTERN, where) : whole;
  if (!prefixSpace) return words;
  return (text, first, emit) => words(text.startsWith(' ') || text === '' ? text : ` ${text}`, first, emit);
}

function metaspace(mark: string, scheme: 'always' | 'first' | 'never', split: boolean): PreTokenizer {
  const cut = split ? splitAt(findText(mark), 'MergedWithNext') : whole;
  return (text, first, emit) => {
    if (text === '') return;
    const marked = text.replaceAll(' ', () => mark);
    const prepends = (scheme === 'always' || (scheme === 'first' && first)) && !marked.startsWith(mark);
    cut(prepends ? mark + marked : marked, first, emit);
  };
}

/** Splits at white space and isolates each punctuation character. */
export const bertWords: PreTokenizer = inSequence([
  splitAt(findSet(whitespace), 'Removed'),
  splitAt(findSet(punctuation), 'Isolated'),
]);

function fixedLength(length: number): PreTokenizer {
  return (text, first, emit) => {
    const characters = [...text];
    for (let i = 0; i < characters.length; i += length)
      emit(characters.slice(i, i + length).join(''), first && i === 0);
  };
}
