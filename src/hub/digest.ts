/** Hashes that name blobs: sha256 of the bytes (64 digits), or git's sha1 of `blob SIZE\0` and the bytes (40 digits). */
import { createHash, type Hash } from 'node:crypto';
import { createReadStream } from 'node:fs';

/** @param name the expected hash @param size bytes of the file, which are part of git's hash */
export function startDigest(name: string, size: number): Hash {
  return name.length === 64 ? createHash('sha256') : createHash('sha1').update(`blob ${size}\0`);
}

/** Adds the first `length` bytes of a file. */
export async function digestFile(digest: Hash, path: string, length: number): Promise<void> {
  if (length === 0) return;
  for await (const piece of createReadStream(path, { end: length - 1 })) digest.update(piece as Buffer);
}
