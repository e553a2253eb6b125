/** Files that a user chose in a page (`File` and other `Blob`s), read in slices. */
import { type ByteSource, byteSource, checkFileName, type FileFolder, fileChanged } from '../bytes.ts';
import { refuseImpostor } from '../impostor.ts';

/** Bytes per slice: a slice is in memory twice while it is copied to its target. */
const CHUNK = 16 * 2 ** 20;

export function blobSource(name: string, blob: Blob): ByteSource {
  return byteSource(name, blob.size, async (start, target) => {
    for (let done = 0; done < target.length; ) {
      const length = Math.min(CHUNK, target.length - done);
      const at = start + done;
      // Rejects if the file changed on disk after it was chosen.
      const piece = await blob
        .slice(at, at + length)
        .arrayBuffer()
        .catch(() => undefined);
      if (piece?.byteLength !== length) throw fileChanged(name, at);
      target.set(new Uint8Array(piece), done);
      done += length;
    }
  });
}

/**
 * A folder made of chosen files (`<input type="file" multiple>` or a drop). Files of a chosen folder (`webkitdirectory`)
 * keep their paths relative to it. Of files with equal paths the last one wins.
 */
export function blobFolder(name: string, files: Iterable<File>): FileFolder {
  const byPath = new Map([...files].map((file) => [placeOf(file), file] as const));
  return folderOf(name, byPath);
}

/** Path relative to the chosen folder: `model/config.json` becomes `config.json`. */
const placeOf = ({ webkitRelativePath, name }: File): string =>
  webkitRelativePath ? webkitRelativePath.slice(webkitRelativePath.indexOf('/') + 1) : name;

function folderOf(name: string, files: ReadonlyMap<string, File>): FileFolder {
  return {
    name,
    list: async () => [...files.keys()].filter((path) => !path.includes('/')).sort(),
    async open(file) {
      checkFileName(name, file);
      const blob = files.get(file);
      return blob && refuseImpostor(blobSource(`${name}/${file}`, blob));
    },
    folder(inner) {
      checkFileName(name, inner);
      const inside = [...files].filter(([path]) => path.startsWith(`${inner}/`));
      return folderOf(`${name}/${inner}`, new Map(inside.map(([path, file]) => [path.slice(inner.length + 1), file])));
    },
  };
}

/** A folder that the user opened (`showDirectoryPicker`) or the page's private one (`navigator.storage.getDirectory`). */
export function handleFolder(handle: FileSystemDirectoryHandle, name = handle.name || 'folder'): FileFolder {
  return lazyFolder(name, async () => handle);
}

/** @param find resolves to undefined if there is no such folder */
function lazyFolder(name: string, find: () => Promise<FileSystemDirectoryHandle | undefined>): FileFolder {
  return {
    name,
    async list() {
      const names: string[] = [];
      for await (const entry of (await find())?.values() ?? []) if (entry.kind === 'file') names.push(entry.name);
      return names.sort();
    },
    async open(file) {
      checkFileName(name, file);
      const found = await orNone((await find())?.getFileHandle(file));
      return found && refuseImpostor(blobSource(`${name}/${file}`, await found.getFile()));
    },
    folder(inner) {
      checkFileName(name, inner);
      return lazyFolder(`${name}/${inner}`, async () => orNone((await find())?.getDirectoryHandle(inner)));
    },
  };
}

/** The handle, or undefined if nothing of that name and kind exists. */
async function orNone<T>(handle: Promise<T> | undefined): Promise<T | undefined> {
  try {
    return await handle;
  } catch (error) {
    if (['NotFoundError', 'TypeMismatchError'].includes((error as Error).name)) return undefined;
    throw error;
  }
}
