/** What happens to a text before it is split: the normalizers of tokenizer.json. */
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

/** Spaces as SentencePiece writes them. */
export const markSpaces: Normalizer = (text) => text.replaceAll(' ', SPACE_MARK);

/** Most that normalization may lengthen a text: the longest decomposition of Unicode has 18 characters. */
const MOST_GROWTH = 32;
const LEAST_LIMIT = 2 ** 16;

/** @throws TokenizerError, when it runs, for steps that make each other's results ever longer */
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

/** Also a decoder. */
export function readReplace(settings: Settings): Normalizer {
  const [pattern, content] = [readPattern(settings), settings.string('content')];
  if (content.length > LONGEST_CONTENT) settings.fail('content', `at most ${LONGEST_CONTENT} characters`);
  // An empty text would match between all characters: nothing is meant by it.
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

/** Each character alone: a sigma at the end of a word is no exception. */
export const lowercase: Normalizer = (text) => text.replaceAll('Σ', 'σ').toLowerCase();

function trim(text: string, left: boolean, right: boolean): string {
  let [start, end] = [0, text.length];
  while (left && start < end && whitespace.at(text, start)) start++;
  while (right && end > start && whitespace.at(text, end - 1)) end--;
  return text.slice(start, end);
}

/** The rules of a machine translation system (Nmt) that SentencePiece took over: controls go, odd spaces become plain. */
const nmt: Normalizer = (text) =>
  text
    // biome-ignore lint/suspicious/noControlCharactersInRegex: controls are meant.
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

/** Blocks of ideographs, as the authors of BERT listed them; the last but two starts where their Rust port has it. */
const chineseCharacters =
  /[\u4e00-\u9fff\u3400-\u4dbf\u{20000}-\u{2a6df}\u{2a700}-\u{2b73f}\u{2b740}-\u{2b81f}\u{2b920}-\u{2ceaf}\uf900-\ufaff\u{2f800}-\u{2fa1f}]/gu;

/** What BERT splits at: Unicode's punctuation, and every ASCII character that looks like it. */
export const punctuation = CharSet.of('[\\p{P}!-\\/:-@\\[-`\\{-~]');
