/** Files and folders of Node, and a writer. */
import { randomUUID } from 'node:crypto';
import { rmSync } from 'node:fs';
import { type FileHandle, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { FormatError } from '../../errors.ts';
import { type ByteSource, byteSource, checkFileName, type FileFolder, fileChanged } from '../bytes.ts';
import { encodeGgufHeader, type GgufTensorShape } from '../gguf-encode.ts';
import type { GgufMetadata } from '../gguf-types.ts';
import { refuseImpostor } from '../impostor.ts';
import { encodeSafeTensorsHeader, type TensorShape } from '../safetensors.ts';

/** Most bytes of one system call. */
const CHUNK = 64 * 2 ** 20;

/**
 * Opens a file for reading. Undefined where there is none.
 * @throws FormatError NotAFile, TooManyOpenFiles, NotPermitted; other errors of the system
 */
export async function openFile(path: string): Promise<ByteSource | undefined> {
  const handle = await open(path, 'r').catch((error: NodeJS.ErrnoException) => {
    if (isMissing(error)) return undefined;
    throw openError(path, error);
  });
  if (!handle) return undefined;
  // Files in the archives of Yarn's Plug'n'Play are looked up only here.
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

/** What helps where a file may not be opened. */
export function openError(path: string, error: Error & { readonly code?: string }): Error {
  switch (error.code) {
    case 'EMFILE':
    case 'ENFILE': {
      const remedy = 'raise the limit (ulimit -n) or use fewer threads';
      return new FormatError('TooManyOpenFiles', path, `the process may open no more files (${error.code}): ${remedy}`);
    }
    case 'ERR_ACCESS_DENIED':
      return new FormatError(
        'NotPermitted',
        path,
        "Node's permissions do not allow to read it: start Node with --allow-fs-read for its folder",
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

/** A folder on disk; links in it are followed, as caches of model files are made of links. */
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
 * Writes a SafeTensors file, tensors in the order given, piece by piece: no tensor needs to be in memory. The file
 * appears under its name only when it is whole and on disk. @throws RangeError where data and shape disagree
 */
export async function writeSafeTensors(
  path: string,
  tensors: readonly TensorToWrite[],
  metadata?: Readonly<Record<string, string>>,
): Promise<void> {
  await writeTensors(path, encodeSafeTensorsHeader(tensors, metadata), tensors);
}

/** Writes a GGUF file in the same way. @throws RangeError where data and shape disagree, or a name is too long */
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
    /** Zeros up to where the next tensor begins. */
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

/** Paths of files that are being written and cannot be gone on with later. */
const unfinished = new Set<string>();
let watcher: ((some: boolean) => void) | undefined;

/** Tells whenever there begin or cease to be unfinished files, for programs that remove them when they are ended. */
export function watchUnfinished(watch: (some: boolean) => void): void {
  watcher = watch;
}

/** Removes what is unfinished at once: the process is about to end. */
export function removeUnfinished(): void {
  for (const path of unfinished) rmSync(path, { force: true });
  unfinished.clear();
}

/** Marks a file as unfinished while `work` writes it; the file is removed where that fails. */
export async function whileUnfinished<T>(path: string, work: () => Promise<T>): Promise<T> {
  unfinished.add(path);
  if (unfinished.size === 1) watcher?.(true);
  try {
    return await work();
  } catch (error) {
    await rm(path, { force: true }).catch(() => undefined);
    throw error;
  } finally {
    unfinished.delete(path);
    if (unfinished.size === 0) watcher?.(false);
  }
}

/** Writes a file beside its final name, brings it to disk, then renames it: others see the old file or the new one. */
export async function writeAtomically(path: string, write: (handle: FileHandle) => Promise<void>): Promise<void> {
  const there = await stat(path).catch(() => undefined);
  if (there && !there.isFile() && !there.isDirectory()) {
    // A device or pipe must not be replaced.
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

/** Brings the new name to disk. Windows cannot open folders; there the rename itself has to do. */
async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r').catch(() => undefined);
  try {
    await folder?.sync();
  } catch {
    // Some file systems refuse to sync a folder; the file's own bytes are safe.
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
