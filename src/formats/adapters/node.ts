/** Files and folders of Node, and a writer. */
import { randomUUID } from 'node:crypto';
import { type FileHandle, open, readdir, rename, unlink } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { FormatError } from '../../errors.ts';
import { type ByteSource, byteSource, checkFileName, type FileFolder, fileChanged } from '../bytes.ts';
import { encodeSafeTensorsHeader, type TensorShape } from '../safetensors.ts';

/** Most bytes of one system call. */
const CHUNK = 64 * 2 ** 20;

/** Opens a file for reading. Undefined where there is none. @throws FormatError NotAFile; errors of the system */
export async function openFile(path: string): Promise<ByteSource | undefined> {
  const handle = await open(path, 'r').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return undefined;
    throw error;
  });
  if (!handle) return undefined;
  const status = await handle.stat();
  if (!status.isFile()) {
    await handle.close();
    throw new FormatError('NotAFile', path, 'expected a file, found a folder or device');
  }
  return byteSource(
    path,
    status.size,
    (start, target) => fill(handle, path, start, target),
    () => handle.close(),
  );
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
      return openFile(join(path, name));
    },
  };
}

export interface TensorToWrite extends TensorShape {
  /** The bytes of the tensor, whole or in pieces. */
  readonly data: Uint8Array | Iterable<Uint8Array> | AsyncIterable<Uint8Array>;
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
  const header = encodeSafeTensorsHeader(tensors, metadata);
  await writeAtomically(path, async (handle) => {
    await writeAll(handle, header.bytes);
    for (const [i, { name, data }] of tensors.entries()) {
      const expected = header.tensors[i]!.byteLength;
      let written = 0;
      for await (const piece of data instanceof Uint8Array ? [data] : data) {
        written += piece.length;
        if (written > expected) break;
        await writeAll(handle, piece);
      }
      if (written !== expected) {
        throw new RangeError(`tensor ${JSON.stringify(name)} has ${expected} bytes, its data ${written} or more`);
      }
    }
  });
}

/** Writes a file beside its final name, brings it to disk, then renames it: others see the old file or the new one. */
export async function writeAtomically(path: string, write: (handle: FileHandle) => Promise<void>): Promise<void> {
  const temporary = join(dirname(path), `.${basename(path)}.${randomUUID()}.partial`);
  const handle = await open(temporary, 'wx');
  try {
    try {
      await write(handle);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await unlink(temporary).catch(() => undefined);
    throw error;
  }
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
