/** The frame of all block formats: one block of one row after the other. */

/** Values per block and bytes per block of one row. */
export interface BlockLayout {
  readonly block: number;
  readonly bytes: number;
}

/** Writes the values of the block whose first byte is at `at` to `out`, from `start` on. */
export type DecodeBlock = (view: DataView, at: number, out: Float32Array, start: number) => void;

/** Writes the block of the values from `start` on to the bytes from `at` on, which are zeros. */
export type EncodeBlock = (values: Float32Array, start: number, view: DataView, at: number) => void;

/** From whole blocks to their values. */
export function decoder({ block, bytes }: BlockLayout, decode: DecodeBlock): (source: Uint8Array) => Float32Array {
  return (source) => {
    const view = new DataView(source.buffer, source.byteOffset, source.byteLength);
    const out = new Float32Array((source.length / bytes) * block);
    for (let start = 0, at = 0; start < out.length; start += block, at += bytes) decode(view, at, out, start);
    return out;
  };
}

/** From values, whole blocks of them, to bytes. */
export function encoder({ block, bytes }: BlockLayout, encode: EncodeBlock): (values: Float32Array) => Uint8Array {
  return (values) => {
    const out = new Uint8Array((values.length / block) * bytes);
    const view = new DataView(out.buffer);
    for (let start = 0, at = 0; start < values.length; start += block, at += bytes) encode(values, start, view, at);
    return out;
  };
}
