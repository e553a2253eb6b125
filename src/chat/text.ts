/**
 * A text that records which of its characters are user text, that is, come from messages or other data and not from the
 * template. Functions of templates cut, join and trim texts; the record is kept until the result is tokenized, so that user
 * text never becomes a control token.
 */

import type { TextPart } from '../tokenizer/tokenizer.ts';
import { spend } from './work.ts';

/** Number of UTF-16 code units of the code point that begins at `at`. */
export const unitsAt = (text: string, at: number): 1 | 2 => (text.codePointAt(at)! > 0xffff ? 2 : 1);

const ASTRAL = /[\ud800-\udbff][\udc00-\udfff]/;

export class Text {
  readonly value: string;
  /** Whether any part is user text. */
  readonly isForeign: boolean;
  /** Whether it is HTML, which `escape` leaves unchanged. */
  readonly isMarkup: boolean = false;
  /** Start, end, start, end ... of the spans of user text, ascending; undefined until computed from #pieces. */
  #spans: readonly number[] | undefined;
  /** The texts that it was joined from. Spans are computed when needed, once for a text that grows piece by piece. */
  #pieces: readonly Text[] | undefined;
  #characters: number | undefined;

  constructor(value: string, spans: readonly number[] | readonly Text[] = []) {
    this.value = value;
    if (spans[0] instanceof Text) this.#pieces = spans as readonly Text[];
    else this.#spans = spans as readonly number[];
    this.isForeign = spans.length > 0;
  }

  /** User text. */
  static foreign(value: string): Text {
    return new Text(value, value === '' ? [] : [0, value.length]);
  }

  static join(texts: readonly Text[]): Text {
    if (texts.length === 1) return texts[0]!;
    // JavaScript engines concatenate two strings in constant time.
    const value = texts.length === 2 ? texts[0]!.value + texts[1]!.value : texts.map((text) => text.value).join('');
    return new Text(value, texts.some((text) => text.isForeign) ? texts.filter((text) => text.length > 0) : []);
  }

  get spans(): readonly number[] {
    if (this.#pieces) {
      this.#spans = Text.#spansOf(this.#pieces);
      this.#pieces = undefined;
    }
    return this.#spans!;
  }

  static #spansOf(pieces: readonly Text[]): number[] {
    const spans: number[] = [];
    const waiting = pieces.toReversed();
    let length = 0;
    for (let text = waiting.pop(); text; text = waiting.pop()) {
      if (text.#pieces) {
        for (let i = text.#pieces.length - 1; i >= 0; i--) waiting.push(text.#pieces[i]!);
        continue;
      }
      const inner = text.#spans!;
      for (let i = 0; i < inner.length; i += 2) {
        if (spans.at(-1) === inner[i]! + length) spans.pop();
        else spans.push(inner[i]! + length);
        spans.push(inner[i + 1]! + length);
      }
      length += text.length;
    }
    return spans;
  }

  get length(): number {
    return this.value.length;
  }

  /** Steps (work.ts) of one fast pass over the text; slower functions spend more themselves. */
  get weight(): number {
    return this.length / 16 + (this.isForeign ? this.spans.length / 2 : 0);
  }

  /** Code units [start, end), both within the text. */
  slice(start: number, end: number = this.length): Text {
    if (start === 0 && end === this.length) return this;
    if (!this.isForeign) return new Text(this.value.slice(start, end));
    const spans: number[] = [];
    for (let i = this.#spanAfter(start); i < this.spans.length && this.spans[i]! < end; i += 2) {
      spans.push(Math.max(this.spans[i]!, start) - start, Math.min(this.spans[i + 1]!, end) - start);
    }
    return new Text(this.value.slice(start, end), spans);
  }

  /** Number of code points; `length` is the number of UTF-16 code units. */
  get characters(): number {
    if (this.#characters === undefined) {
      let count = this.length;
      if (ASTRAL.test(this.value))
        for (let at = 0; at < this.length; at++)
          if (unitsAt(this.value, at) === 2) {
            count--;
            at++;
          }
      this.#characters = count;
    }
    return this.#characters;
  }

  /** Code unit at which the code point of an index begins. */
  unitOf(character: number): number {
    if (this.characters === this.length) return character;
    let at = 0;
    for (let count = 0; count < character; count++) at += unitsAt(this.value, at);
    return at;
  }

  /** Index of the code point that begins at a code unit. */
  characterOf(unit: number): number {
    if (this.characters === this.length || unit < 0) return unit;
    let count = 0;
    for (let at = 0; at < unit; at += unitsAt(this.value, at)) count++;
    return count;
  }

  /** Code points [start, end), both within the text. */
  sliceCharacters(start: number, end: number): Text {
    return this.slice(this.unitOf(start), this.unitOf(end));
  }

  /** Splits into texts of one code point. */
  split(): Text[] {
    spend(this.length * 3);
    let at = 0;
    return [...this.value].map((character) => this.slice(at, (at += character.length)));
  }

  /** Index of the first span that ends after a position. Binary search: there may be as many spans as characters. */
  #spanAfter(place: number): number {
    let [low, high] = [0, this.spans.length / 2];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.spans[2 * middle + 1]! > place) high = middle;
      else low = middle + 1;
    }
    return 2 * low;
  }

  /** The text changed to `value`. If its length changes, spans are lost and all of it counts as user text if any was. */
  respelled(value: string): Text {
    if (!this.isForeign) return new Text(value);
    return value.length === this.length ? new Text(value, this.spans) : Text.foreign(value);
  }

  /** Replaces matches of a pattern. The replacement of a match that contains user text is user text. */
  replaced(pattern: RegExp, replacement: (found: string, index: number) => string): Text {
    const value = this.value.replace(pattern, (found: string, ...rest: unknown[]) =>
      replacement(found, rest.find((one) => typeof one === 'number') as number),
    );
    if (!this.isForeign || value === this.value) return value === this.value ? this : new Text(value);
    if (this.spans.length === 2 && this.spans[0] === 0 && this.spans[1] === this.length) return Text.foreign(value);
    const pieces: Text[] = [];
    let at = 0;
    for (const { index, 0: found } of this.value.matchAll(pattern)) {
      spend(8);
      pieces.push(this.slice(at, index));
      const other = replacement(found, index);
      pieces.push(this.slice(index, index + found.length).isForeign ? Text.foreign(other) : new Text(other));
      at = index + found.length;
    }
    return Text.join([...pieces, this.slice(at)]);
  }

  /** The text as parts; control tokens are not matched in parts of user text. */
  parts(): TextPart[] {
    const parts: TextPart[] = [];
    let at = 0;
    const add = (end: number, parseSpecial: boolean): void => {
      if (end > at) parts.push({ text: this.value.slice(at, end), parseSpecial });
      at = end;
    };
    for (let i = 0; i < this.spans.length; i += 2) {
      add(this.spans[i]!, true);
      add(this.spans[i + 1]!, false);
    }
    add(this.length, true);
    return parts;
  }
}

/** HTML text: whatever is joined to it is escaped. */
export class Markup extends Text {
  override readonly isMarkup = true;

  static of(text: Text): Markup {
    return text instanceof Markup ? text : new Markup(text.value, text.spans);
  }
}

const entities: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&#34;',
  "'": '&#39;',
};

/** The escape function of markupsafe. */
export function escaped(text: Text): Text {
  if (text.isMarkup) return text;
  spend(text.length / 8);
  return Markup.of(text.replaced(/[&<>"']/g, (character) => entities[character]!));
}
