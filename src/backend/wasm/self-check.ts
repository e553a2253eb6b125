/** Runs a small plan with the chosen kernels and with the reference backend, and compares logits and draws. */
import { OutOfMemoryError } from '../../errors.ts';
import { stepBytes } from '../../kernels/layout.ts';
import { TURN_BYTES } from '../../kernels/tile.ts';
import { PlanBuilder, type Weight } from '../../plan/builder.ts';
import type { Plan, PlannedWeight } from '../../plan/step.ts';
import { dequantize, quantize } from '../../quant/codec.ts';
import { type BlockStorage, type Storage, searchedTypes, storageBytes, storageLayout } from '../../quant/storage.ts';
import type { Backend, BackendOptions, Results, TensorData } from '../backend.ts';
import { drawFrom } from '../draw.ts';
import { createReferenceBackend } from '../reference/backend.ts';
import { type BuildOptions, buildBackend } from './backend.ts';

const HEADS = 2;
const VOCAB = 48;
/** Rows of consecutive forwards: kernels have separate inner loops for several rows, one row and many rows. */
const ROWS = [7, 1, 26];
const MOST_ROWS = Math.max(...ROWS);
/** Columns of a matrix: one turn of the loop over one row, and some that are left. */
function widthOf(storage: Storage): number {
  const { block } = storageLayout[storage];
  const turn = Math.ceil(TURN_BYTES / stepBytes(storage)) * block;
  return turn > block ? turn + Math.max(block, 16) : block;
}
/** Distinct rows of a matrix in blocks, then repeated, because quantizing is slow. Not a multiple of the group size. */
const PATTERN = 23;
/** Relative error allowed: quantized activations may round differently at ties. Broken kernels are off by far more. */
const TOLERANCE = 0.02;

/** A description of the difference, or undefined. Runs on one thread: it checks kernels, not the pool. */
export async function selfCheck(
  options: Pick<BuildOptions, 'host' | 'choice'>,
  storages: readonly Storage[],
): Promise<string | undefined> {
  for (const storage of storages) {
    const backendOptions: BackendOptions = {
      plan: toyPlan(storage),
      maxRows: MOST_ROWS,
      maxWanted: MOST_ROWS,
      tensor: (name) => noiseTensor(name, storage),
    };
    try {
      const expected = await logitsOf(await createReferenceBackend(backendOptions));
      const got = await logitsOf(await buildBackend({ ...backendOptions, ...options, threads: 1 }));
      const size = Math.sqrt(expected.reduce((sum, x) => sum + x * x, 0));
      const error = Math.sqrt(got.reduce((sum, x, i) => sum + (x - expected[i]!) ** 2, 0)) / size;
      if (!(error <= TOLERANCE)) return `${storage} kernels are off by ${error}`;
    } catch (error) {
      if (error instanceof OutOfMemoryError) throw error;
      return `${storage} kernels failed: ${error instanceof Error ? error.message : String(error)}`;
    }
  }
  return undefined;
}

