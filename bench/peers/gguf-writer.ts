/** Writes GGUF files with random weights, which are made while they are written. */
import { writeGguf } from '../../src/formats/adapters/node.ts';
import type { GgmlType, GgufValue } from '../../src/formats/gguf-types.ts';
import { toF16 } from '../../src/quant/f16.ts';
import { storageBytes, storageLayout } from '../../src/quant/storage.ts';

export const ggufStorages = ['f32', 'f16', 'q8_0', 'q4_0', 'iq4_nl', 'q4_k', 'q6_k'] as const;
export type GgufStorage = (typeof ggufStorages)[number];

export const isGgufStorage = (name: string): name is GgufStorage => (ggufStorages as readonly string[]).includes(name);

const DEVIATION = 0.02;
/** Half the width of a uniform distribution with this standard deviation. */
const REACH = DEVIATION * Math.sqrt(3);

interface Tensor {
  readonly name: string;
  /** Outermost dimension first. */
  readonly shape: readonly number[];
  readonly storage: GgufStorage;
  /** Mean of the random values; 0 for block types. */
  readonly mean: number;
}

export class GgufWriter {
  readonly #metadata = new Map<string, GgufValue>();
  readonly #tensors: Tensor[] = [];

  u32(key: string, value: number): void {
    this.#metadata.set(key, { type: 'uint32', value });
  }
  f32(key: string, value: number): void {
    this.#metadata.set(key, { type: 'float32', value });
  }
  string(key: string, value: string): void {
    this.#metadata.set(key, { type: 'string', value });
  }
  strings(key: string, value: readonly string[]): void {
    this.#metadata.set(key, { type: 'array', of: 'string', value });
  }
  i32s(key: string, values: readonly number[]): void {
    this.#metadata.set(key, { type: 'array', of: 'int32', value: Int32Array.from(values) });
  }
  f32s(key: string, values: readonly number[]): void {
    this.#metadata.set(key, { type: 'array', of: 'float32', value: Float32Array.from(values) });
  }

  /** A linear layer [out, in] of random weights around 0; q8_0 if its rows are not whole blocks, as quantizers do. */
  matrix(name: string, input: number, output: number, storage: GgufStorage): void {
    const fits = input % storageLayout[storage].block === 0;
    this.#tensors.push({ name, shape: [output, input], storage: fits ? storage : 'q8_0', mean: 0 });
  }
  /** An f32 vector or table of values around `mean`. @param dims innermost dimension first */
  floats(name: string, dims: readonly number[], mean: number): void {
    this.#tensors.push({ name, shape: [...dims].reverse(), storage: 'f32', mean });
  }

  /** Writes the file, which gets its name when it is complete. */
  async write(path: string): Promise<void> {
    const random = uniforms(12345);
    const tensors = this.#tensors.map((tensor) => ({
      name: tensor.name,
      dtype: tensor.storage.toUpperCase() as GgmlType,
      shape: tensor.shape,
      data: randomPieces(tensor, random),
    }));
    await writeGguf(path, tensors, this.#metadata);
  }
}

/** Uniform signed 32-bit integers: a linear congruential generator whose weak low bits are mixed. */
function uniforms(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    return state ^ (state >>> 15);
  };
}

/** The bytes of a tensor, a few megabytes at a time. */
function* randomPieces(tensor: Tensor, random: () => number): Generator<Uint8Array> {
  const { shape, storage } = tensor;
  const total = storageBytes(
    storage,
    shape.reduce((product, size) => product * size),
  );
  const unit = storageLayout[storage].bytes;
  const most = Math.floor(2 ** 22 / unit) * unit;
  for (let done = 0; done < total; done += most) {
    const piece = new Uint8Array(Math.min(most, total - done));
    fill(piece, tensor, random);
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
  const { bytes: block } = storageLayout[storage];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = 0; at + 4 <= bytes.length; at += 4) view.setInt32(at, random(), true);
  if (bytes.length % 4) view.setUint16(bytes.length - 2, random() >>> 16, true);
  for (let at = 0; at < bytes.length; at += block) {
    for (const [place, value] of scales[storage]) view.setUint16(at + place, toF16(value), true);
  }
}

/** Positions of the f16 scales in a block, and values for which random codes give weights up to about `REACH`. */
const scales: Readonly<
  Record<'q8_0' | 'q4_0' | 'iq4_nl' | 'q4_k' | 'q6_k', readonly (readonly [at: number, value: number])[]>
> = {
  q8_0: [[0, REACH / 127]],
  q4_0: [[0, REACH / 8]],
  iq4_nl: [[0, REACH / 127]],
  q4_k: [
    [0, REACH / (32 * 8)],
    [2, REACH / 32],
  ],
  q6_k: [[208, REACH / (64 * 32)]],
};
