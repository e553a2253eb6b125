/**
 * Writes a model folder in the shape of a published model with random weights and a usable tokenizer:
 * `node bench/make-model.ts SHAPE OUT_FOLDER [--dtype f32|f16|bf16] [--seed N] [--headers-only]`.
 * Matrices have a standard deviation of 0.02, norms are near 1. The same seed gives the same bytes everywhere. With
 * --headers-only the data are a hole in a sparse file, which takes no space and reads as zeros.
 */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { type TensorToWrite, writeAtomically, writeSafeTensors } from '../src/formats/adapters/node.ts';
import { type Dtype, encodeSafeTensorsHeader, tensorBytes } from '../src/formats/safetensors.ts';
import { toBF16 } from '../src/quant/bf16.ts';
import { toF16 } from '../src/quant/f16.ts';
import { argumentsOf, countOf, refuse } from './arguments.ts';
import { makeTokenizer } from './make-tokenizer.ts';
import { type Fill, isShapeName, type ModelShape, modelShape, type ShapeTensor, shapeNames } from './shapes.ts';

const DEVIATION = 0.02;
/** Factor by which random mantissa bits widen the distribution of values. */
const WIDENED = 1.139;
/** Size of the pool from which weights are cut: large compared with a row, small compared with processor caches. */
const POOL = 2 ** 20;

