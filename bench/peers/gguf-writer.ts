/** Writes GGUF version 3: metadata, then tensors of random weights. Only what the peers' models need. */
import { closeSync, openSync, renameSync, writeSync } from 'node:fs';
import { toF16 } from '../../src/quant/f16.ts';
import { type Storage, storageBytes } from '../../src/quant/storage.ts';

export type GgufStorage = Extract<Storage, 'f32' | 'f16' | 'q4_0' | 'q8_0'>;

const tensorTypes: Record<GgufStorage, number> = { f32: 0, f16: 1, q4_0: 2, q8_0: 8 };
const valueTypes = { u32: 4, i32: 5, f32: 6, string: 8, array: 9 } as const;
const ALIGN = 32;
const DEVIATION = 0.02;
/** Half the width of a uniform distribution of that deviation. */
const REACH = DEVIATION * Math.sqrt(3);

class Bytes {
  readonly #parts: Uint8Array[] = [];
  length = 0;

  #number(size: number, set: (view: DataView) => void): this {
    const part = new Uint8Array(size);
    set(new DataView(part.buffer));
    return this.raw(part);
  }
  raw(part: Uint8Array): this {
    this.#parts.push(part);
    this.length += part.length;
    return this;
  }
  u32(value: number): this {
    return this.#number(4, (view) => view.setUint32(0, value, true));
  }
  u64(value: number): this {
    return this.#number(8, (view) => view.setBigUint64(0, BigInt(value), true));
  }
  f32(value: number): this {
    return this.#number(4, (view) => view.setFloat32(0, value, true));
  }
  text(value: string): this {
    const bytes = new TextEncoder().encode(value);
    return this.u64(bytes.length).raw(bytes);
  }
  finish(): Uint8Array {
    return Buffer.concat(this.#parts);
  }
}

interface Tensor {
  readonly name: string;
  /** Innermost first, as GGUF has them. */
  readonly dims: readonly number[];
  readonly storage: GgufStorage;
  /** Mean of the random values; block formats have 0. */
  readonly mean: number;
}

export class GgufWriter {
  readonly #metadata = new Bytes();
  readonly #tensors: Tensor[] = [];
  #keys = 0;

  u32(key: string, value: number): void {
    this.#key(key, valueTypes.u32).u32(value);
  }
  f32(key: string, value: number): void {
    this.#key(key, valueTypes.f32).f32(value);
  }
  string(key: string, value: string): void {
    this.#key(key, valueTypes.string).text(value);
  }
  strings(key: string, values: readonly string[]): void {
    const bytes = this.#array(key, valueTypes.string, values.length);
    for (const value of values) bytes.text(value);
  }
  i32s(key: string, values: readonly number[]): void {
    const bytes = this.#array(key, valueTypes.i32, values.length);
    for (const value of values) bytes.u32(value);
  }
  f32s(key: string, values: readonly number[]): void {
    const bytes = this.#array(key, valueTypes.f32, values.length);
    for (const value of values) bytes.f32(value);
  }

  /** A linear layer [out, in] of random weights around 0. */
  matrix(name: string, input: number, output: number, storage: GgufStorage): void {
    this.#tensors.push({ name, dims: [input, output], storage, mean: 0 });
  }
  /** An f32 vector or table around `mean`. */
  floats(name: string, dims: readonly number[], mean: number): void {
    this.#tensors.push({ name, dims, storage: 'f32', mean });
  }

  /** The file appears under its name when it is complete. */
  write(path: string): void {
    const header = new Bytes().raw(new TextEncoder().encode('GGUF')).u32(3);
    header.u64(this.#tensors.length).u64(this.#keys).raw(this.#metadata.finish());
    let offset = 0;
    for (const { name, dims, storage } of this.#tensors) {
      header.text(name).u32(dims.length);
      for (const dim of dims) header.u64(dim);
      header.u32(tensorTypes[storage]).u64(offset);
      offset += aligned(bytesOf({ dims, storage }));
    }
    header.raw(new Uint8Array(aligned(header.length) - header.length));
    const part = `${path}.part`;
    const file = openSync(part, 'w');
    try {
      writeSync(file, header.finish());
      const random = uniforms(12345);
      for (const tensor of this.#tensors) for (const piece of randomPieces(tensor, random)) writeSync(file, piece);
    } finally {
      closeSync(file);
    }
    renameSync(part, path);
  }

  #key(key: string, type: number): Bytes {
    this.#keys++;
    return this.#metadata.text(key).u32(type);
  }
  #array(key: string, type: number, length: number): Bytes {
    return this.#key(key, valueTypes.array).u32(type).u64(length);
  }
}

const aligned = (bytes: number): number => Math.ceil(bytes / ALIGN) * ALIGN;
const bytesOf = ({ dims, storage }: Pick<Tensor, 'dims' | 'storage'>): number =>
  storageBytes(
    storage,
    dims.reduce((product, dim) => product * dim),
  );

/** Uniform 32-bit integers, signed: a linear congruential generator with its weak low bits mixed. */
function uniforms(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    return state ^ (state >>> 15);
  };
}

/** The bytes of a tensor with its padding, some megabytes at a time. */
function* randomPieces(tensor: Tensor, random: () => number): Generator<Uint8Array> {
  const total = bytesOf(tensor);
  const unit = { f32: 4, f16: 2, q8_0: 34, q4_0: 18 }[tensor.storage];
  const most = Math.floor(2 ** 22 / unit) * unit;
  for (let done = 0; done < total; done += most) {
    const length = Math.min(most, total - done);
    const last = done + length === total;
    const piece = new Uint8Array(last ? length + aligned(total) - total : length);
    fill(piece.subarray(0, length), tensor, random);
    yield piece;
  }
}

function fill(bytes: Uint8Array, { storage, mean }: Tensor, random: () => number): void {
  const value = (): number => mean + (random() / 2 ** 31) * REACH;
  if (storage === 'f32') {
    const values = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
    for (let i = 0; i < values.length; i++) values[i] = value();
    return;
  }
  if (storage === 'f16') {
    const values = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2);
    for (let i = 0; i < values.length; i++) values[i] = toF16(value());
    return;
  }
  const [block, scale] = storage === 'q8_0' ? [34, toF16(REACH / 127)] : [18, toF16(REACH / 8)];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = 0; at < bytes.length; at += block) {
    view.setUint16(at, scale, true);
    for (let i = 2; i < block; i += 4) view.setInt32(at + i, random(), true);
  }
}
