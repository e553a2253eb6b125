/** Checks the files of the cache against their hashes. */
import { lstat, readdir, realpath, stat } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { entriesBelow, notCached, repositoryCache } from './cache.ts';
import { digestFile, startDigest } from './digest.ts';
import { isCommit, isHash } from './names.ts';

export interface VerifiedFile {
  /** Path in a snapshot, or `blobs/HASH` for a blob without a link. */
  readonly file: string;
  readonly status: 'PASS' | 'WARN' | 'FAIL';
  readonly what: string;
}

/** Reads and hashes every file of a model. @throws HubError NotCached */
export async function* verifyModel(cache: string, repository: string): AsyncGenerator<VerifiedFile, void, undefined> {
  const places = repositoryCache(cache, repository);
  if (!(await lstat(places.root).catch(() => undefined))) throw notCached(cache, repository);
  const blobs = await realpath(places.blobs).catch(() => places.blobs);
  const checked = new Map<string, VerifiedFile>();
  const commits = (await readdir(join(places.root, 'snapshots')).catch(() => [] as string[])).filter(isCommit);
  for (const commit of commits) {
    const folder = places.snapshot(commit);
    for (const file of await entriesBelow(folder)) {
      const path = join(folder, file);
      const target = await realpath(path).catch(() => undefined);
      if (target === undefined) {
        yield { file, status: 'FAIL', what: 'the blob that it links to is missing; download it again' };
        continue;
      }
      const hash = relative(blobs, target);
      if (dirname(target) !== blobs)
        yield { file, status: 'WARN', what: 'not a link to a blob, so there is no hash to compare with' };
      else if (!checked.has(hash)) {
        checked.set(hash, await verifyBlob(target, hash, file));
        yield checked.get(hash)!;
      }
    }
  }
  for (const name of await readdir(blobs).catch(() => [] as string[])) {
    if (checked.has(name)) continue;
    if (isHash(name)) yield await verifyBlob(join(blobs, name), name, `blobs/${name}`);
    else
      yield {
        file: `blobs/${name}`,
        status: 'WARN',
        what: name.endsWith('.corrupt') ? 'a download with a wrong hash' : 'an unfinished download',
      };
  }
}

async function verifyBlob(path: string, hash: string, file: string): Promise<VerifiedFile> {
  if (!isHash(hash)) return { file, status: 'WARN', what: 'its blob is not named by a hash' };
  const { size } = await stat(path);
  const digest = startDigest(hash, size);
  await digestFile(digest, path, size);
  const found = digest.digest('hex');
  const kind = hash.length === 64 ? 'sha256' : 'git sha1';
  if (found === hash) return { file, status: 'PASS', what: `${kind} ${hash}` };
  return {
    file,
    status: 'FAIL',
    what: `expected ${kind} ${hash}, found ${found}; remove the model and download it again`,
  };
}
