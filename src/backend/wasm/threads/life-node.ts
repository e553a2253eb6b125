/**
 * How a thread of Node sees that another one has ended while it waits and gets no events: Node closes the descriptors that a
 * thread opened when the thread ends, for whatever reason.
 */
import { fstatSync, openSync } from 'node:fs';
import { devNull } from 'node:os';

/** Opens a descriptor that is closed when this thread ends. Undefined where there is none to be had. */
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
  // The number may stand for another file by now.
  return () => known !== undefined && identity() !== known;
}
