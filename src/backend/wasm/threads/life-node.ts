/**
 * Detects the end of another thread without events, for a thread that blocks: when a worker ends, for any reason, Node closes
 * the file descriptors that it opened.
 */
import { fstatSync, openSync } from 'node:fs';
import { devNull } from 'node:os';

/** Opens a descriptor that is closed when this thread ends. Undefined if that is not possible. */
export function openLifeDescriptor(): number | undefined {
  const { bun, deno } = process.versions;
  if (bun !== undefined || deno !== undefined) return undefined;
  try {
    return openSync(devNull, 'r');
  } catch {
    return undefined;
  }
}

/** @param descriptor that another thread opened @returns whether that thread has ended */
export function watchLife(descriptor: number | undefined): () => boolean {
  const identity = (): string | undefined => {
    try {
      const { dev, ino } = fstatSync(descriptor!);
      return `${dev} ${ino}`;
    } catch {
      return undefined;
    }
  };
  const known = descriptor === undefined ? undefined : identity();
  // The number may have been reused for another file.
  return () => known !== undefined && identity() !== known;
}
