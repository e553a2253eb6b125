/** Files that a person gave to a page: `File` and other `Blob`s, read by slices. */
import { type ByteSource, byteSource, checkFileName, type FileFolder, fileChanged } from '../bytes.ts';
import { refuseImpostor } from '../impostor.ts';

/** Most bytes that are in memory twice. */
const CHUNK = 16 * 2 ** 20;

export function blobSource(name: string, blob: Blob): ByteSource {
  return byteSource(name, blob.size, async (start, target) => {
    for (let done = 0; done < target.length; ) {
      const length = Math.min(CHUNK, target.length - done);
      const at = start + done;
      // A file that changed on disk after it was chosen makes this reject.
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
 * A folder made of chosen files (`<input type="file" multiple>`, a drop). Those of a chosen folder (`webkitdirectory`) keep
 * their places below it. Later files of one name win.
 */
export function blobFolder(name: string, files: Iterable<File>): FileFolder {
  const byPath = new Map([...files].map((file) => [placeOf(file), file] as const));
  return folderOf(name, byPath);
}

/** `model/config.json` of a chosen folder is `config.json` in it. */
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

/** A folder that a person opened (`showDirectoryPicker`) or that is the page's own (`navigator.storage.getDirectory`). */
export function handleFolder(handle: FileSystemDirectoryHandle, name = handle.name || 'folder'): FileFolder {
  return lazyFolder(name, async () => handle);
}

/** @param find undefined where there is no such folder */
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

/** A handle, undefined where there is nothing of that name and kind. */
async function orNone<T>(handle: Promise<T> | undefined): Promise<T | undefined> {
  try {
    return await handle;
  } catch (error) {
    if (['NotFoundError', 'TypeMismatchError'].includes((error as Error).name)) return undefined;
    throw error;
  }
}
