/**
 * The scales of a super-block of Q4_K and Q5_K: for each of its 8 blocks of 32 a scale s and a minimum m, 6 bits each, in
 * 12 bytes. Byte j < 4 has s[j] and, in its upper two bits, those of s[4 + j]; byte 4 + j the same of m; byte 8 + j the
 * lower four bits of s[4 + j] and, in its high nibble, of m[4 + j].
 */
export const SCALE_BYTES = 12;

export interface BlockScale {
  readonly s: number;
  readonly m: number;
}

/** The scales of block `n` of 8; `at` is the first of the 12 bytes. */
export function readScale(view: DataView, at: number, n: number): BlockScale {
  const byte = (i: number): number => view.getUint8(at + i);
  if (n < 4) return { s: byte(n) & 63, m: byte(n + 4) & 63 };
  const low = byte(n + 4);
  return { s: (low & 15) | ((byte(n - 4) >> 6) << 4), m: (low >> 4) | ((byte(n) >> 6) << 4) };
}

/** @param scales 8 of them, 0 .. 63 */
export function writeScales(view: DataView, at: number, scales: readonly BlockScale[]): void {
  for (let n = 0; n < 4; n++) {
    const [low, high] = [scales[n]!, scales[n + 4]!];
    view.setUint8(at + n, low.s | ((high.s >> 4) << 6));
    view.setUint8(at + n + 4, low.m | ((high.m >> 4) << 6));
    view.setUint8(at + n + 8, (high.s & 15) | ((high.m & 15) << 4));
  }
}
