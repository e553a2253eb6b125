/** Converts tensors of a file to another type, piece by piece. */
import { ModelError } from '../errors.ts';
import type { CheckpointTensor } from '../formats/checkpoint.ts';
import { countOf, type RowOrder } from '../formats/views.ts';
import { ErrorMeter, errorSums, type QuantizationError } from '../quant/error.ts';
import { type WeightType, weightType, weightTypes } from '../quant/ggml.ts';
import { type ConvertedPiece, convertPiece, type Piece, type WritableType } from './convert-piece.ts';

export type { WritableType } from './convert-piece.ts';

/** Values per piece; a piece has whole rows, at least one. */
const PIECE_VALUES = 2 ** 20;

/** Describes how a tensor of the new file is made. */
export interface Recipe {
  readonly name: string;
  readonly shape: readonly number[];
  /** Tensors of the file that was read; their rows are concatenated. */
  readonly sources: readonly CheckpointTensor[];
  /** Whether the source matrix is transposed. */
  readonly transposed: boolean;
  /** Added to every value. */
  readonly plus: number;
  /** Values to write instead of sources. */
  readonly values?: Float32Array;
  /** Order of the rows of a source (its tensor has them in this order already). */
  readonly rows?: RowOrder | undefined;
  /** Blocks of rows that were quantized before, in the type `to`. */
  readonly blocks?: (firstRow: number, rows: number) => Uint8Array<ArrayBuffer>;
  /** New type; undefined: the bytes are copied. */
  readonly to: WritableType | undefined;
  readonly reason: string;
}

export interface ConvertedTensor {
  readonly name: string;
  /** Type as the file formats spell it: F32, Q8_0 ... */
  readonly dtype: string;
  readonly shape: readonly number[];
  /** Type in the file that was read. */
  readonly from: string;
  readonly reason: string;
  readonly byteLength: number;
  readonly data: AsyncIterable<Uint8Array>;
  /** Quantization error, complete once all of `data` was read; undefined if it was not measured. */
  error(): QuantizationError | undefined;
}

/** Converts pieces, up to `width` of them at the same time. */
export interface Converter {
  readonly width: number;
  convert(piece: Piece): Promise<ConvertedPiece>;
}

/** Converts on the calling thread. */
export const inlineConverter: Converter = { width: 1, convert: async (piece) => convertPiece(piece) };

export interface ConvertSettings {
  readonly converter: Converter;
  readonly metrics: boolean;
  /** Called with the number of bytes of each piece after it was read. */
  readonly onBytes?: (count: number) => void;
  readonly signal?: AbortSignal;
}

export function convertTensor(recipe: Recipe, settings: ConvertSettings): ConvertedTensor {
  const { name, shape, sources, reason } = recipe;
  const { onBytes, signal } = settings;
  const from = typeOf(recipe);
  const changes = changesOf(recipe);
  const meter = settings.metrics ? new ErrorMeter() : undefined;

  async function* unchanged(): AsyncGenerator<Uint8Array> {
    for (const source of sources) yield* bytesOf(source);
  }
  async function* data(): AsyncGenerator<Uint8Array> {
    const pieces = recipe.blocks
      ? quantizedBefore(recipe, meter)
      : changes && converted(recipe, changes, settings, meter);
    for await (const bytes of pieces ?? unchanged()) {
      signal?.throwIfAborted();
      yield bytes;
      onBytes?.(bytes.length);
    }
  }
  return {
    name,
    dtype: changes?.toUpperCase() ?? from,
    shape,
    from,
    reason,
    byteLength: convertedBytes(recipe),
    data: { [Symbol.asyncIterator]: data },
    error: () => meter?.error,
  };
}

const typeOf = ({ sources }: Recipe): string => sources[0]?.dtype ?? 'F32';

/** The type to convert to; undefined if the bytes can be copied. */
function changesOf(recipe: Recipe): WritableType | undefined {
  const { to, sources, transposed, plus } = recipe;
  if (recipe.blocks) return to;
  const stays = to === typeOf(recipe).toLowerCase() && !transposed && plus === 0 && sources.length > 0;
  return stays ? undefined : to;
}

