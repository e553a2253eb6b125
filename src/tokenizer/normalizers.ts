/** Normalizers of tokenizer.json, which change a text before it is split. */
import { TokenizerError } from '../errors.ts';
import { toByteAlphabet } from './byte-level.ts';
import { CharSet, whitespace } from './char-set.ts';
import { CharsMap } from './charsmap.ts';
import { Pattern } from './pattern.ts';
import type { Settings } from './settings.ts';
import { SPACE_MARK } from './spaces.ts';

export type Normalizer = (text: string) => string;

/** @throws TokenizerError */
export function readNormalizer(settings: Settings | undefined): Normalizer {
  if (settings === undefined) return (text) => text;
  const type = settings.string('type');
  const read = Object.hasOwn(readers, type) ? readers[type]! : settings.fail('type', 'a known normalizer');
  return read(settings);
}

const readers: Readonly<Record<string, (settings: Settings) => Normalizer>> = {
  Sequence: (settings) => inTurn(settings.objects('normalizers').map(readNormalizer)),
  NFC: () => (text) => text.normalize('NFC'),
  NFD: () => (text) => text.normalize('NFD'),
  NFKC: () => (text) => text.normalize('NFKC'),
  NFKD: () => (text) => text.normalize('NFKD'),
  Lowercase: () => lowercase,
  StripAccents: () => (text) => text.replace(/\p{M}/gu, ''),
  Strip(settings) {
    const [left, right] = [settings.flag('strip_left', true), settings.flag('strip_right', true)];
    return (text) => trim(text, left, right);
  },
  Prepend(settings) {
    const prefix = settings.string('prepend');
    return (text) => (text === '' ? '' : prefix + text);
  },
  Replace: readReplace,
  Nmt: () => nmt,
  ByteLevel: () => toByteAlphabet,
  Precompiled(settings) {
    const map = new CharsMap(fromBase64(settings), settings.where);
    return (text) => map.replaceGraphemes(text);
  },
  BertNormalizer(settings) {
    const lower = settings.flag('lowercase', true);
    return bertNormalizer({
      clean: settings.flag('clean_text', true),
      chinese: settings.flag('handle_chinese_chars', true),
      stripAccents: settings.flag('strip_accents', lower),
      lowercase: lower,
    });
  },
};

/** Replaces spaces by SentencePiece's mark. */
export const markSpaces: Normalizer = (text) => text.replaceAll(' ', SPACE_MARK);

/** Most growth of a text by normalization. The longest decomposition in Unicode has 18 characters. */
const MOST_GROWTH = 32;
const LEAST_LIMIT = 2 ** 16;

/** Steps in sequence. The result throws a TokenizerError if they lengthen a text beyond the limit. */
export function inTurn(steps: readonly Normalizer[]): Normalizer {
  return (text) => {
    const limit = MOST_GROWTH * text.length + LEAST_LIMIT;
    return steps.reduce((result, step) => {
      const next = step(result);
      if (next.length <= limit) return next;
      throw new TokenizerError('tokenizer', `the normalizer makes a text more than ${MOST_GROWTH} times as long`);
    }, text);
  };
}

/** A pattern of tokenizer.json: `{"String": ...}` or `{"Regex": ...}`. @throws TokenizerError */
export function readPattern(settings: Settings): string | Pattern {
  const pattern = settings.object('pattern');
  if (pattern.has('String')) return pattern.string('String');
  return new Pattern(pattern.string('Regex'), pattern.where);
}

const LONGEST_CONTENT = 256;

/** Reads `Replace`, which is a normalizer and a decoder. */
export function readReplace(settings: Settings): Normalizer {
  const [pattern, content] = [readPattern(settings), settings.string('content')];
  if (content.length > LONGEST_CONTENT) settings.fail('content', `at most ${LONGEST_CONTENT} characters`);
  // An empty pattern replaces nothing, although it matches between all characters.
  if (typeof pattern === 'string') return (text) => (pattern === '' ? text : text.replaceAll(pattern, () => content));
  return (text) => {
    let out = '';
    let plain = 0;
    pattern.forEach(text, (start, end) => {
      out += text.slice(plain, start) + content;
      plain = end;
    });
    return out + text.slice(plain);
  };
}

function fromBase64(settings: Settings): Uint8Array {
  try {
    return Uint8Array.from(atob(settings.string('precompiled_charsmap')), (unit) => unit.charCodeAt(0));
  } catch {
    throw new TokenizerError(`${settings.where}.precompiled_charsmap`, 'expected base64');
  }
}

/** Lower-cases each character by itself. `toLowerCase` alone would turn a sigma at the end of a word into ς. */
export const lowercase: Normalizer = (text) => text.replaceAll('Σ', 'σ').toLowerCase();

function trim(text: string, left: boolean, right: boolean): string {
  let [start, end] = [0, text.length];
  while (left && start < end && whitespace.at(text, start)) start++;
  while (right && end > start && whitespace.at(text, end - 1)) end--;
  return text.slice(start, end);
}

/** Nmt of SentencePiece: removes control characters, turns unusual spaces into plain ones. */
const nmt: Normalizer = (text) =>
  text
    // biome-ignore lint/suspicious/noControlCharactersInRegex: the pattern is for control characters.
    .replace(/[\x01-\x08\x0b\x0e-\x1f\x7f\x8f\x9f]/g, '')
    .replace(/[\t\n\f\r\u1680\u200b-\u200f\u2028\u2029\u2581\ufeff\ufffd]/g, ' ');

export interface BertRules {
  readonly clean: boolean;
  readonly chinese: boolean;
  readonly stripAccents: boolean;
  readonly lowercase: boolean;
}

export function bertNormalizer({ clean, chinese, stripAccents, lowercase: lower }: BertRules): Normalizer {
  const steps: Normalizer[] = [];
  if (clean)
    steps.push((text) =>
      text.replace(/(?![\t\n\r])[\0\ufffd\p{Cc}\p{Cf}\p{Co}]/gu, '').replace(/\p{White_Space}/gu, ' '),
    );
  if (chinese) steps.push((text) => text.replace(chineseCharacters, ' $& '));
  if (stripAccents) steps.push((text) => text.normalize('NFD').replace(/\p{Mn}/gu, ''));
  if (lower) steps.push(lowercase);
  return inTurn(steps);
}

/** Blocks of ideographs as listed by BERT, with the start of U+2B920 as in the tokenizers library. */
const chineseCharacters =
  /[\u4e00-\u9fff\u3400-\u4dbf\u{20000}-\u{2a6df}\u{2a700}-\u{2b73f}\u{2b740}-\u{2b81f}\u{2b920}-\u{2ceaf}\uf900-\ufaff\u{2f800}-\u{2fa1f}]/gu;

/** BERT's punctuation: Unicode's punctuation, and every ASCII symbol. */
export const punctuation = CharSet.of('[\\p{P}!-\\/:-@\\[-`\\{-~]');
