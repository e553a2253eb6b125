/**
 * SentencePiece's precompiled character map: UTF-8 byte sequences in a double-array trie (darts-clone) with their
 * replacements. Layout: u32 byte length of the array, the array of u32 units, zero-terminated replacement texts.
 */
import { TokenizerError } from '../errors.ts';

const encoder = new TextEncoder();
/** Graphemes of this many bytes and more are replaced by single characters only, as in Hugging Face's tokenizers. */
const LONG_GRAPHEME = 6;
const MOST_REMEMBERED = 2 ** 14;

export class CharsMap {
  readonly #units: Uint32Array;
  readonly #texts: Uint8Array;
  readonly #decoder = new TextDecoder('utf-8', { ignoreBOM: true });

  /** @throws TokenizerError */
  constructor(bytes: Uint8Array, where: string) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const length = bytes.length < 4 ? -1 : view.getUint32(0, true);
    if (length < 4 || length % 4 !== 0 || 4 + length > bytes.length) {
      throw new TokenizerError(where, `expected a character map, found ${bytes.length} bytes that are none`);
    }
    this.#units = Uint32Array.from({ length: length / 4 }, (_, i) => view.getUint32(4 + 4 * i, true));
    this.#texts = bytes.slice(4 + length);
    if (this.#texts.at(-1) !== 0) throw new TokenizerError(where, 'expected texts that end in a zero byte');
  }

  /** Byte lengths and replacements of the prefixes of `bytes` from `start` on that have one. Shortest first. */
  *#prefixes(bytes: Uint8Array, start: number): Generator<{ length: number; text: string }> {
    const units = this.#units;
    let unit = units[0]!;
    // Offsets beyond the array read undefined, which compares unequal.
    let position = offsetOf(unit);
    for (let i = start; i < bytes.length && bytes[i] !== 0; i++) {
      position ^= bytes[i]!;
      unit = units[position] ?? 0;
      if ((unit & 0x800000ff) !== bytes[i]) return;
      position ^= offsetOf(unit);
      if ((unit >>> 8) & 1) {
        const text = this.#textAt((units[position] ?? 0) & 0x7fffffff);
        if (text !== undefined) yield { length: i + 1 - start, text };
      }
    }
  }

  #textAt(start: number): string | undefined {
    if (start >= this.#texts.length) return undefined;
    return this.#decoder.decode(this.#texts.subarray(start, this.#texts.indexOf(0, start)));
  }

  /** Replaces the longest prefix again and again, as SentencePiece does. */
  replaceLongest(text: string): string {
    const bytes = encoder.encode(text);
    let out = '';
    let plain = 0;
    for (let at = 0; at < bytes.length; ) {
      let longest: { length: number; text: string } | undefined;
      for (const prefix of this.#prefixes(bytes, at)) longest = prefix;
      if (!longest) {
        do at++;
        while ((bytes[at]! & 0xc0) === 0x80);
        continue;
      }
      out += this.#decoder.decode(bytes.subarray(plain, at)) + longest.text;
      at += longest.length;
      plain = at;
    }
    return out + this.#decoder.decode(bytes.subarray(plain));
  }

  /** Replacement for the shortest prefix of `text`. */
  #first(text: string): string | undefined {
    for (const prefix of this.#prefixes(encoder.encode(text), 0)) return prefix.text;
    return undefined;
  }

  /** Replaces each grapheme as a whole if the map has it, otherwise character by character, as in tokenizer.json. */
  replaceGraphemes(text: string): string {
    let out = '';
    // No grapheme crosses a line feed, and ASCII lines have a fast path.
    for (const line of text.match(/[^\n]*\n|[^\n]+$/g) ?? []) {
      out += /^[\0-\x7f]*$/.test(line) ? this.#replaceAscii(line) : this.#replaceSegments(line);
    }
    return out;
  }

  #replaceSegments(line: string): string {
    let out = '';
    // Created at first use: it takes 10 ms.
    graphemes ??= new Intl.Segmenter('en', { granularity: 'grapheme' });
    for (const { segment } of graphemes.segment(line)) {
      let replacement = this.#graphemes.get(segment);
      if (replacement === undefined) {
        replacement = this.#replaceGrapheme(segment);
        if (segment.length < LONG_GRAPHEME && this.#graphemes.size < MOST_REMEMBERED) {
          this.#graphemes.set(segment, replacement);
        }
      }
      out += replacement;
    }
    return out;
  }

  #replaceGrapheme(grapheme: string): string {
    const whole = encoder.encode(grapheme).length < LONG_GRAPHEME ? this.#first(grapheme) : undefined;
    if (whole !== undefined) return whole;
    let out = '';
    for (const character of grapheme) out += this.#first(character) ?? character;
    return out;
  }

  /** In ASCII every character is a grapheme, except CR LF at the end of the line. */
  #replaceAscii(line: string): string {
    if (line.endsWith('\r\n')) return this.#replaceAscii(line.slice(0, -2)) + this.#replaceGrapheme('\r\n');
    this.#ascii ??= Array.from({ length: 128 }, (_, unit) => this.#replaceGrapheme(String.fromCharCode(unit)));
    const map = this.#ascii;
    let out = '';
    let plain = 0;
    for (let i = 0; i < line.length; i++) {
      const replacement = map[line.charCodeAt(i)]!;
      if (replacement.length === 1 && replacement.charCodeAt(0) === line.charCodeAt(i)) continue;
      out += line.slice(plain, i) + replacement;
      plain = i + 1;
    }
    return out + line.slice(plain);
  }
  #ascii: string[] | undefined;
  /** Replacements of short graphemes seen before. */
  readonly #graphemes = new Map<string, string>();
}

let graphemes: Intl.Segmenter | undefined;

const offsetOf = (unit: number): number => (unit >>> 10) << ((unit & 0x200) >>> 6);
