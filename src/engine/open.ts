/** Opens the files of a model in either format: config, names and shapes of tensors, and their bytes. */
import type { TensorData } from '../backend/backend.ts';
import { FormatError, ModelError } from '../errors.ts';
import type { FileFolder } from '../formats/bytes.ts';
import { type CheckpointTensor, openCheckpoint, readJson, type TensorFiles } from '../formats/checkpoint.ts';
import { firstPart, isModelGguf, openGguf } from '../formats/gguf.ts';
import type { GgufMetadata } from '../formats/gguf-types.ts';
import { type TensorView, viewTensor } from '../formats/views.ts';
import { STACKED } from '../models/file-tensors.ts';
import { ggufModel, ropeTensors } from '../models/gguf.ts';
import { standardPolicy, tensorsToCompare } from '../models/index.ts';
import type { ModelOrigin, TensorShape } from '../models/weights.ts';
import { weightType } from '../quant/ggml.ts';
import { type BlockStorage, storageLayout } from '../quant/storage.ts';

export { IMPOSTOR_BYTES, impostorOf } from '../formats/impostor.ts';

/** Most rope factors that are read: one per pair of a head. */
const MOST_FACTORS = 4096;
/** Values dequantized per piece. */
const DECODE_VALUES = 2 ** 18;

export interface OpenModel {
  /** config.json, or the equivalent settings of a GGUF file. */
  readonly config: unknown;
  /** By Hugging Face's names. */
  readonly tensors: ReadonlyMap<string, TensorShape>;
  tensor(name: string): TensorData;
  /** Where the rows of a tensor lie in a GGUF file. */
  viewOf?(name: string): TensorView;
  /** Names of the weight files. */
  readonly files: readonly string[];
  /** Names in a GGUF file, for messages. */
  readonly origin?: ModelOrigin;
  /** Metadata of a GGUF file, which may have a vocabulary and a chat template. */
  readonly metadata?: GgufMetadata;
  /** Whether the output head differs from the embedding although config.json ties them. */
  readonly headDiffers?: boolean;
  /** Default storage policy: `none` for encoders, and for GGUF files, whose types were chosen by their authors. */
  readonly defaultPolicy: string;
  close(): Promise<void>;
}

/**
 * @param compared bytes of an output head that are compared with a tied embedding, at most; default: all
 * @throws FormatError, ModelError; nothing stays open then
 */
export async function openModel(folder: FileFolder, file?: string, compared?: number): Promise<OpenModel> {
  const gguf = file?.endsWith('.gguf') ? firstPart(file) : file === undefined ? await findGguf(folder) : undefined;
  if (gguf !== undefined) return openGgufModel(folder, gguf);
  const config = await readJson(folder, 'config.json');
  if (config === undefined) {
    const place = file === undefined ? folder.name : `${folder.name}/${file}`;
    throw new ModelError('NoConfig', `${place}: expected a config.json beside the weights, found none`);
  }
  const checkpoint = await openCheckpoint(folder, file);
  let headDiffers: boolean;
  let defaultPolicy: string;
  try {
    headDiffers = await comparesHead(config, checkpoint, compared);
    defaultPolicy = standardPolicy(config);
  } catch (error) {
    await checkpoint.close();
    throw error;
  }
  return {
    config,
    tensors: checkpoint.tensors,
    headDiffers,
    tensor(name) {
      const [whole, part] = name.split(STACKED) as [string, string?];
      const tensor = checkpoint.tensors.get(whole)!;
      const own = part === undefined ? tensor : stackedPart(tensor, Number(part));
      return { ...tensorData(own), place: `${tensor.file}: ${whole}` };
    },
    files: checkpoint.files,
    defaultPolicy,
    close: () => checkpoint.close(),
  };
}

/** A matrix of a tensor [stack, in, out]. */
function stackedPart(tensor: CheckpointTensor, index: number): CheckpointTensor {
  const shape = tensor.shape.slice(1);
  return viewTensor(tensor.name, tensor, { source: tensor.name, shape, firstRow: index * shape[0]! });
}

/** Whether the output head differs from an embedding that config.json ties to it. @throws ModelError of readModel */
export async function comparesHead(
  config: unknown,
  { tensors }: TensorFiles,
  most = Number.POSITIVE_INFINITY,
): Promise<boolean> {
  const pair = tensorsToCompare(config, tensors);
  if (pair === undefined) return false;
  return !(await sameBytes(tensors.get(pair.embedding)!, tensors.get(pair.head)!, most));
}

/** Bytes compared per piece. */
const COMPARE_BYTES = 2 ** 20;

