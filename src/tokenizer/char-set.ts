/** Sets of Unicode characters with fast membership tests. */

const PAGE = 256;

/**
 * A set given by a predicate, which is evaluated for a whole page of 256 code points at first use. A text uses few pages.
 */
export class CharSet {
  readonly #has: (character: string) => boolean;
  readonly #pages: (Uint8Array | undefined)[] = new Array(0x110000 / PAGE);
  readonly #ascii: Uint8Array;

  constructor(has: (character: string) => boolean) {
    this.#has = has;
    this.#ascii = this.#page(0);
  }

  /** @param source a class of JavaScript's `v` syntax, such as `[\p{L}\p{M}]` */
  static of(source: string, ignoreCase = false): CharSet {
    const pattern = new RegExp(`^${source}$`, ignoreCase ? 'iv' : 'v');
    return new CharSet((character) => pattern.test(character));
  }

  has(codePoint: number): boolean {
    const page = this.#pages[codePoint >> 8] ?? this.#page(codePoint >> 8);
    return page[codePoint & (PAGE - 1)] === 1;
  }

  /** Length in code units of the character at `index` if it is in the set, otherwise 0. */
  at(text: string, index: number): number {
    const unit = text.charCodeAt(index);
    if (unit < PAGE) return this.#ascii[unit]!;
    // The unit is NaN beyond the end of the text.
    if (!(unit >= PAGE)) return 0;
    if ((unit & 0xfc00) === 0xd800) return this.has(text.codePointAt(index)!) ? 2 : 0;
    return this.has(unit) ? 1 : 0;
  }

  #page(index: number): Uint8Array {
    const page = Uint8Array.from({ length: PAGE }, (_, i) =>
      this.#has(String.fromCodePoint(index * PAGE + i)) ? 1 : 0,
    );
    this.#pages[index] = page;
    return page;
  }
}

export const whitespace = CharSet.of('\\p{White_Space}');
/** Word characters (\w) of Oniguruma. */
export const wordCharacter = CharSet.of('[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}]');
/** Word characters (\w) of Rust's regex crate, which also has the two joiners. */
export const joinedWordCharacter = CharSet.of('[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}]');