/** Bytes of the converted tensor. */
export function convertedBytes(recipe: Recipe): number {
  const to = changesOf(recipe);
  if (to === undefined) return recipe.sources.reduce((sum, { byteLength }) => sum + byteLength, 0);
  const { block, bytes } = weightTypes[to];
  return (countOf(recipe.shape) / block) * bytes;
}

/** Reads pieces ahead, so that `width` of them are converted at once, and yields the results in order. */
async function* converted(
  recipe: Recipe,
  to: WritableType,
  { converter, metrics }: ConvertSettings,
  meter: ErrorMeter | undefined,
): AsyncGenerator<Uint8Array> {
  const ahead: Promise<ConvertedPiece>[] = [];
  let first = 0;
  const take = async (): Promise<Uint8Array> => {
    const { bytes, count, notFinite, error } = await ahead.shift()!;
    if (notFinite) throw notFiniteError(recipe, first + notFinite.at, notFinite.value);
    first += count;
    if (error) meter?.add(error);
    return bytes;
  };
  for await (const piece of piecesOf(recipe)) {
    const change = converter.convert({ ...piece, to, metrics });
    // A piece that is never taken, because the reader stopped, must not cause an unhandled rejection.
    change.catch(() => undefined);
    ahead.push(change);
    if (ahead.length > converter.width) yield await take();
  }
  while (ahead.length > 0) yield await take();
}

/** The blocks of a recipe, in pieces; values are read only if errors are measured. */
async function* quantizedBefore(recipe: Recipe, meter: ErrorMeter | undefined): AsyncGenerator<Uint8Array> {
  const { shape, to } = recipe;
  const columns = shape.at(-1)!;
  const { dequantize } = weightTypes[to!];
  if (!meter) {
    const rows = countOf(shape) / columns;
    const step = Math.max(1, Math.floor(PIECE_VALUES / columns));
    for (let first = 0; first < rows; first += step) yield recipe.blocks!(first, Math.min(step, rows - first));
    return;
  }
  let first = 0;
  for await (const { from, bytes, plus } of piecesOf(recipe)) {
    const values = weightTypes[from].dequantize(bytes).map((value) => value + plus);
    const blocks = recipe.blocks!(first, values.length / columns);
    meter.add(errorSums(values, dequantize(blocks)));
    first += values.length / columns;
    yield blocks;
  }
}

/** A NaN or infinity, often from the scale of a block, would spread to every result computed with it. */
function notFiniteError({ name, shape }: Recipe, at: number, value: number): ModelError {
  const width = shape.at(-1) ?? 1;
  const place = `row ${Math.floor(at / width)}, column ${at % width}`;
  return new ModelError('NotFinite', `${name}: expected finite values, found ${value} in ${place}: get the file again`);
}

const f32Bytes = (values: Float32Array): Uint8Array =>
  new Uint8Array(values.buffer.slice(values.byteOffset, values.byteOffset + values.byteLength) as ArrayBuffer);

/** The bytes of a tensor in pieces of whole rows. */
async function* bytesOf(tensor: CheckpointTensor): AsyncGenerator<Uint8Array> {
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

async function* piecesOf({ sources, transposed, plus, values }: Recipe): AsyncGenerator<Omit<Piece, 'to' | 'metrics'>> {
  if (values) yield { from: 'f32', bytes: f32Bytes(values), plus: 0 };
  for (const source of sources) {
    const type = weightType(source.dtype);
    if (type === undefined) {
      const what = `${source.name}: values of type ${source.dtype} cannot be converted to another type`;
      throw new ModelError('NotConvertible', what);
    }
    const from = source.dtype.toLowerCase() as Piece['from'];
    if (transposed) yield { from: 'f32', bytes: f32Bytes(await transposedValues(source, type)), plus };
    else for await (const bytes of bytesOf(source)) yield { from, bytes, plus };
  }
}

/** The values of a whole matrix, transposed. */
async function transposedValues(tensor: CheckpointTensor, { dequantize }: WeightType): Promise<Float32Array> {
  const bytes = new Uint8Array(tensor.byteLength);
  await tensor.readInto(0, bytes);
  const values = dequantize(bytes);
  const [rows, columns] = tensor.shape as [number, number];
  const out = new Float32Array(values.length);
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) out[c * rows + r] = values[r * columns + c]!;
  return out;
}
