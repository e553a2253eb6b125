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

/** A folder made of chosen files (`<input type="file" multiple>`, a drop), one level. Later files of one name win. */
export function blobFolder(name: string, files: Iterable<File>): FileFolder {
  const byName = new Map([...files].map((file) => [file.name, file]));
  return {
    name,
    list: async () => [...byName.keys()].sort(),
    async open(file) {
      checkFileName(name, file);
      const blob = byName.get(file);
      return blob && refuseImpostor(blobSource(`${name}/${file}`, blob));
    },
    folder: (inner) => blobFolder(`${name}/${inner}`, []),
  };
}
