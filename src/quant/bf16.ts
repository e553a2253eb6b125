/** bf16: the upper half of an f32, with 1 sign, 8 exponent and 7 mantissa bits. */

const cell = new Float32Array(1);
const bits = new Uint32Array(cell.buffer);

/** The 16 bits of the bf16 nearest to `value` (first rounded to f32), ties to even. NaN becomes a quiet NaN. */
export function toBF16(value: number): number {
  cell[0] = value;
  const all = bits[0]!;
  if ((all & 0x7fffffff) > 0x7f800000) return (all >>> 16) | 0x40;
  return (all + 0x7fff + ((all >>> 16) & 1)) >>> 16;
}

/** The exact value of 16 bits. */
export function fromBF16(upper: number): number {
  bits[0] = upper << 16;
  return cell[0]!;
}

/** Rounds values to bf16: 2 bytes each, little-endian. */
export function quantizeBF16(values: Float32Array): Uint8Array {
  const out = new Uint16Array(values.length);
  for (let i = 0; i < values.length; i++) out[i] = toBF16(values[i]!);
  return new Uint8Array(out.buffer);
}

export function dequantizeBF16(bytes: Uint8Array): Float32Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const words = new Uint32Array(bytes.length / 2);
  for (let i = 0; i < words.length; i++) words[i] = view.getUint16(2 * i, true) << 16;
  return new Float32Array(words.buffer);
}
