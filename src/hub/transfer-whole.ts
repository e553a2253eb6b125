/** Downloads files whose size or hash a mirror does not state: in one request, computing the hash. */
import { randomUUID } from 'node:crypto';
import { lstat, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { HubError } from '../errors.ts';
import { whileUnfinished } from '../formats/adapters/node.ts';
import { digestFile, startDigest } from './digest.ts';
import { impostor, notTheFile, patiently, type Reply, request, Transient } from './http.ts';
import { diskFull, isDiskFull, nodeDisk, type Transfer } from './transfer.ts';

export type WholeTransfer = Omit<Transfer, 'hash' | 'size' | 'partBytes' | 'parallel'> & {
  /** Undefined if unknown. */
  readonly hash: string | undefined;
  readonly size: number | undefined;
};

/**
 * Downloads a blob of unknown size or hash; the one that is known is checked. The name of the blob is its hash, sha256 if
 * unknown. @throws HubError HashMismatch, SizeMismatch, DiskFull, NotTheFile and those of requests
 */
export async function fetchWhole(transfer: WholeTransfer): Promise<{ hash: string; size: number }> {
  const { name, blobs, disk = nodeDisk } = transfer;
  await mkdir(blobs, { recursive: true });
  const path = join(blobs, `unnamed.${process.pid}-${randomUUID()}.incomplete`);
  try {
    return await whileUnfinished(path, async () => {
      const size = await patiently(transfer.connection, () => receive(transfer, path));
      const digest = startDigest(transfer.hash ?? '0'.repeat(64), size);
      await digestFile(digest, path, size);
      const hash = digest.digest('hex');
      if (transfer.hash !== undefined && hash !== transfer.hash)
        throw new HubError('HashMismatch', `${name}: expected the hash ${transfer.hash}, found ${hash}; try again`);
      await disk.rename(path, join(blobs, hash));
      return { hash, size };
    });
  } catch (error) {
    if (isDiskFull(error)) throw diskFull(transfer, undefined, await disk.free(blobs).catch(() => 0));
    throw error;
  }
}

/** Writes the body to a file and returns its length. */
async function receive(transfer: WholeTransfer, path: string): Promise<number> {
  const { connection, url, disk = nodeDisk, onBytes, size } = transfer;
  const reply = await request(connection, url);
  let position = 0;
  const file = await disk.open(path, 'w');
  try {
    if (reply.response.status !== 200)
      throw new HubError('HttpStatus', `${transfer.name}: expected status 200, found ${reply.response.status}`);
    const told = size ?? lengthOf(reply.response.headers);
    for await (const piece of reply.chunks()) {
      if (position === 0) refuseOther(transfer, reply, piece);
      for (let done = 0; done < piece.length; )
        done += (await file.write(piece, done, piece.length - done, position + done)).bytesWritten;
      position += piece.length;
      onBytes(piece.length);
      if (told !== undefined && position > told) throw wrongSize(transfer, told, 'more');
      connection.signal?.throwIfAborted();
    }
    if (told !== undefined && position < told) throw wrongSize(transfer, told, `${position}`);
    await file.sync();
  } catch (error) {
    onBytes(-position);
    throw error;
  } finally {
    await reply.cancel();
    await file.close();
  }
  return (await lstat(path)).size;
}

/** Length of a file from content-length; undefined for a compressed response, whose length is not the file's. */
export function lengthOf(headers: Headers): number | undefined {
  const text = headers.get('content-length') ?? '';
  const plain = (headers.get('content-encoding') ?? 'identity') === 'identity';
  return plain && /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}

/** Refuses a page or message instead of a model's file, except for .html files. @throws HubError NotTheFile */
function refuseOther({ name }: WholeTransfer, { url }: Reply, piece: Uint8Array): void {
  const other = /\.html?$/i.test(name) ? undefined : impostor(piece);
  if (other !== undefined) throw notTheFile(name, other, url.host);
}

function wrongSize({ name }: WholeTransfer, expected: number, found: string): Transient {
  return new Transient('SizeMismatch', `${name}: expected ${expected} bytes, the server sent ${found}; try again`);
}
