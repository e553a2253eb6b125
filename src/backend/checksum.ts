/** Tells whether bytes were changed by accident; on purpose anybody can make others with the same checksum. */

const MULTIPLIER = 0x9e3779b1;

/** Bytes are added piece by piece; all pieces but the last have a multiple of 16 bytes and begin at a multiple of 4. */
export class Checksum {
  /** Sums of every fourth word, so that none has to wait for the others. */
  readonly #sums = Int32Array.of(1, 2, 3, 4);

  add(bytes: Uint8Array): this {
    const words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2);
    const end = words.length & ~3;
    let [a, b, c, d] = this.#sums as unknown as [number, number, number, number];
    for (let i = 0; i < end; i += 4) {
      a = (Math.imul(a, MULTIPLIER) + words[i]!) | 0;
      b = (Math.imul(b, MULTIPLIER) + words[i + 1]!) | 0;
      c = (Math.imul(c, MULTIPLIER) + words[i + 2]!) | 0;
      d = (Math.imul(d, MULTIPLIER) + words[i + 3]!) | 0;
    }
    for (let i = end * 4; i < bytes.length; i++) a = (Math.imul(a, MULTIPLIER) + bytes[i]!) | 0;
    this.#sums.set([a, b, c, d]);
    return this;
  }

  /** 32 bits. */
  get value(): number {
    return this.#sums.reduce((sum, value) => Math.imul(sum ^ (sum >>> 15), 0x85ebca6b) ^ value) >>> 0;
  }
}

/** The number of the first f32, or pair of f16, that is not finite, from word `from` to the one before `to`. */
export function firstNotFinite(words: Int32Array, from: number, to: number, type: 'f32' | 'f16'): number | undefined {
  const exponents = type === 'f32' ? [0x7f800000] : [0x7c00, 0x7c000000];
  for (const exponent of exponents) {
    // Where all bits of an exponent are set, one more carries over. A page is mostly right: one look at the end.
    const one = exponent & -exponent;
    const carry = (exponent + one) | 0;
    let carried = 0;
    const end = from + ((to - from) & ~3);
    for (let i = from; i < end; i += 4) {
      carried |=
        ((words[i]! & exponent) + one) |
        ((words[i + 1]! & exponent) + one) |
        ((words[i + 2]! & exponent) + one) |
        ((words[i + 3]! & exponent) + one);
    }
    for (let i = end; i < to; i++) carried |= (words[i]! & exponent) + one;
    if ((carried & carry) === 0) continue;
    for (let i = from; i < to; i++) if ((words[i]! & exponent) === exponent) return i;
  }
  return undefined;
}
