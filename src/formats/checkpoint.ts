/** The tensors of a model in one SafeTensors file, or in shards with an index that maps tensors to files. */
import { FormatError } from '../errors.ts';
import type { ByteSource, FileFolder } from './bytes.ts';
import type { GgmlType } from './gguf-types.ts';
import { readJson } from './json.ts';
import type { Dtype, TensorInfo } from './safetensors.ts';
import { readSafeTensorsHeader } from './safetensors.ts';
import { INDEX, type ShardIndex, SINGLE, shardIndex } from './shard-index.ts';

export { readJson, readText } from './json.ts';

/** Type, shape and byte range of a tensor in a SafeTensors or GGUF file. */
export interface TensorPlace extends Omit<TensorInfo, 'dtype'> {
  readonly dtype: Dtype | GgmlType;
}

export interface CheckpointTensor extends TensorPlace {
  /** Name of the file that holds the tensor; `offset` counts from that file's start. */
  readonly file: string;
  /** Fills `target` with the tensor's bytes from `start` on. @throws FormatError OutOfTensor, FileChanged */
  readInto(start: number, target: Uint8Array): Promise<void>;
  /** File descriptor, if other threads can read the tensor's bytes through it, from `offset` on. */
  readonly descriptor?: number;
}

/** The tensors of one model, in one or several files. */
export interface TensorFiles {
  readonly tensors: ReadonlyMap<string, CheckpointTensor>;
  /** File names, sorted. */
  readonly files: readonly string[];
  /** Flaws of the files that do not affect the weights. */
  readonly warnings: readonly string[];
  close(): Promise<void>;
}

export interface Checkpoint extends TensorFiles {
  /** `__metadata__` of all files; the first shard that has a key wins. */
  readonly metadata: ReadonlyMap<string, string>;
}

/**
 * Opens the weights of a folder: `file` (a .safetensors file or an index), else model.safetensors, else
 * model.safetensors.index.json, else the only .safetensors file. Reads headers only.
 * @throws FormatError of readSafeTensorsHeader, and NoCheckpoint, AmbiguousCheckpoint, InvalidIndex, UnsafeFileName,
 * MissingShard, MissingTensor, DuplicateTensor, UnlistedTensor
 */
export async function openCheckpoint(folder: FileFolder, file?: string): Promise<Checkpoint> {
  const name = file ?? (await findCheckpoint(folder));
  const index = name.endsWith('.json') ? await readIndex(folder, name) : undefined;
  const opened = new Map<string, ByteSource>();
  const close = async () => void (await Promise.all([...opened.values()].map((source) => source.dispose())));
  try {
    const tensors = new Map<string, CheckpointTensor>();
    const metadata = new Map<string, string>();
    for (const shard of index?.shards ?? [name]) {
      const source = await folder.open(shard);
      if (!source) throw missingFile(folder, shard, index && name);
      opened.set(shard, source);
      const header = await readSafeTensorsHeader(source);
      for (const info of header.tensors.values()) {
        if (index) checkListed(info.name, shard, { folder, indexFile: name, index, first: tensors.get(info.name) });
        tensors.set(info.name, checkpointTensor(info, shard, source));
      }
      for (const [key, text] of header.metadata) if (!metadata.has(key)) metadata.set(key, text);
    }
    if (index) checkAllFound(index, tensors, `${folder.name}/${name}`);
    return { tensors, metadata, files: [...opened.keys()], warnings: index ? sizeWarnings(index, tensors) : [], close };
  } catch (error) {
    await close();
    throw error;
  }
}

async function findCheckpoint(folder: FileFolder): Promise<string> {
  for (const name of [SINGLE, INDEX]) {
    const source = await folder.open(name);
    if (!source) continue;
    await source.dispose();
    return name;
  }
  const found = (await folder.list()).filter((name) => name.endsWith('.safetensors'));
  if (found.length === 1) return found[0]!;
  if (found.length === 0) {
    throw new FormatError('NoCheckpoint', folder.name, `expected ${SINGLE} or ${INDEX}, found no .safetensors file`);
  }
  const what = `expected ${SINGLE}, ${INDEX} or one .safetensors file, found ${found.slice(0, 10).join(', ')}: name one`;
  throw new FormatError('AmbiguousCheckpoint', folder.name, what);
}

async function readIndex(folder: FileFolder, name: string): Promise<ShardIndex> {
  const json = await readJson(folder, name);
  if (json === undefined) throw missingFile(folder, name);
  return shardIndex(json, `${folder.name}/${name}`);
}

function missingFile(folder: FileFolder, name: string, indexFile?: string): FormatError {
  if (!indexFile) return new FormatError('NoCheckpoint', `${folder.name}/${name}`, 'there is no such file');
  const what = `${indexFile} names this shard but it is missing; download it again`;
  return new FormatError('MissingShard', `${folder.name}/${name}`, what);
}

/** Checks that the index lists a tensor in the shard that holds it, and that no other shard holds it too. */
function checkListed(
  tensor: string,
  shard: string,
  about: { folder: FileFolder; indexFile: string; index: ShardIndex; first: CheckpointTensor | undefined },
): void {
  const { folder, indexFile, index, first } = about;
  const file = `${folder.name}/${shard}`;
  if (first) {
    throw new FormatError('DuplicateTensor', file, `the tensor is also in ${first.file}`, { key: tensor });
  }
  const expected = index.weightMap.get(tensor);
  if (expected === shard) return;
  const says = expected === undefined ? `does not list it` : `says it is in ${expected}`;
  throw new FormatError('UnlistedTensor', file, `the file holds the tensor but ${indexFile} ${says}`, { key: tensor });
}

function checkAllFound(index: ShardIndex, tensors: ReadonlyMap<string, unknown>, file: string): void {
  for (const [tensor, shard] of index.weightMap) {
    if (!tensors.has(tensor)) {
      throw new FormatError('MissingTensor', file, `listed in ${shard}, which does not hold it`, { key: tensor });
    }
  }
}

function sizeWarnings({ totalSize }: ShardIndex, tensors: ReadonlyMap<string, TensorPlace>): string[] {
  const bytes = [...tensors.values()].reduce((sum, tensor) => sum + tensor.byteLength, 0);
  if (totalSize === undefined || totalSize === bytes) return [];
  return [
    `metadata.total_size of the index is ${JSON.stringify(totalSize)?.slice(0, 40)}, the tensors have ${bytes} bytes`,
  ];
}

/** @param file name of the file @param source its bytes */
export function checkpointTensor(info: TensorPlace, file: string, source: ByteSource): CheckpointTensor {
  return {
    ...info,
    file,
    descriptor: source.descriptor,
    async readInto(start, target) {
      checkRange(info, source.name, start, target.length);
      await source.readInto(info.offset + start, target);
    },
  };
}

/** Checks the range of a read. @param file the tensor's file, for the error @throws FormatError OutOfTensor */
export function checkRange(
  { name, byteLength }: Pick<TensorPlace, 'name' | 'byteLength'>,
  file: string,
  start: number,
  length: number,
): void {
  if (Number.isSafeInteger(start) && start >= 0 && start + length <= byteLength) return;
  const what = `expected a range of the tensor's ${byteLength} bytes, found ${start} to ${start + length}`;
  throw new FormatError('OutOfTensor', file, what, { key: name });
}
