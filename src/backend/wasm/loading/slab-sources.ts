/**
 * Sources of slabs. Usually a tensor's values. If the file already has the weight's blocks, the blocks are read instead. No
 * kernel quantizes to types with searched scales: weights that become one of them are quantized row by row on this thread,
 * while they are read.
 */
import { type PlannedWeight, sourceRow } from '../../../plan/step.ts';
import { dequantize, quantize } from '../../../quant/codec.ts';
import {
  type BlockStorage,
  type FloatStorage,
  isBlockStorage,
  type Storage,
  searchedTypes,
  storageBytes,
  storageLayout,
} from '../../../quant/storage.ts';
import type { FilePlace, TensorData } from '../../backend.ts';
import { checkFinite } from '../../finite.ts';

export interface SlabSource {
  /** Unique name of the source. */
  readonly name: string;
  /** File and tensor name, for error messages. */
  readonly place: string;
  readonly type: FloatStorage | BlockStorage;
  readonly shape: readonly number[];
  /** The weight, with this source in place of its tensor. */
  readonly weight: PlannedWeight;
  /** Whether `readInto` quantizes. */
  readonly quantizes: boolean;
  readInto: TensorData['readInto'];
  readonly inFile?: FilePlace;
}

/** Bytes per value, a fraction for blocks. */
export const valueBytes = (type: Storage): number => storageLayout[type].bytes / storageLayout[type].block;

/** @param index of the weight in its plan */
export function slabSource(weight: PlannedWeight, index: number, tensor: TensorData): SlabSource {
  const { storage, source, shape } = weight;
  const { blocks } = tensor;
  const place = tensor.place ?? source.tensor;
  const whole = { name: source.tensor, place, shape: tensor.shape, quantizes: false };
  const values = {
    type: tensor.dtype,
    inFile: tensor.inFile,
    readInto: (start: number, target: Uint8Array) => tensor.readInto(start, target),
  };
  if (shape.length === 1 || !isBlockStorage(storage)) return { ...whole, ...values, weight };
  if (blocks?.storage === storage && !source.transposed) {
    const name = `${source.tensor} as ${storage}`;
    const readInto: TensorData['readInto'] = (start, target) => blocks.readInto(start, target);
    const own = { ...weight, source: { ...source, tensor: name } };
    return { ...whole, name, weight: own, type: storage, inFile: blocks.inFile, readInto };
  }
  if (!searchedTypes.includes(storage)) return { ...whole, ...values, weight };
  const name = `weight ${index} as ${storage}`;
  return {
    name,
    place,
    shape,
    type: storage,
    quantizes: true,
    weight: { ...weight, source: { tensor: name, transposed: false, first: 0, plus: 0 } },
    readInto: quantizedRows(weight, tensor, storage),
  };
}

/** Reads the weight's rows as quantized blocks. */
function quantizedRows(weight: PlannedWeight, tensor: TensorData, storage: BlockStorage): TensorData['readInto'] {
  const columns = weight.shape[1]!;
  const rowBytes = storageBytes(storage, columns);
  const rowOf = rowReader(weight, tensor);
  const place = tensor.place ?? weight.source.tensor;
  return async (start, target) => {
    const end = start + target.length;
    for (let row = Math.floor(start / rowBytes); row * rowBytes < end; row++) {
      const values = await rowOf(row);
      checkFinite(place, values, storage);
      const bytes = quantize(storage, values);
      const from = Math.max(start, row * rowBytes);
      const to = Math.min(end, (row + 1) * rowBytes);
      target.set(bytes.subarray(from - row * rowBytes, to - row * rowBytes), from - start);
    }
  };
}

/** Reads a row of the weight as f32. A tensor stored as [in, out] is read whole and kept in memory. */
function rowReader({ source, shape }: PlannedWeight, tensor: TensorData): (row: number) => Promise<Float32Array> {
  const columns = shape[1]!;
  const values = async (start: number, count: number): Promise<Float32Array> => {
    const bytes = new Uint8Array(count * valueBytes(tensor.dtype));
    await tensor.readInto(start * valueBytes(tensor.dtype), bytes);
    return dequantize(tensor.dtype, bytes);
  };
  if (!source.transposed) return (row) => values(sourceRow(source, row) * columns, columns);
  const outputs = tensor.shape[1]!;
  let all: Promise<Float32Array> | undefined;
  return async (row) => {
    const file = await (all ??= values(0, columns * outputs));
    return Float32Array.from({ length: columns }, (_, c) => file[c * outputs + sourceRow(source, row)]!);
  };
}
