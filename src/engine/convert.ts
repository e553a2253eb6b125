/** Tensors of a file as tensors of another type: read in pieces, changed, handed out in pieces. */
import { ModelError } from '../errors.ts';
import type { CheckpointTensor } from '../formats/checkpoint.ts';
import { ErrorMeter, type QuantizationError } from '../quant/error.ts';
import { type WeightType, weightType, weightTypes } from '../quant/ggml.ts';

/** Values in memory at once, as far as rows allow. */
const PIECE_VALUES = 2 ** 20;

/** Types that values can be changed to. */
export type WritableType = 'f32' | 'f16' | 'bf16' | 'q8_0' | 'q4_0' | 'q4_k' | 'q5_k' | 'q6_k';

/** What a tensor is to become, and of what. */
export interface Recipe {
  readonly name: string;
  readonly shape: readonly number[];
  /** Their rows follow each other. */
  readonly sources: readonly CheckpointTensor[];
  /** The source is [in, out], the result [out, in] or the other way round. */
  readonly transposed: boolean;
  /** Added to every value. */
  readonly plus: number;
  /** Instead of sources. */
  readonly values?: Float32Array;
  /** Undefined: the bytes as they are. */
  readonly to: WritableType | undefined;
  readonly reason: string;
}

export interface ConvertedTensor {
  readonly name: string;
  /** As the file formats spell it: F32, Q8_0 ... */
  readonly dtype: string;
  readonly shape: readonly number[];
  /** The same of the file that was read. */
  readonly from: string;
  readonly reason: string;
  readonly byteLength: number;
  readonly data: AsyncIterable<Uint8Array>;
  /** What was lost, once all data have been taken; undefined where it was not measured. */
  error(): QuantizationError | undefined;
}

export interface ConvertSettings {
  readonly metrics: boolean;
  /** Called with the bytes of each piece that was taken. */
  readonly onBytes?: (count: number) => void;
  readonly signal?: AbortSignal;
}

export function convertTensor(recipe: Recipe, { metrics, onBytes, signal }: ConvertSettings): ConvertedTensor {
  const { name, shape, sources, transposed, plus, to, reason } = recipe;
  const from = sources[0]?.dtype ?? 'F32';
  const changes = to !== undefined && (to !== from.toLowerCase() || transposed || plus !== 0 || sources.length === 0);
  const meter = metrics ? new ErrorMeter() : undefined;

  async function* converted({ quantize, dequantize }: WeightType): AsyncGenerator<Uint8Array> {
    let first = 0;
    for await (const values of recipe.values ? [recipe.values] : valuesOf(recipe)) {
      checkFinite(recipe, values, first);
      first += values.length;
      // Writable types have one.
      const bytes = quantize!(values);
      meter?.add(values, dequantize(bytes));
      yield bytes;
    }
  }
  async function* unchanged(): AsyncGenerator<Uint8Array> {
    for (const source of sources) yield* pieces(source);
  }
  async function* data(): AsyncGenerator<Uint8Array> {
    for await (const bytes of changes ? converted(weightTypes[to]) : unchanged()) {
      signal?.throwIfAborted();
      yield bytes;
      onBytes?.(bytes.length);
    }
  }
  return {
    name,
    dtype: changes ? to.toUpperCase() : from,
    shape,
    from,
    reason,
    byteLength: changes ? bytesOf(weightTypes[to], shape) : sources.reduce((sum, source) => sum + source.byteLength, 0),
    data: { [Symbol.asyncIterator]: data },
    error: () => meter?.error,
  };
}

/** A scale of a block may be no number: everything that meets it would be none. */
function checkFinite({ name, shape }: Recipe, values: Float32Array, first: number): void {
  const bad = values.findIndex((value) => !Number.isFinite(value));
  if (bad < 0) return;
  const [at, width] = [first + bad, shape.at(-1) ?? 1];
  const place = `row ${Math.floor(at / width)}, column ${at % width}`;
  throw new ModelError(
    'NotFinite',
    `${name}: expected finite values, found ${values[bad]} in ${place}: get the file again`,
  );
}

const bytesOf = ({ block, bytes }: WeightType, shape: readonly number[]): number => (countOf(shape) / block) * bytes;
const countOf = (shape: readonly number[]): number => shape.reduce((product, size) => product * size, 1);

/** The bytes of a tensor, whole rows at a time. */
async function* pieces(tensor: CheckpointTensor): AsyncGenerator<Uint8Array> {
  const rowLength = tensor.shape.at(-1) ?? 1;
  const rows = rowLength === 0 ? 0 : countOf(tensor.shape) / rowLength;
  if (rows === 0) return;
  const rowBytes = tensor.byteLength / rows;
  const step = Math.max(1, Math.floor(PIECE_VALUES / rowLength)) * rowBytes;
  for (let start = 0; start < tensor.byteLength; start += step) {
    const bytes = new Uint8Array(Math.min(step, tensor.byteLength - start));
    await tensor.readInto(start, bytes);
    yield bytes;
  }
}

async function* valuesOf({ sources, transposed, plus }: Recipe): AsyncGenerator<Float32Array> {
  for (const source of sources) {
    const type = weightType(source.dtype);
    if (type === undefined) {
      const what = `${source.name}: values of type ${source.dtype} cannot be changed to another type`;
      throw new ModelError('NotConvertible', what);
    }
    if (transposed) {
      yield transpose(await wholeTensor(source, type), source.shape as [number, number]);
      continue;
    }
    for await (const bytes of pieces(source)) {
      const values = type.dequantize(bytes);
      yield plus === 0 ? values : values.map((value) => value + plus);
    }
  }
}

async function wholeTensor(tensor: CheckpointTensor, { dequantize }: WeightType): Promise<Float32Array> {
  const bytes = new Uint8Array(tensor.byteLength);
  await tensor.readInto(0, bytes);
  return dequantize(bytes);
}

function transpose(values: Float32Array, [rows, columns]: readonly [number, number]): Float32Array {
  const out = new Float32Array(values.length);
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) out[c * rows + r] = values[r * columns + c]!;
  return out;
}