async function sameBytes(a: CheckpointTensor, b: CheckpointTensor, most: number): Promise<boolean> {
  if (a.dtype !== b.dtype || a.byteLength !== b.byteLength || a.shape.join() !== b.shape.join()) return false;
  const end = Math.min(most, a.byteLength);
  const size = Math.min(COMPARE_BYTES, end);
  const [left, right] = [new Uint8Array(size), new Uint8Array(size)];
  for (let at = 0; at < end; at += size) {
    const length = Math.min(size, end - at);
    await Promise.all([a.readInto(at, left.subarray(0, length)), b.readInto(at, right.subarray(0, length))]);
    for (let i = 0; i < length; i++) if (left[i] !== right[i]) return false;
  }
  return true;
}

/** The GGUF file of a folder; undefined if the folder has SafeTensors weights with a config.json. */
export async function findGguf(folder: FileFolder): Promise<string | undefined> {
  const names = await folder.list();
  if (names.includes('config.json') && names.some((name) => name.endsWith('.safetensors'))) return undefined;
  const found = [...new Set(names.filter(isModelGguf).map(firstPart))];
  // A single mmproj file is opened, so that the error says what it is.
  const others = names.filter((name) => name.endsWith('.gguf'));
  if (found.length === 0 && !names.includes('config.json')) return others[0];
  if (found.length < 2) return found[0];
  const what = `expected one model, found ${found.slice(0, 10).join(', ')}: name one`;
  throw new FormatError('AmbiguousCheckpoint', folder.name, what);
}

async function openGgufModel(folder: FileFolder, file: string): Promise<OpenModel> {
  const checkpoint = await openGguf(folder, file);
  try {
    const { metadata, tensors } = checkpoint;
    const name = `${folder.name}/${file}`;
    const beside = (await folder.list()).filter((other) => isModelGguf(other) && !checkpoint.files.includes(other));
    const model = ggufModel({ name, metadata, tensors, ropeFactors: await readFactors(checkpoint), beside });
    return {
      config: model.config,
      tensors: model.tensors,
      tensor(key) {
        const { view } = model.tensors.get(key)!;
        const tensor = tensors.get(view.source)!;
        return { ...tensorData(viewTensor(key, tensor, view)), place: `${tensor.file}: ${view.source}` };
      },
      viewOf: (key) => model.tensors.get(key)!.view,
      files: checkpoint.files,
      origin: model.origin,
      metadata,
      defaultPolicy: 'none',
      close: () => checkpoint.close(),
    };
  } catch (error) {
    await checkpoint.close();
    throw error;
  }
}

export async function readFactors({ tensors }: TensorFiles): Promise<Map<string, Float32Array>> {
  const factors = new Map<string, Float32Array>();
  for (const name of ropeTensors) {
    const tensor = tensors.get(name);
    if (!tensor) continue;
    const { dtype, shape, byteLength } = tensor;
    if (dtype !== 'F32' || shape.length !== 1 || byteLength > 4 * MOST_FACTORS) {
      const what = `expected at most ${MOST_FACTORS} rope factors as F32, found ${dtype} [${shape.join(', ')}]`;
      throw new FormatError('TensorInvalidInfo', tensor.file, what, { key: name });
    }
    const values = new Float32Array(byteLength / 4);
    await tensor.readInto(0, new Uint8Array(values.buffer));
    factors.set(name, values);
  }
  return factors;
}

/** A tensor for a backend: float types unchanged, block types dequantized to f32 or, for kernels, as blocks. */
export function tensorData(tensor: CheckpointTensor): TensorData {
  const name = tensor.dtype.toLowerCase();
  const { descriptor, offset } = tensor;
  const inFile = descriptor === undefined ? undefined : { descriptor, offset };
  if (name === 'f32' || name === 'f16' || name === 'bf16') return { ...tensor, dtype: name, inFile };
  // The weights manifest has refused all other types.
  const { block, bytes, dequantize } = weightType(name)!;
  const storage = Object.hasOwn(storageLayout, name) ? (name as BlockStorage) : undefined;
  const step = DECODE_VALUES / block;
  return {
    dtype: 'f32',
    shape: tensor.shape,
    byteLength: (tensor.byteLength / bytes) * block * 4,
    blocks: storage && { storage, inFile, readInto: (start, target) => tensor.readInto(start, target) },
    async readInto(start, target) {
      const blockBytes = block * 4;
      const last = Math.ceil((start + target.length) / blockBytes);
      const buffer = new Uint8Array(Math.min(step, last - Math.floor(start / blockBytes)) * bytes);
      for (let first = Math.floor(start / blockBytes); first < last; first += step) {
        const blocks = buffer.subarray(0, Math.min(step, last - first) * bytes);
        await tensor.readInto(first * bytes, blocks);
        const values = new Uint8Array(dequantize(blocks).buffer);
        const skipped = Math.max(0, start - first * blockBytes);
        const at = first * blockBytes + skipped - start;
        target.set(values.subarray(skipped, skipped + target.length - at), at);
      }
    },
  };
}
