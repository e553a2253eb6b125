/** The files that a command line names. */
import { access, constants, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { UsageError } from './terminal.ts';

/**
 * Finds before the work begins what would keep its result from being written.
 * @param name what errors call the file: its option and path
 */
export async function checkWritable(name: string, path: string): Promise<void> {
  try {
    // The folder itself: what is written there first has another name.
    await access(`${dirname(path)}/.`, constants.W_OK | constants.X_OK);
  } catch (error) {
    throw unwritable(name, error);
  }
  const there = await stat(path).catch(() => undefined);
  if (there?.isDirectory()) throw new UsageError(`${name} cannot be written: it is a folder`);
}

export const unwritable = (name: string, error: unknown): UsageError =>
  new UsageError(`${name} cannot be written: ${(error as NodeJS.ErrnoException).code}`);
