/**
 * The scales of a Q4_K or Q5_K super-block: for each of its 8 blocks of 32 values a scale s and a minimum m, 6 bits each,
 * in 12 bytes. For j = 0 .. 3, byte j has s[j] in its lower six bits and the upper two bits of s[4 + j] above them; byte
 * 4 + j the same of m; byte 8 + j the lower four bits of s[4 + j] in its low nibble and of m[4 + j] in its high nibble.
 */
export const SCALE_BYTES = 12;

export interface BlockScale {
  readonly s: number;
  readonly m: number;
}

/** Scale and minimum of block `n` of 8. @param at position of the first of the 12 bytes */
export function readScale(view: DataView, at: number, n: number): BlockScale {
  const byte = (i: number): number => view.getUint8(at + i);
  if (n < 4) return { s: byte(n) & 63, m: byte(n + 4) & 63 };
  const low = byte(n + 4);
  return { s: (low & 15) | ((byte(n - 4) >> 6) << 4), m: (low >> 4) | ((byte(n) >> 6) << 4) };
}

/** @param scales 8 pairs of values 0 .. 63 */
export function writeScales(view: DataView, at: number, scales: readonly BlockScale[]): void {
  for (let n = 0; n < 4; n++) {
    const [low, high] = [scales[n]!, scales[n + 4]!];
    view.setUint8(at + n, low.s | ((high.s >> 4) << 6));
    view.setUint8(at + n + 4, low.m | ((high.m >> 4) << 6));
    view.setUint8(at + n + 8, (high.s & 15) | ((high.m & 15) << 4));
  }
}
