/** Reads files and folders with Node, and writes model files. */
import { randomUUID } from 'node:crypto';
import { rmSync } from 'node:fs';
import { type FileHandle, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { FormatError } from '../../errors.ts';
import { type ByteSource, byteSource, checkFileName, type FileFolder, fileChanged, type NamedFiles } from '../bytes.ts';
import { encodeGgufHeader, type GgufTensorShape } from '../gguf-encode.ts';
import type { GgufMetadata } from '../gguf-types.ts';
import { refuseImpostor } from '../impostor.ts';
import { encodeSafeTensorsHeader, type TensorShape } from '../safetensors.ts';

/** Most bytes per system call. */
const CHUNK = 64 * 2 ** 20;

/**
 * Opens a file for reading. Undefined if there is none.
 * @throws FormatError NotAFile, TooManyOpenFiles, NotPermitted; other system errors as Node throws them
 */
export async function openFile(path: string): Promise<ByteSource | undefined> {
  const handle = await open(path, 'r').catch((error: NodeJS.ErrnoException) => {
    if (isMissing(error)) return undefined;
    throw openError(path, error);
  });
  if (!handle) return undefined;
  // Yarn's Plug'n'Play looks up files inside archives only in stat.
  const status = await handle.stat().catch(async (error: NodeJS.ErrnoException) => {
    await handle.close();
    if (isMissing(error)) return undefined;
    throw error;
  });
  if (!status) return undefined;
  if (!status.isFile()) {
    await handle.close();
    throw new FormatError('NotAFile', path, 'expected a file, found a folder or device');
  }
  return byteSource(
    path,
    status.size,
    (start, target) => fill(handle, path, start, target),
    () => handle.close(),
    handle.fd,
  );
}

const isMissing = ({ code }: NodeJS.ErrnoException): boolean => code === 'ENOENT' || code === 'ENOTDIR';

/** A FormatError with a remedy for the known causes of a failed open, else the error itself. */
export function openError(path: string, error: Error & { readonly code?: string }): Error {
  switch (error.code) {
    case 'EMFILE':
    case 'ENFILE': {
      const remedy = 'raise the limit (ulimit -n) or use fewer threads';
      return new FormatError(
        'TooManyOpenFiles',
        path,
        `the process has too many open files (${error.code}): ${remedy}`,
      );
    }
    case 'ERR_ACCESS_DENIED':
      return new FormatError(
        'NotPermitted',
        path,
        "Node's permission model forbids reading it: start Node with --allow-fs-read for its folder",
      );
    default:
      return error;
  }
}

async function fill(handle: FileHandle, path: string, start: number, target: Uint8Array): Promise<void> {
  for (let done = 0; done < target.length; ) {
    const { bytesRead } = await handle.read(target, done, Math.min(CHUNK, target.length - done), start + done);
    if (bytesRead === 0) throw fileChanged(path, start + done);
    done += bytesRead;
  }
}

export const nodeFiles: NamedFiles = {
  open: openFile,
  async write(path, work) {
    const results: Awaited<ReturnType<typeof work>>[] = [];
    await writeAtomically(path, async (handle) => {
      results.push(await work((bytes) => writeAll(handle, bytes)));
    });
    return results[0]!;
  },
};

/** A folder on disk. Links in it are followed, because the hub's cache consists of links. */
export function nodeFolder(path: string): FileFolder {
  return {
    name: path,
    async list() {
      const entries = await readdir(path, { withFileTypes: true });
      return entries
        .filter((entry) => entry.isFile() || entry.isSymbolicLink())
        .map((entry) => entry.name)
        .sort();
    },
    async open(name) {
      checkFileName(path, name);
      const source = await openFile(join(path, name));
      return source && refuseImpostor(source);
    },
    folder(name) {
      checkFileName(path, name);
      return nodeFolder(join(path, name));
    },
  };
}

/** The bytes of a tensor, whole or in pieces. */
export type TensorBytes = Uint8Array | Iterable<Uint8Array> | AsyncIterable<Uint8Array>;

export interface TensorToWrite extends TensorShape {
  readonly data: TensorBytes;
}

export interface GgufTensorToWrite extends GgufTensorShape {
  readonly data: TensorBytes;
}

/**
 * Writes a SafeTensors file, tensors in the given order, piece by piece: no tensor has to be in memory whole. The file
 * gets its name only when it is complete and synced. @throws RangeError if data and shape disagree
 */
export async function writeSafeTensors(
  path: string,
  tensors: readonly TensorToWrite[],
  metadata?: Readonly<Record<string, string>>,
): Promise<void> {
  await writeTensors(path, encodeSafeTensorsHeader(tensors, metadata), tensors);
}

/** Writes bytes of a tensor, from byte `start` of it on. */
export type WritePart = (name: string, start: number, bytes: Uint8Array) => Promise<void>;

/**
 * Writes a SafeTensors file whose tensors become known in parts, in any order; bytes that `fill` does not write are zeros. The
 * file gets its name only when it is complete and synced. @throws RangeError for bytes outside of their tensor
 */
export async function writeSafeTensorsParts(
  path: string,
  tensors: readonly TensorShape[],
  fill: (write: WritePart) => Promise<void>,
): Promise<void> {
  const header = encodeSafeTensorsHeader(tensors);
  const places = new Map(header.tensors.map((tensor) => [tensor.name, tensor]));
  await writeAtomically(path, async (handle) => {
    await writeAll(handle, header.bytes);
    await handle.truncate(header.fileBytes);
    await fill(async (name, start, bytes) => {
      const { offset, byteLength } = places.get(name)!;
      if (start + bytes.length > byteLength)
        throw new RangeError(`${name} has ${byteLength} bytes, not ${start + bytes.length}`);
      for (let done = 0; done < bytes.length; )
        done += (await handle.write(bytes, done, bytes.length - done, offset + start + done)).bytesWritten;
    });
  });
}

/** Writes a GGUF file in the same way. @throws RangeError if data and shape disagree, or a name is too long */
export async function writeGguf(
  path: string,
  tensors: readonly GgufTensorToWrite[],
  metadata: GgufMetadata,
): Promise<void> {
  await writeTensors(path, encodeGgufHeader(tensors, metadata), tensors);
}

interface EncodedHeader {
  readonly bytes: Uint8Array;
  readonly tensors: readonly { readonly offset: number; readonly byteLength: number }[];
  readonly fileBytes: number;
}

async function writeTensors(
  path: string,
  header: EncodedHeader,
  tensors: readonly { readonly name: string; readonly data: TensorBytes }[],
): Promise<void> {
  await writeAtomically(path, async (handle) => {
    await writeAll(handle, header.bytes);
    let position = header.bytes.length;
    /** Writes zeros up to file position `to`. */
    const pad = async (to: number): Promise<void> => {
      if (to > position) await writeAll(handle, new Uint8Array(to - position));
      position = to;
    };
    for (const [i, { name, data }] of tensors.entries()) {
      const { offset, byteLength } = header.tensors[i]!;
      await pad(offset);
      let written = 0;
      for await (const piece of data instanceof Uint8Array ? [data] : data) {
        written += piece.length;
        if (written > byteLength) break;
        await writeAll(handle, piece);
      }
      if (written !== byteLength) {
        throw new RangeError(`tensor ${JSON.stringify(name)} has ${byteLength} bytes, its data ${written} or more`);
      }
      position += written;
    }
    await pad(header.fileBytes);
  });
}

/** Files being written that cannot be resumed later, and what becomes of each if the process ends. */
const unfinished = new Map<string, () => void>();
let watcher: ((some: boolean) => void) | undefined;

/** Sets a callback for when the first unfinished file appears (true) and the last one is gone (false). */
export function watchUnfinished(watch: (some: boolean) => void): void {
  watcher = watch;
}

/**
 * Removes unfinished files synchronously, for use before the process exits. Files that are valid without their rest, such as
 * traces, are completed.
 */
export function removeUnfinished(): void {
  for (const settle of [...unfinished.values()]) settle();
  unfinished.clear();
}

/** Marks a file as unfinished. @param settle removes or completes it, synchronously @returns a function that unmarks it */
export function markUnfinished(path: string, settle: () => void): () => void {
  unfinished.set(path, settle);
  if (unfinished.size === 1) watcher?.(true);
  return () => {
    if (unfinished.delete(path) && unfinished.size === 0) watcher?.(false);
  };
}

/** Marks a file as unfinished while `work` writes it, and removes it if that fails. */
export async function whileUnfinished<T>(path: string, work: () => Promise<T>): Promise<T> {
  const unmark = markUnfinished(path, () => rmSync(path, { force: true }));
  try {
    return await work();
  } catch (error) {
    await rm(path, { force: true }).catch(() => undefined);
    throw error;
  } finally {
    unmark();
  }
}

/** Writes a file under a temporary name, syncs it, then renames it: readers see the old file or the new one. */
export async function writeAtomically(path: string, write: (handle: FileHandle) => Promise<void>): Promise<void> {
  const there = await stat(path).catch(() => undefined);
  if (there && !there.isFile() && !there.isDirectory()) {
    // A device or pipe is written in place, not replaced.
    const handle = await open(path, 'w');
    return write(handle).finally(() => handle.close());
  }
  const temporary = join(dirname(path), `.${basename(path)}.${randomUUID()}.partial`);
  await whileUnfinished(temporary, async () => {
    const handle = await open(temporary, 'wx');
    try {
      await write(handle);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, path);
  });
  await syncFolder(dirname(path));
}

/** Syncs the folder, so that the new name is on disk. Skipped on Windows, which cannot open folders. */
async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r').catch(() => undefined);
  try {
    await folder?.sync();
  } catch {
    // Some file systems refuse to sync a folder; the file's bytes are synced already.
  } finally {
    await folder?.close();
  }
}

async function writeAll(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await handle.write(bytes, done, Math.min(CHUNK, bytes.length - done));
    done += bytesWritten;
  }
}
