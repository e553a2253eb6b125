/** Interfaces for reading bytes: ranges of a file, files of a folder. Adapters implement them for Node, HTTP and blobs. */
import { FormatError } from '../errors.ts';

/** A file of known length, read by ranges. Lengths and positions are bytes, at most 2^53 - 1. */
export interface ByteSource extends AsyncDisposable {
  /** Shown in messages: a path, an address or a file name. */
  readonly name: string;
  readonly byteLength: number;
  /** Bytes [start, end), in newly allocated memory. @throws FormatError OutOfFile, FileChanged */
  read(start: number, end: number): Promise<Uint8Array<ArrayBuffer>>;
  /**
   * Fills `target` with the bytes from `start` on. `target` may lie in shared or WebAssembly memory.
   * @throws FormatError OutOfFile, FileChanged
   */
  readInto(start: number, target: Uint8Array): Promise<void>;
  /** File descriptor, if other threads of the process can read the open file through it. */
  readonly descriptor?: number;
  /** Closes the file. */
  dispose(): Promise<void>;
}

/** Files that a program names, where there are any. */
export interface NamedFiles {
  /** Undefined where there is no such file. */
  open(path: string): Promise<ByteSource | undefined>;
  /** Writes a file piece by piece; it appears under its name when it is whole and on disk. */
  write<T>(path: string, work: (append: (bytes: Uint8Array) => Promise<void>) => Promise<T>): Promise<T>;
}

/** The files of one model. `list` and `open` take plain file names; files in subfolders are reached through `folder`. */
export interface FileFolder {
  /** Shown in messages. */
  readonly name: string;
  /** Names of the files inside, sorted. Empty if they cannot be listed (HTTP). */
  list(): Promise<string[]>;
  /** Undefined if there is no such file. @throws FormatError UnsafeFileName */
  open(name: string): Promise<ByteSource | undefined>;
  /** A subfolder, without files if it does not exist. @throws FormatError UnsafeFileName */
  folder(name: string): FileFolder;
}

/**
 * Makes a source from `fill`, which is called only with ranges inside the file and must fill all of `target` or throw.
 * `read` checks its range before it allocates.
 */
export function byteSource(
  name: string,
  byteLength: number,
  fill: (start: number, target: Uint8Array) => Promise<void>,
  dispose: () => Promise<void> = async () => {},
  descriptor?: number,
): ByteSource {
  const check = (start: number, end: number): void => {
    if (
      !(Number.isSafeInteger(start) && Number.isSafeInteger(end) && start >= 0 && start <= end && end <= byteLength)
    ) {
      throw new FormatError(
        'OutOfFile',
        name,
        `expected a range of the file's ${byteLength} bytes, found ${start} to ${end}`,
      );
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
    dispose,
    [Symbol.asyncDispose]: dispose,
  };
}

/** A source over bytes in memory. */
export function memorySource(name: string, bytes: Uint8Array): ByteSource {
  return byteSource(name, bytes.length, async (start, target) => {
    target.set(bytes.subarray(start, start + target.length));
  });
}

/** A folder of files in memory, by path. */
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

/** The error for a source that delivers fewer bytes than its length says. */
export function fileChanged(name: string, offset: number): FormatError {
  return new FormatError('FileChanged', name, 'the file changed while it was read; load it again', {
    offset,
  });
}

/** Whether `name` is a single file name that cannot leave its folder, by the rules of POSIX and Windows. */
export function isPlainFileName(name: string): boolean {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: the pattern looks for control characters
  return name.length > 0 && name.length <= 255 && !/[/\\:\u0000-\u001f]/.test(name) && name !== '.' && name !== '..';
}

/** @throws FormatError UnsafeFileName */
export function checkFileName(folder: string, name: string): void {
  if (isPlainFileName(name)) return;
  throw new FormatError('UnsafeFileName', folder, 'expected a plain file name without path parts', { key: name });
}