/** A plan with the kinds of steps that models consist of. */
function toyPlan(storage: Storage): Plan {
  const dim = widthOf(storage);
  const weights: PlannedWeight[] = [];
  const weight = (name: string, shape: readonly number[], stored: Storage = storage): Weight => {
    const source = { tensor: `${shape.join('x')}`, transposed: false, first: 0, plus: 0 };
    const bytes = shape.length === 1 ? shape[0]! * 4 : shape[0]! * storageBytes(stored, shape[1]!);
    const id =
      weights.push({ name, role: 'ffn', shape, source, storage: stored, linear: false, reason: '', bytes }) - 1;
    return { id, shape };
  };
  const linear = (name: string, out: number) => ({
    weight: weight(name, [out, dim]),
    bias: weight(`${name}.bias`, [out], 'f32'),
  });
  const norm = { weight: weight('norm', [dim], 'f32'), bias: weight('norm.bias', [dim], 'f32') };
  const p = new PlanBuilder();
  const rope = p.rope({
    name: 'rope',
    rotary: dim / HEADS,
    frequencies: new Float32Array(dim / HEADS / 2).fill(0.3),
    magnitude: 1,
  });
  const x = p.embedTokens(weight('embedding', [VOCAB, dim]), 3);
  const h = p.layerNorm(x, norm, 1e-5);
  const [q, k] = [
    p.rotate(p.matmul(h, linear('q', dim)), HEADS, rope),
    p.rotate(p.matmul(h, linear('k', dim)), HEADS, rope),
  ];
  const cache = p.cache({ kvHeads: HEADS, headDim: dim / HEADS, window: 5 });
  p.addMatmul(x, p.attention(q, k, p.matmul(h, linear('v', dim)), cache, HEADS, 0.2), linear('o', dim));
  const inner = p.rmsNorm(x, norm, 1e-5);
  p.add(
    x,
    p.activate(
      'silu',
      p.matmul(inner, linear('gate', dim)),
      p.activate('gelu_tanh', p.matmul(inner, linear('up', dim))),
    ),
  );
  p.add(x, p.activate('gelu', x));
  return p.finish(p.matmul(p.wantedRows(x), linear('output', VOCAB)), weights);
}

/** Pseudorandom values that depend only on shape and storage. Given as blocks for storages that no kernel quantizes to. */
function noiseTensor(name: string, storage: Storage): TensorData {
  const shape = name.split('x').map(Number);
  const count = shape.reduce((a, b) => a * b);
  const isBlocks = shape.length === 2 && searchedTypes.includes(storage);
  let state = shape.reduce((a, b) => a * 31 + b, 7);
  const noise = Float32Array.from({ length: isBlocks ? Math.min(count, PATTERN * shape[1]!) : count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  });
  const pattern = isBlocks ? quantize(storage, noise) : undefined;
  const values = pattern ? dequantize(storage, pattern) : noise;
  const bytes = repeated(new Uint8Array(values.buffer), count * 4);
  return {
    dtype: 'f32',
    shape,
    byteLength: bytes.length,
    readInto: readerOf(bytes),
    blocks: pattern && {
      storage: storage as BlockStorage,
      readInto: readerOf(repeated(pattern, storageBytes(storage, count))),
    },
  };
}

/** Repeats the bytes to the given length. */
const repeated = (bytes: Uint8Array, length: number): Uint8Array =>
  Uint8Array.from({ length }, (_, i) => bytes[i % bytes.length]!);

const readerOf =
  (bytes: Uint8Array): TensorData['readInto'] =>
  async (start, target) =>
    target.set(bytes.subarray(start, start + target.length));

/** Draws have the bits of their definition, or the kernels are wrong. @throws Error */
async function checkDraw(results: Results, row: number): Promise<void> {
  const [topK, topP] = row % 2 === 0 ? [VOCAB / 2, 0.9] : [0, 0.5];
  const mask = Uint32Array.of(0xfffefffd, 0xffff);
  const draw = { row, mask, temperature: 0.8, topK, topP, minP: 0, uniform: row / MOST_ROWS };
  const [id] = await results.draw([draw]);
  const expected = drawFrom(results.output(row), draw);
  if (id !== expected) throw new Error(`a draw came to ${id} instead of ${expected}`);
}

async function logitsOf(backend: Backend): Promise<Float32Array> {
  await backend.cache.ensure(1);
  const logits: number[] = [];
  let start = 0;
  for (const count of ROWS) {
    const rows = Int32Array.from({ length: count }, (_, i) => i);
    const results = await backend.forward({
      tokens: rows,
      positions: rows.map((row) => start + row),
      sequences: new Int32Array(count),
      pages: [Int32Array.of(0)],
      wanted: rows,
    });
    for (const row of rows) {
      logits.push(...results.output(row));
      await checkDraw(results, row);
    }
    start += count;
  }
  await backend.dispose();
  return Float32Array.from(logits);
}
