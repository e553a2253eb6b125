/**
 * Opens GGUF models: one file, or parts NAME-00001-of-00003.gguf of which the first has the metadata. Versions 2 and 3,
 * little-endian. Source: docs/gguf.md of ggml.
 */
import { FormatError } from '../errors.ts';
import type { ByteSource, FileFolder } from './bytes.ts';
import { type CheckpointTensor, checkpointTensor, type TensorFiles } from './checkpoint.ts';
import { type GgufHeader, readGgufHeader } from './gguf-header.ts';
import type { GgufMetadata } from './gguf-types.ts';

export interface GgufCheckpoint extends TensorFiles {
  /** Metadata of the first file. */
  readonly metadata: GgufMetadata;
}

const PART = /^(.*)-(\d{5})-of-(\d{5})\.gguf$/s;
const MOST_PARTS = 65_535;

/**
 * Opens a GGUF file, and the other parts if it is one of several. Reads headers only.
 * @throws FormatError of readGgufHeader, and NoCheckpoint, MissingShard, InvalidSplit, DuplicateTensor
 */
export async function openGguf(folder: FileFolder, file: string): Promise<GgufCheckpoint> {
  const opened: ByteSource[] = [];
  const close = async () => void (await Promise.all(opened.map((source) => source.dispose())));
  try {
    const names = partNames(file, folder.name);
    const tensors = new Map<string, CheckpointTensor>();
    let metadata: GgufMetadata = new Map();
    for (const [index, name] of names.entries()) {
      const source = await folder.open(name);
      if (!source) throw missingPart(folder, name, names.length);
      opened.push(source);
      const header = await readGgufHeader(source);
      checkSplit(header, source.name, index, names.length);
      if (index === 0) metadata = header.metadata;
      for (const info of header.tensors.values()) {
        const first = tensors.get(info.name);
        if (first) {
          throw new FormatError('DuplicateTensor', source.name, `the tensor is also in ${first.file}`, {
            key: info.name,
          });
        }
        tensors.set(info.name, checkpointTensor(info, name, source));
      }
    }
    checkCount(metadata, tensors.size, opened[0]!.name);
    return { tensors, metadata, files: names, warnings: [], close };
  } catch (error) {
    await close();
    throw error;
  }
}

/**
 * Whether a path names a model's weights: a .gguf file that is not an image projector (mmproj) or an importance matrix
 * (imatrix).
 */
export function isModelGguf(path: string): boolean {
  const name = path.slice(path.lastIndexOf('/') + 1).toLowerCase();
  return (
    name.endsWith('.gguf') &&
    !/(?:^|[-_.])mmproj(?:[-_.]|$)/.test(name) &&
    !/(?:^|[-_.])imatrix(?:\.dat)?\.gguf$/.test(name)
  );
}

/** Name of the first part of the model that the file belongs to; the name itself for a model in one file. */
export function firstPart(name: string): string {
  return name.replace(PART, '$1-00001-of-$3.gguf');
}

/**
 * Names of all parts of the model that file `name` belongs to.
 * @param place for messages
 * @throws FormatError InvalidSplit
 */
export function partNames(name: string, place = ''): string[] {
  const [, stem, , total] = PART.exec(name) ?? [];
  if (stem === undefined || total === undefined) return [name];
  const count = Number(total);
  if (count < 1 || count > MOST_PARTS) {
    const what = `expected 1 to ${MOST_PARTS} parts, the name says ${count}`;
    throw new FormatError('InvalidSplit', `${place}/${name}`, what);
  }
  return Array.from({ length: count }, (_, i) => `${stem}-${String(i + 1).padStart(5, '0')}-of-${total}.gguf`);
}

function missingPart(folder: FileFolder, name: string, parts: number): FormatError {
  if (parts === 1) return new FormatError('NoCheckpoint', `${folder.name}/${name}`, 'there is no such file');
  const what = `the model has ${parts} parts and this one is missing; download it again`;
  return new FormatError('MissingShard', `${folder.name}/${name}`, what);
}

/**
 * Checks that a part's metadata has the index and count of its name. A file that is not split has none, or a count of 0
 * if it was joined from parts.
 */
function checkSplit({ metadata }: GgufHeader, file: string, index: number, parts: number): void {
  const whole = parts === 1 ? [undefined, 0] : [];
  for (const [key, expected] of [
    ['split.no', index],
    ['split.count', parts],
  ] as const) {
    const found = metadata.get(key)?.value;
    if (found === expected || whole.some((other) => found === other)) continue;
    const what = `expected ${expected}, as the file's name says, found ${found ?? 'nothing'}: a part of another model?`;
    throw new FormatError('InvalidSplit', file, what, { key });
  }
}

function checkCount(metadata: GgufMetadata, found: number, file: string): void {
  const key = 'split.tensors.count';
  const expected = metadata.get(key)?.value;
  if (expected === undefined || expected === found) return;
  throw new FormatError('InvalidSplit', file, `expected ${expected} tensors in all parts, found ${found}`, { key });
}
