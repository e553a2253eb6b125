/**
 * Downloads one blob to the cache. Ranges are requested in parallel, hashed and written in order. The file gets its final
 * name only after its hash was checked.
 */
import type { Hash } from 'node:crypto';
import { randomUUID } from 'node:crypto';
import { type FileHandle, lstat, mkdir, open, readdir, rename, rm, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { HubError } from '../errors.ts';
import { IMPOSTOR_BYTES } from '../formats/impostor.ts';
import { digestFile, startDigest } from './digest.ts';
import { type Connection, impostor, notTheFile, patiently, type Reply, request, Transient } from './http.ts';

export interface Transfer {
  readonly connection: Connection;
  readonly url: URL;
  /** Named in errors. */
  readonly name: string;
  /** The blob's name: its hash. */
  readonly hash: string;
  readonly size: number;
  /** Folder of blobs. */
  readonly blobs: string;
  readonly partBytes: number;
  /** Number of parallel range requests. */
  readonly parallel: number;
  /** Called with the number of bytes received, negative for bytes discarded. */
  readonly onBytes: (count: number) => void;
  readonly disk?: Disk;
}

/** File system calls that fail on a full disk; replaced in tests. */
export interface Disk {
  open(path: string, flags: string): Promise<FileHandle>;
  rename(from: string, to: string): Promise<void>;
  /** Free bytes of the disk that holds `path`. */
  free(path: string): Promise<number>;
}

export const nodeDisk: Disk = {
  open,
  rename,
  async free(path) {
    const { bavail, bsize } = await statfs(path);
    return bavail * bsize;
  },
};

/** Thrown if the server does not support these ranges: the file is then requested whole. */
class NoRanges extends Error {}

/** @throws HubError HashMismatch, SizeMismatch, DiskFull, NotTheFile and those of requests; no file gets the final name */
export async function fetchBlob(transfer: Transfer): Promise<void> {
  const { blobs, hash, size, disk = nodeDisk } = transfer;
  await mkdir(blobs, { recursive: true });
  const shared = join(blobs, `${hash}.incomplete`);
  const own = join(blobs, `${hash}.${process.pid}-${randomUUID()}.incomplete`);
  const begun = await claim(transfer, shared, own);
  const free = await disk.free(blobs).catch(() => Number.POSITIVE_INFINITY);
  try {
    if (free < size - begun) throw diskFull(transfer, size - begun, free);
    await receive(transfer, own, begun);
    await disk.rename(own, join(blobs, hash));
  } catch (error) {
    // The next run can resume from here.
    await rename(own, shared).catch(() => undefined);
    if (isDiskFull(error)) throw diskFull(transfer, size, await disk.free(blobs).catch(() => 0));
    throw error;
  }
}

export const isDiskFull = (error: unknown): boolean =>
  error instanceof Error && 'code' in error && (error.code === 'ENOSPC' || error.code === 'EDQUOT');

/** @param need bytes needed, undefined if unknown */
export function diskFull(
  { name, blobs }: Pick<Transfer, 'name' | 'blobs'>,
  need: number | undefined,
  free: number,
): HubError {
  const what = need === undefined ? 'more room' : `${need} bytes`;
  return new HubError(
    'DiskFull',
    `${name}: needs ${what} in ${blobs}, ${free} are free; make room or set HF_HUB_CACHE to another disk`,
  );
}

/**
 * Takes over the unfinished file of an earlier run by renaming it, so that two runs never write the same file. Names have
 * the process id, which shows whether that run still exists. @returns bytes of the file
 */
async function claim({ blobs, hash, size }: Transfer, shared: string, own: string): Promise<number> {
  const left = (await readdir(blobs)).filter((name) => name.startsWith(`${hash}.`) && name.endsWith('.incomplete'));
  const free = left.map((name) => join(blobs, name)).filter((path) => path === shared || !isAlive(ownerOf(path)));
  for (const path of free) {
    const status = await lstat(path).catch(() => undefined);
    if (!status?.isFile() || status.size > size) {
      if (status) await rm(path, { force: true });
      continue;
    }
    const taken = await rename(path, own).then(
      () => true,
      () => false,
    );
    if (taken) return status.size;
  }
  return 0;
}

const ownerOf = (path: string): number => Number(/\.(\d+)-[^.]+\.incomplete$/.exec(path)?.[1]);

function isAlive(process_: number): boolean {
  if (!Number.isInteger(process_)) return true;
  try {
    process.kill(process_, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

async function receive(transfer: Transfer, path: string, begun: number): Promise<void> {
  const { name, hash, size, disk = nodeDisk } = transfer;
  const file = await disk.open(path, begun > 0 ? 'r+' : 'wx+');
  try {
    let found = await receiveRanges(transfer, file, path, begun).catch((error: unknown) => {
      if (error instanceof NoRanges) return undefined;
      throw error;
    });
    // A wrong hash may come from the bytes of an earlier run: download once from the start before giving up.
    if (found === undefined || (found !== hash && begun > 0)) found = await receiveWhole(transfer, file);
    if (found !== hash) throw await quarantine(transfer, path, found);
    await file.sync();
  } finally {
    await file.close();
  }
  const written = (await lstat(path)).size;
  if (written !== size) throw new HubError('SizeMismatch', `${name}: expected ${size} bytes on disk, found ${written}`);
}

/** Downloads the file from byte `begun` on. @returns its hash @throws NoRanges */
async function receiveRanges(transfer: Transfer, file: FileHandle, path: string, begun: number): Promise<string> {
  const { hash, size, partBytes, parallel, connection } = transfer;
  const digest = startDigest(hash, size);
  await digestFile(digest, path, begun);
  const stop = new AbortController();
  const validator = new Validator();
  const pending: Promise<Uint8Array>[] = [];
  try {
    let asked = begun;
    for (let position = begun; position < size; ) {
      while (asked < size && pending.length < parallel) {
        const end = Math.min(asked + partBytes, size);
        pending.push(fetchPart(transfer, asked, end, { validator, signal: stop.signal }));
        pending.at(-1)!.catch(() => undefined);
        asked = end;
      }
      const bytes = await pending.shift()!;
      position = await append(file, bytes, position, digest);
      connection.signal?.throwIfAborted();
    }
    return digest.digest('hex');
  } finally {
    stop.abort(new Error('no more parts are wanted'));
    await Promise.allSettled(pending);
  }
}

async function append(file: FileHandle, bytes: Uint8Array, position: number, digest: Hash): Promise<number> {
  digest.update(bytes);
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done, position + done);
    done += bytesWritten;
  }
  return position + bytes.length;
}

/** Checks by ETag that all parts come from the same file. */
class Validator {
  tag: string | undefined;

  /** Whether a response is for the same file as the ones before. */
  accepts(tag: string | null): boolean {
    this.tag ??= tag ?? undefined;
    return tag === null || tag === this.tag;
  }
}

/** Downloads bytes [start, end). After a broken connection only the missing bytes are requested again. */
async function fetchPart(
  transfer: Transfer,
  start: number,
  end: number,
  { validator, signal }: { validator: Validator; signal: AbortSignal },
): Promise<Uint8Array> {
  const { connection, url, size, onBytes } = transfer;
  const bytes = new Uint8Array(end - start);
  let done = 0;
  await patiently(connection, async () => {
    if (done === bytes.length) return;
    const headers: Record<string, string> = { range: `bytes=${start + done}-${end - 1}` };
    // Weak tags are not allowed in If-Range (RFC 9110, 13.1.5).
    if (validator.tag?.startsWith('"')) headers['if-range'] = validator.tag;
    const reply = await request(connection, url, { headers, signal });
    const { response } = reply;
    const expected = `bytes ${start + done}-${end - 1}/${size}`;
    const whole = response.status === 200 && start + done === 0 && end === size;
    const fits = response.status === 206 && response.headers.get('content-range') === expected;
    if (!(fits || whole) || !validator.accepts(response.headers.get('etag'))) {
      await reply.cancel();
      onBytes(-done);
      throw new NoRanges();
    }
    for await (const piece of reply.chunks()) {
      if (done + piece.length > bytes.length) {
        onBytes(-done);
        throw new NoRanges();
      }
      bytes.set(piece, done);
      done += piece.length;
      onBytes(piece.length);
    }
    if (done < bytes.length) throw cutOff(transfer, start + done);
  });
  return bytes;
}

function cutOff({ name, size }: Transfer, at: number): Transient {
  return new Transient('CutOff', `${name}: expected ${size} bytes, the connection ended after ${at}; try again`);
}

/** Downloads the file in one request, overwriting existing bytes. @returns its hash */
async function receiveWhole(transfer: Transfer, file: FileHandle): Promise<string> {
  const { connection, url, name, hash, size, onBytes } = transfer;
  return patiently(connection, async () => {
    await file.truncate(0);
    const reply = await request(connection, url);
    if (reply.response.status !== 200) {
      await reply.cancel();
      throw new HubError('HttpStatus', `${name}: expected status 200, found ${reply.response.status}`);
    }
    const digest = startDigest(hash, size);
    let position = 0;
    try {
      for await (const piece of reply.chunks()) {
        if (position + piece.length > size) throw await tooLong(transfer, reply, file, piece);
        position = await append(file, piece, position, digest);
        onBytes(piece.length);
      }
      if (position < size) throw await tooShort(transfer, file, position);
    } catch (error) {
      onBytes(-position);
      throw error;
    }
    return digest.digest('hex');
  });
}

async function tooLong(
  { name, size }: Transfer,
  { url }: Reply,
  file: FileHandle,
  piece: Uint8Array,
): Promise<HubError> {
  const other = impostor(await startOf(file)) ?? impostor(piece);
  await file.truncate(0);
  if (other) return notTheFile(name, other, url.host);
  return new HubError('SizeMismatch', `${name}: expected ${size} bytes, ${url.host} sends more; try again`);
}

async function tooShort(transfer: Transfer, file: FileHandle, position: number): Promise<HubError> {
  const other = impostor(await startOf(file));
  if (!other) return cutOff(transfer, position);
  await file.truncate(0);
  return notTheFile(transfer.name, other);
}

async function startOf(file: FileHandle): Promise<Uint8Array> {
  const bytes = new Uint8Array(IMPOSTOR_BYTES);
  const { bytesRead } = await file.read(bytes, 0, bytes.length, 0);
  return bytes.subarray(0, bytesRead);
}

/** Renames a file with a wrong hash, so that it can be inspected but is never resumed. */
async function quarantine(transfer: Transfer, path: string, found: string): Promise<HubError> {
  const { name, hash, blobs, size } = transfer;
  const file = await open(path, 'r');
  const other = impostor(await startOf(file).finally(() => file.close()));
  if (other) {
    await rm(path, { force: true });
    return notTheFile(name, other);
  }
  const kept = join(blobs, `${hash}.corrupt`);
  await rename(path, kept);
  transfer.onBytes(-size);
  return new HubError(
    'HashMismatch',
    `${name}: expected the hash ${hash}, found ${found}; try again (the file is kept as ${kept})`,
  );
}