/** Uniform numbers in [0, 1): Mulberry32. */
function uniforms(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function encode(values: Float32Array, dtype: Dtype): Uint8Array {
  if (dtype === 'F32') return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  return new Uint8Array(Uint16Array.from(values, dtype === 'F16' ? toF16 : toBF16).buffer);
}

/** Random values with a given mean, as bytes. The sum of four uniform numbers is approximately normal. */
function makePool(mean: number, dtype: Dtype, random: () => number): Uint8Array {
  const scale = (DEVIATION / WIDENED) * Math.sqrt(3);
  const values = Float32Array.from(
    { length: POOL },
    () => mean + scale * (random() + random() + random() + random() - 2),
  );
  return encode(values, dtype);
}

/** Masks of the sign and mantissa bits in a 32-bit word. */
const signAndMantissa: Partial<Record<Dtype, number>> = { F32: 0x807fffff, F16: 0x83ff83ff, BF16: 0x807f807f };

/**
 * Makes a tensor from long pieces of the pool with random starts. Values around 0 also get random signs and mantissa bits:
 * magnitudes stay similar, and no two rows are equal, even among 262144.
 */
function* cutFromPool(pool: Uint8Array, tensor: ShapeTensor, random: () => number): Generator<Uint8Array> {
  const words = new Uint32Array(pool.buffer);
  const half = words.length / 2;
  const exchanged = tensor.fill === 'zero-mean' ? signAndMantissa[tensor.dtype]! : 0;
  for (let left = tensorBytes(tensor.dtype, tensor.shape)!; left > 0; left -= half * 4) {
    const start = Math.floor(random() * half);
    const mask = (random() * 2 ** 32) & exchanged;
    const piece = words.slice(start, start + Math.min(half, Math.ceil(left / 4)));
    for (let i = 0; i < piece.length; i++) piece[i]! ^= mask;
    yield new Uint8Array(piece.buffer, 0, Math.min(left, piece.byteLength));
  }
}

/** Rows of a [1, 1, n, n] mask: 1 up to the diagonal, 0 after it. */
function* causalMask(size: number, dtype: Dtype): Generator<Uint8Array> {
  for (let row = 0; row < size; row++) yield encode(new Float32Array(size).fill(1, 0, row + 1), dtype);
}

function* tensorsToWrite(shape: ModelShape, seed: number): Generator<TensorToWrite> {
  const random = uniforms(seed);
  const pools: Partial<Record<Fill, Uint8Array>> = {
    'zero-mean': makePool(0, shape.dtype, random),
    'one-mean': makePool(1, shape.dtype, random),
  };
  const bytes = (tensor: ShapeTensor): Iterable<Uint8Array> => {
    const pool = pools[tensor.fill];
    return pool ? cutFromPool(pool, tensor, random) : causalMask(tensor.shape.at(-1)!, tensor.dtype);
  };
  for (const [name, tensor] of shape.tensors) yield { name, ...tensor, data: bytes(tensor) };
}

async function* counted(
  pieces: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  count: (bytes: number) => void,
): AsyncGenerator<Uint8Array> {
  for await (const piece of pieces) {
    yield piece;
    count(piece.length);
  }
}

export interface MakeOptions {
  readonly seed?: number;
  readonly headersOnly?: boolean;
  readonly onProgress?: (bytesDone: number, bytesTotal: number) => void;
}

/** Writes config.json, generation_config.json, tokenizer.json, tokenizer_config.json and model.safetensors. */
export async function makeModel(shape: ModelShape, folder: string, options: MakeOptions = {}): Promise<void> {
  await mkdir(folder, { recursive: true });
  const files = makeTokenizer(shape.tokenizer, shape.vocab);
  const writeJson = (name: string, value: unknown, indent?: number): Promise<void> =>
    writeAtomically(join(folder, name), async (handle) => handle.writeFile(`${JSON.stringify(value, null, indent)}\n`));
  await writeJson('config.json', shape.config, 2);
  await writeJson('generation_config.json', shape.generationConfig, 2);
  await writeJson('tokenizer.json', files.tokenizer);
  await writeJson('tokenizer_config.json', files.tokenizerConfig, 2);

  const path = join(folder, 'model.safetensors');
  const metadata = { format: 'pt' };
  const places = [...shape.tensors].map(([name, tensor]) => ({ name, ...tensor }));
  const header = encodeSafeTensorsHeader(places, metadata);
  if (options.headersOnly) {
    await writeAtomically(path, async (handle) => {
      await handle.writeFile(header.bytes);
      await handle.truncate(header.fileBytes);
    });
    return;
  }
  let done = 0;
  const count = (bytes: number): void => options.onProgress?.((done += bytes), header.fileBytes);
  const tensors = [...tensorsToWrite(shape, options.seed ?? 1)];
  await writeSafeTensors(
    path,
    tensors.map((tensor) => ({ ...tensor, data: counted(tensor.data as Iterable<Uint8Array>, count) })),
    metadata,
  );
}

/** Reports progress on stderr twice a second: bytes, rate and time left. */
function reporter(): NonNullable<MakeOptions['onProgress']> {
  let start = 0;
  let last = 0;
  return (done, total) => {
    const now = performance.now();
    if (start === 0) start = last = now;
    if (now - last < 500) return;
    last = now;
    const rate = done / ((now - start) / 1000);
    const eta = Math.ceil((total - done) / rate);
    process.stderr.write(
      `${(done / 1e6).toFixed(0)} of ${(total / 1e6).toFixed(0)} MB, ${(rate / 1e6).toFixed(0)} MB/s, ${eta} s left\n`,
    );
  };
}

async function main(): Promise<void> {
  const { positionals, values } = argumentsOf({
    allowPositionals: true,
    options: { dtype: { type: 'string' }, seed: { type: 'string', default: '1' }, 'headers-only': { type: 'boolean' } },
  });
  const [name = '', folder] = positionals;
  const dtypes: Record<string, Dtype> = { f32: 'F32', f16: 'F16', bf16: 'BF16' };
  const dtype = values.dtype === undefined ? undefined : dtypes[values.dtype];
  const seed = countOf('--seed', values.seed, 0);
  if (!isShapeName(name)) refuse(`SHAPE must be one of ${shapeNames.join(', ')}, got ${name}`);
  if (folder === undefined) refuse('an OUT_FOLDER must be named');
  if (values.dtype !== undefined && dtype === undefined)
    refuse(`--dtype must be f32, f16 or bf16, got ${values.dtype}`);
  const start = performance.now();
  const shape = modelShape(name, dtype);
  await makeModel(shape, folder, { seed, headersOnly: values['headers-only'] ?? false, onProgress: reporter() });
  console.error(`${folder}: ${shape.tensors.size} tensors in ${((performance.now() - start) / 1000).toFixed(1)} s`);
}

if (import.meta.main) await main();
