/** Loops over blocks, shared by all block formats. */

/** Values per block and bytes per block of one row. */
export interface BlockLayout {
  readonly block: number;
  readonly bytes: number;
}

/** Decodes the block whose first byte is at `at` to `out`, from index `start` on. */
export type DecodeBlock = (view: DataView, at: number, out: Float32Array, start: number) => void;

/** Encodes the values from index `start` on as one block, to the bytes from `at` on, which are zeros. */
export type EncodeBlock = (values: Float32Array, start: number, view: DataView, at: number) => void;

/** A function from the bytes of whole blocks to their values. */
export function decoder({ block, bytes }: BlockLayout, decode: DecodeBlock): (source: Uint8Array) => Float32Array {
  return (source) => {
    const view = new DataView(source.buffer, source.byteOffset, source.byteLength);
    const out = new Float32Array((source.length / bytes) * block);
    for (let start = 0, at = 0; start < out.length; start += block, at += bytes) decode(view, at, out, start);
    return out;
  };
}

/** A function from the values of whole blocks to their bytes. */
export function encoder({ block, bytes }: BlockLayout, encode: EncodeBlock): (values: Float32Array) => Uint8Array {
  return (values) => {
    const out = new Uint8Array((values.length / block) * bytes);
    const view = new DataView(out.buffer);
    for (let start = 0, at = 0; start < values.length; start += block, at += bytes) encode(values, start, view, at);
    return out;
  };
}
