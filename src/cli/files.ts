/** Reading and checking of files named on the command line. */
import { isUtf8 } from 'node:buffer';
import { access, constants, open, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { IMPOSTOR_BYTES, impostorOf } from '../engine/open.ts';
import { writeAtomically } from '../node.ts';
import { UsageError } from './terminal.ts';

/**
 * Checks before the work begins that its result can be written.
 * @param name option and path of the file, for errors
 */
export async function checkWritable(name: string, path: string): Promise<void> {
  try {
    // The folder must be writable: files are written there under a temporary name first.
    await access(`${dirname(path)}/.`, constants.W_OK | constants.X_OK);
  } catch (error) {
    throw unwritable(name, error);
  }
  const there = await stat(path).catch(() => undefined);
  if (there?.isDirectory()) throw new UsageError(`${name} cannot be written: it is a folder`);
}

export const unwritable = (name: string, error: unknown): UsageError =>
  new UsageError(`${name} cannot be written: ${(error as NodeJS.ErrnoException).code}`);

/** Writes a report, under a temporary name first. */
export const writeText = (file: string, text: string): Promise<void> =>
  writeAtomically(file, async (handle) => handle.writeFile(text));

/** A file, or standard input. */
interface Source {
  /** Named in errors. */
  readonly name: string;
  readonly bytes: AsyncIterable<Uint8Array>;
}

/** @param option the option that names the file @throws UsageError if it cannot be opened */
async function openSource(option: string, file: string | undefined): Promise<Source> {
  if (file === undefined) return { name: 'standard input', bytes: process.stdin };
  const name = `${option} ${file}`;
  const unreadable = (error: NodeJS.ErrnoException): never => {
    throw new UsageError(`${name} cannot be read: ${error.code}`);
  };
  const handle = await open(file).catch(unreadable);
  if ((await handle.stat()).isDirectory()) {
    await handle.close();
    throw new UsageError(`${name} cannot be read: it is a folder`);
  }
  return { name, bytes: handle.createReadStream() };
}

/** Options whose files may have any content, even HTML pages. */
const ownText = ['--prompt', '--text', '--file'];

/** The whole text of a file or of standard input, without a byte order mark. @throws UsageError */
export async function readText(option: string, file: string | undefined): Promise<string> {
  const { name, bytes } = await openSource(option, file);
  const pieces: Uint8Array[] = [];
  for await (const piece of bytes) pieces.push(piece);
  const other = ownText.includes(option) ? undefined : impostorOf(Buffer.concat(pieces).subarray(0, IMPOSTOR_BYTES));
  if (other) throw new UsageError(`${name}: expected the file itself, found ${other.what}; ${other.remedy}`);
  return textOf(pieces, name, 0);
}

/** Opens a file or standard input and reads it line by line. @throws UsageError */
export async function openLines(option: string, file: string | undefined): Promise<AsyncGenerator<string>> {
  return linesOf(await openSource(option, file));
}

/** Splits at line feeds only: JSON strings may contain other Unicode line separators. */
async function* linesOf({ name, bytes }: Source): AsyncGenerator<string> {
  let rest: Uint8Array[] = [];
  let offset = 0;
  for await (const chunk of bytes) {
    let begin = 0;
    for (let end = chunk.indexOf(LINE_FEED); end >= 0; end = chunk.indexOf(LINE_FEED, begin)) {
      rest.push(chunk.subarray(begin, end));
      yield textOf(rest, name, offset);
      offset += rest.reduce((sum, { length }) => sum + length, 1);
      rest = [];
      begin = end + 1;
    }
    rest.push(chunk.subarray(begin));
  }
  yield textOf(rest, name, offset);
}

const LINE_FEED = 0x0a;

/** @param offset position of the first byte in the source; a byte order mark at 0 is removed @throws UsageError */
function textOf(pieces: readonly Uint8Array[], name: string, offset: number): string {
  const bytes = Buffer.concat(pieces);
  if (!isUtf8(bytes)) throw new UsageError(`${name} is not UTF-8 text: see byte ${offset + firstWrong(bytes)}`);
  const text = bytes.toString();
  return offset === 0 && text.startsWith('\ufeff') ? text.slice(1) : text;
}

/** Position of the first invalid or incomplete character, by binary search. */
function firstWrong(bytes: Uint8Array): number {
  let [right, wrong] = [0, bytes.length];
  while (wrong - right > 1) {
    const middle = (right + wrong) >> 1;
    if (beginsText(bytes.subarray(0, middle))) right = middle;
    else wrong = middle;
  }
  while (!isUtf8(bytes.subarray(0, right))) right--;
  return right;
}

/** Whether the bytes are the beginning of a valid UTF-8 text. */
function beginsText(bytes: Uint8Array): boolean {
  try {
    new TextDecoder('utf-8', { fatal: true }).decode(bytes, { stream: true });
    return true;
  } catch {
    return false;
  }
}
