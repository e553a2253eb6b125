/**
 * Text that remembers which of its characters came from people: a template's own functions cut, join and trim it, and what
 * they leave of a message is still known as such when the result is tokenized.
 */

import type { TextPart } from '../tokenizer/tokenizer.ts';

/** How many units of 16 bits the code point takes that begins there. */
export const unitsAt = (text: string, at: number): 1 | 2 => (text.codePointAt(at)! > 0xffff ? 2 : 1);

export class Text {
  readonly value: string;
  /** Ascending starts and ends, in turns, of stretches that people wrote. */
  readonly spans: readonly number[];

  constructor(value: string, spans: readonly number[] = []) {
    this.value = value;
    this.spans = spans;
  }

  /** Text that people wrote. */
  static foreign(value: string): Text {
    return new Text(value, value === '' ? [] : [0, value.length]);
  }

  static join(texts: readonly Text[]): Text {
    const spans: number[] = [];
    let length = 0;
    for (const { value, spans: inner } of texts) {
      for (let i = 0; i < inner.length; i += 2) {
        if (spans.at(-1) === inner[i]! + length) spans.pop();
        else spans.push(inner[i]! + length);
        spans.push(inner[i + 1]! + length);
      }
      length += value.length;
    }
    return new Text(texts.map(({ value }) => value).join(''), spans);
  }

  get length(): number {
    return this.value.length;
  }

  /** Characters [start, end), both within the text. */
  slice(start: number, end: number = this.length): Text {
    if (start === 0 && end === this.length) return this;
    const spans: number[] = [];
    for (let i = this.#spanAfter(start); i < this.spans.length && this.spans[i]! < end; i += 2) {
      spans.push(Math.max(this.spans[i]!, start) - start, Math.min(this.spans[i + 1]!, end) - start);
    }
    return new Text(this.value.slice(start, end), spans);
  }

  /** Code points; `length` counts units of 16 bits. */
  get characters(): number {
    let count = 0;
    for (let at = 0; at < this.length; at += unitsAt(this.value, at)) count++;
    return count;
  }

  /** Code points [start, end), both within the text. */
  sliceCharacters(start: number, end: number): Text {
    let at = 0;
    for (let count = 0; count < start; count++) at += unitsAt(this.value, at);
    const from = at;
    for (let count = start; count < end; count++) at += unitsAt(this.value, at);
    return this.slice(from, at);
  }

  /** Index of the first span that ends after a place: by halves, for a text may have as many spans as characters. */
  #spanAfter(place: number): number {
    let [low, high] = [0, this.spans.length / 2];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.spans[2 * middle + 1]! > place) high = middle;
      else low = middle + 1;
    }
    return 2 * low;
  }

  /** Another spelling of it: wholly of people if a part was and the places have moved. */
  respelled(value: string): Text {
    if (this.spans.length === 0) return new Text(value);
    return value.length === this.length ? new Text(value, this.spans) : Text.foreign(value);
  }

  /** The text in stretches; those that people wrote spell no control tokens. */
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
