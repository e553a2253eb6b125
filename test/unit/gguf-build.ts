/** Builds GGUF files byte by byte, valid or not. */

/** Little-endian pieces of a file. */
export class Bytes {
  readonly #parts: number[] = [];

  raw(bytes: Iterable<number>): this {
    for (const byte of bytes) this.#parts.push(byte);
    return this;
  }
  u32(value: number): this {
    return this.raw(new Uint8Array(Uint32Array.of(value).buffer));
  }
  u64(value: number | bigint): this {
    return this.raw(new Uint8Array(BigUint64Array.of(BigInt(value)).buffer));
  }
  f32(value: number): this {
    return this.raw(new Uint8Array(Float32Array.of(value).buffer));
  }
  text(text: string | Uint8Array, length?: number | bigint): this {
    const bytes = typeof text === 'string' ? new TextEncoder().encode(text) : text;
    return this.u64(length ?? bytes.length).raw(bytes);
  }
  done(): Uint8Array {
    return Uint8Array.from(this.#parts);
  }
}

export interface TensorSpec {
  readonly name?: string;
  /** Innermost first, as the file has them. */
  readonly dims?: readonly (number | bigint)[];
  readonly dimensions?: number;
  readonly type?: number;
  readonly offset?: number | bigint;
}

export interface FileSpec {
  readonly magic?: string;
  readonly version?: number;
  readonly tensorCount?: number | bigint;
  readonly keyCount?: number | bigint;
  /** Whole entries: key, type, value. */
  readonly entries?: readonly Bytes[];
  readonly tensors?: readonly TensorSpec[];
  readonly alignment?: number;
  readonly dataBytes?: number;
}

export const entry = (key: string, type: number, value: Bytes): Bytes =>
  new Bytes().text(key).u32(type).raw(value.done());
export const u32Entry = (key: string, value: number): Bytes => entry(key, 4, new Bytes().u32(value));
export const textEntry = (key: string, value: string): Bytes => entry(key, 8, new Bytes().text(value));

/** A file of these parts, with zeros for data. */
export function ggufFile(spec: FileSpec): Uint8Array {
  const { entries = [], tensors = [], alignment = 32, dataBytes = 0 } = spec;
  const out = new Bytes().raw(new TextEncoder().encode(spec.magic ?? 'GGUF')).u32(spec.version ?? 3);
  out.u64(spec.tensorCount ?? tensors.length).u64(spec.keyCount ?? entries.length);
  for (const part of entries) out.raw(part.done());
  for (const { name = 'w', dims = [8], dimensions = dims.length, type = 0, offset = 0 } of tensors) {
    out.text(name).u32(dimensions);
    for (const dim of dims) out.u64(dim);
    out.u32(type).u64(offset);
  }
  const header = out.done();
  if (tensors.length === 0 && dataBytes === 0) return header;
  const file = new Uint8Array(Math.ceil(header.length / alignment) * alignment + dataBytes);
  file.set(header);
  return file;
}
