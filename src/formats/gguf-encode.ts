/** Writes the header of a GGUF file, version 3. */
import type { TensorPlace } from './checkpoint.ts';
import { DEFAULT_ALIGNMENT, NAME_LIMIT } from './gguf-header.ts';
import {
  type GgmlType,
  type GgufMetadata,
  type GgufNumberType,
  type GgufValue,
  ggmlBytes,
  ggmlTypes,
  valueBytes,
  valueTypes,
} from './gguf-types.ts';

/** A byte buffer that grows as it is written. */
class Output {
  #bytes = new Uint8Array(2 ** 12);
  #view = new DataView(this.#bytes.buffer);
  length = 0;
  readonly #text = new TextEncoder();

  #add(count: number): number {
    const at = this.length;
    this.length += count;
    if (this.length > this.#bytes.length) {
      const bytes = new Uint8Array(Math.max(this.length, 2 * this.#bytes.length));
      bytes.set(this.#bytes);
      [this.#bytes, this.#view] = [bytes, new DataView(bytes.buffer)];
    }
    return at;
  }

  u32(value: number): void {
    const at = this.#add(4);
    this.#view.setUint32(at, value, true);
  }

  u64(value: number): void {
    const at = this.#add(8);
    this.#view.setBigUint64(at, BigInt(value), true);
  }

  bytes(bytes: Uint8Array): void {
    const at = this.#add(bytes.length);
    this.#bytes.set(bytes, at);
  }

  /** Writes a length and the UTF-8 bytes of a text. Returns the number of these bytes. */
  string(text: string): number {
    const bytes = this.#text.encode(text);
    this.u64(bytes.length);
    this.bytes(bytes);
    return bytes.length;
  }

  bool(value: boolean): void {
    this.bytes(Uint8Array.of(value ? 1 : 0));
  }

  number(type: GgufNumberType, value: number | bigint): void {
    const at = this.#add(valueBytes[type]);
    const view = this.#view;
    if (type === 'uint64') view.setBigUint64(at, BigInt(value), true);
    else if (type === 'int64') view.setBigInt64(at, BigInt(value), true);
    else if (type === 'float64') view.setFloat64(at, Number(value), true);
    else if (type === 'float32') view.setFloat32(at, Number(value), true);
    else if (valueBytes[type] === 4) view.setUint32(at, Number(value), true);
    else if (valueBytes[type] === 2) view.setUint16(at, Number(value), true);
    else view.setUint8(at, Number(value));
  }

  value(value: GgufValue): void {
    this.u32(valueTypes.indexOf(value.type));
    if (value.type === 'array') {
      this.u32(valueTypes.indexOf(value.of));
      this.u64(value.value.length);
      if (value.of === 'string') for (const text of value.value) this.string(text);
      else if (value.of === 'bool') for (const item of value.value) this.bool(item);
      else this.bytes(new Uint8Array(value.value.buffer, value.value.byteOffset, value.value.byteLength));
    } else if (value.type === 'string') this.string(value.value);
    else if (value.type === 'bool') this.bool(value.value);
    else this.number(value.type, value.value);
  }

  /** The bytes written, padded with zeros to a multiple of `alignment`. */
  finish(alignment: number): Uint8Array<ArrayBuffer> {
    const used = this.length;
    this.#add(aligned(used, alignment) - used);
    return this.#bytes.slice(0, this.length);
  }
}

const aligned = (position: number, alignment: number): number => Math.ceil(position / alignment) * alignment;

/** A tensor to write; `shape` has the outermost dimension first. */
export interface GgufTensorShape {
  readonly name: string;
  readonly dtype: GgmlType;
  readonly shape: readonly number[];
}

/**
 * Returns the header's bytes, padded to the file's alignment, and the place of each tensor: in the given order, each at
 * the next aligned position.
 * @throws RangeError for a name that is empty, repeated or above 63 bytes, for rows that are not whole blocks, and for
 * more than 4 dimensions
 */
export function encodeGgufHeader(
  tensors: Iterable<GgufTensorShape>,
  metadata: GgufMetadata,
): { bytes: Uint8Array<ArrayBuffer>; tensors: TensorPlace[]; fileBytes: number } {
  const alignment = Number(metadata.get('general.alignment')?.value ?? DEFAULT_ALIGNMENT);
  const list = [...tensors];
  const out = new Output();
  out.bytes(new TextEncoder().encode('GGUF'));
  out.u32(3);
  out.u64(list.length);
  out.u64(metadata.size);
  for (const [key, value] of metadata) {
    out.string(key);
    out.value(value);
  }
  const names = new Set<string>();
  const placed: TensorPlace[] = [];
  let covered = 0;
  for (const { name, dtype, shape } of list) {
    const byteLength = ggmlBytes(dtype, shape);
    const nameBytes = out.string(name);
    if (byteLength === undefined || nameBytes === 0 || nameBytes > NAME_LIMIT || shape.length > 4 || names.has(name)) {
      const expected = `a name of 1 to ${NAME_LIMIT} bytes used once, and up to 4 dimensions with rows of whole blocks`;
      throw new RangeError(`expected ${expected}, found ${JSON.stringify(name)} ${dtype} [${shape}]`);
    }
    names.add(name);
    out.u32(shape.length);
    for (const size of [...shape].reverse()) out.u64(size);
    out.u32(ggmlTypes[dtype].id);
    out.u64(covered);
    placed.push({ name, dtype, shape, byteLength, offset: covered });
    covered = aligned(covered + byteLength, alignment);
  }
  const bytes = out.finish(alignment);
  return {
    bytes,
    tensors: placed.map((tensor) => ({ ...tensor, offset: bytes.length + tensor.offset })),
    fileBytes: bytes.length + covered,
  };
}
