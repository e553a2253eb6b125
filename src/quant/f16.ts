/** f16: IEEE 754 half precision, with 1 sign, 5 exponent and 10 mantissa bits. */

const cell = new Float32Array(1);
const bits = new Uint32Array(cell.buffer);

/**
 * The 16 bits of the f16 nearest to `value` (first rounded to f32), ties to even. NaN becomes the quiet NaN of its
 * sign.
 */
export function toF16(value: number): number {
  cell[0] = value;
  const sign = (bits[0]! >>> 16) & 0x8000;
  const magnitude = bits[0]! & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  if (magnitude < 0x38800000) {
    // Subnormal or zero. The spacing of f32 near 0.5 is 2^-24, as that of f16's subnormals, so adding 0.5 rounds.
    cell[0] = Math.abs(cell[0]!) + 0.5;
    return sign | (bits[0]! - 0x3f000000);
  }
  return sign | ((magnitude + 0xfff + ((magnitude >>> 13) & 1) - (112 << 23)) >>> 13);
}

/** The exact value of 16 bits. */
export function fromF16(half: number): number {
  const exponent = (half >>> 10) & 31;
  const mantissa = half & 0x3ff;
  const magnitude =
    exponent === 31
      ? mantissa
        ? Number.NaN
        : Number.POSITIVE_INFINITY
      : exponent === 0
        ? mantissa * 2 ** -24
        : (1024 + mantissa) * 2 ** (exponent - 25);
  return half & 0x8000 ? -magnitude : magnitude;
}

/** Rounds values to f16: 2 bytes each, little-endian. */
export function quantizeF16(values: Float32Array): Uint8Array {
  const out = new Uint16Array(values.length);
  for (let i = 0; i < values.length; i++) out[i] = toF16(values[i]!);
  return new Uint8Array(out.buffer);
}

/** The values of all 65536 f16, computed at first use. */
let table: Float32Array | undefined;

export function dequantizeF16(bytes: Uint8Array): Float32Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  table ??= Float32Array.from({ length: 2 ** 16 }, (_, half) => fromF16(half));
  const out = new Float32Array(bytes.length / 2);
  for (let i = 0; i < out.length; i++) out[i] = table[view.getUint16(2 * i, true)]!;
  return out;
}
