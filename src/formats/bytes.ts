/** Where bytes come from: ranges of one file, files of one folder. Adapters give these for Node, HTTP and blobs. */
import { FormatError } from '../errors.ts';

/** A file of known length whose ranges can be read. Lengths and positions are bytes, at most 2^53 - 1. */
export interface ByteSource {
  /** For messages: a path, an address, a file name. */
  readonly name: string;
  readonly byteLength: number;
  /** Bytes [start, end) in memory of their own. @throws FormatError OutOfFile, FileChanged */
  read(start: number, end: number): Promise<Uint8Array<ArrayBuffer>>;
  /**
   * Fills `target`, which may lie in shared or WebAssembly memory, from `start` on. @throws FormatError OutOfFile,
   * FileChanged
   */
  readInto(start: number, target: Uint8Array): Promise<void>;
  /** The system's number of the open file, where other threads of the process can read it by that. */
  readonly descriptor?: number;
  close(): Promise<void>;
}

/** The files of one model: plain names, in folders of their own where somebody put them there. */
export interface FileFolder {
  /** For messages. */
  readonly name: string;
  /** Names of the files inside, sorted. Empty where the place cannot list (HTTP). */
  list(): Promise<string[]>;
  /** Undefined where there is no such file. @throws FormatError UnsafeFileName */
  open(name: string): Promise<ByteSource | undefined>;
  /** A folder inside; it has no files where there is none. @throws FormatError UnsafeFileName */
  folder(name: string): FileFolder;
}

/**
 * Makes a source out of a way to fill memory. `fill` is only asked for ranges inside the file and fills all of `target`
 * or throws; `read` allocates only after its range is known to exist.
 */
export function byteSource(
  name: string,
  byteLength: number,
  fill: (start: number, target: Uint8Array) => Promise<void>,
  close: () => Promise<void> = async () => {},
  descriptor?: number,
): ByteSource {
  const check = (start: number, end: number): void => {
    if (
      !(Number.isSafeInteger(start) && Number.isSafeInteger(end) && start >= 0 && start <= end && end <= byteLength)
    ) {
      throw new FormatError('OutOfFile', name, `bytes ${start} to ${end} asked for, the file has ${byteLength}`);
    }
  };
  return {
    name,
    byteLength,
    async read(start, end) {
      check(start, end);
      const bytes = new Uint8Array(end - start);
      await fill(start, bytes);
      return bytes;
    },
    async readInto(start, target) {
      check(start, start + target.length);
      await fill(start, target);
    },
    descriptor,
    close,
  };
}

/** Bytes that are in memory already. */
export function memorySource(name: string, bytes: Uint8Array): ByteSource {
  return byteSource(name, bytes.length, async (start, target) => {
    target.set(bytes.subarray(start, start + target.length));
  });
}

/** Files that are in memory already, by their paths. */
export function memoryFolder(name: string, files: ReadonlyMap<string, Uint8Array>): FileFolder {
  return {
    name,
    list: async () => [...files.keys()].filter(isPlainFileName).sort(),
    open: async (file) => {
      checkFileName(name, file);
      const bytes = files.get(file);
      return bytes && memorySource(`${name}/${file}`, bytes);
    },
    folder(inner) {
      checkFileName(name, inner);
      const inside = [...files].filter(([path]) => path.startsWith(`${inner}/`));
      return memoryFolder(
        `${name}/${inner}`,
        new Map(inside.map(([path, bytes]) => [path.slice(inner.length + 1), bytes])),
      );
    },
  };
}

/** The error of a source that gave fewer bytes than its length promised. */
export function fileChanged(name: string, offset: number): FormatError {
  return new FormatError('FileChanged', name, 'the file became shorter or other while it was read; load it again', {
    offset,
  });
}

/** Whether `name` is one file name, with no way out of its folder by the rules of POSIX and of Windows. */
export function isPlainFileName(name: string): boolean {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
  return name.length > 0 && name.length <= 255 && !/[/\\:\u0000-\u001f]/.test(name) && name !== '.' && name !== '..';
}

/** @throws FormatError UnsafeFileName */
export function checkFileName(folder: string, name: string): void {
  if (isPlainFileName(name)) return;
  throw new FormatError('UnsafeFileName', folder, 'expected a plain file name without path parts', { key: name });
}
