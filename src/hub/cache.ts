/**
 * The cache of Python's huggingface_hub: `models--ORG--NAME/{blobs,refs,snapshots}`. The name of a blob is its hash, a
 * snapshot is a folder of links to blobs, a ref is a file with the commit of a branch or tag.
 */
import { randomUUID } from 'node:crypto';
import {
  copyFile,
  link,
  lstat,
  mkdir,
  readdir,
  readFile,
  realpath,
  rename,
  rm,
  stat,
  symlink,
  unlink,
  writeFile,
} from 'node:fs/promises';
import { dirname, isAbsolute, join, relative, sep } from 'node:path';
import { HubError } from '../errors.ts';
import { whileUnfinished } from '../formats/adapters/node.ts';
import { checkRepository, isCommit, isRepository } from './names.ts';

const PREFIX = 'models--';

/** Folders of one repository. */
export interface RepositoryCache {
  readonly root: string;
  readonly blobs: string;
  snapshot(commit: string): string;
  ref(revision: string): string;
}

/** @throws HubError InvalidId for a name that is not a valid id */
export function repositoryCache(cache: string, repository: string): RepositoryCache {
  const root = join(cache, PREFIX + checkRepository(repository).replace('/', '--'));
  return {
    root,
    blobs: join(root, 'blobs'),
    snapshot: (commit) => join(root, 'snapshots', commit),
    ref: (revision) => join(root, 'refs', ...revision.split('/')),
  };
}

/** The commit of a revision when it was last downloaded; undefined if it is not in the cache. */
export async function cachedCommit(places: RepositoryCache, revision: string): Promise<string | undefined> {
  if (isCommit(revision)) return (await exists(places.snapshot(revision))) ? revision : undefined;
  const text = await readFile(places.ref(revision), 'utf8').catch(() => '');
  return isCommit(text.trim()) ? text.trim() : undefined;
}

/** Paths of the files of a snapshot, with slashes, sorted; broken links are left out. */
export async function snapshotFiles(folder: string): Promise<string[]> {
  const files: string[] = [];
  for (const file of await entriesBelow(folder).catch(() => []))
    if ((await stat(join(folder, file)).catch(() => undefined))?.isFile()) files.push(file);
  return files.sort();
}

/** Paths of files and links below a folder, with slashes. Node 20.0's `readdir` lacks `recursive`. */
export async function entriesBelow(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true });
  const below = entries.map(async (entry) =>
    entry.isDirectory()
      ? (await entriesBelow(join(folder, entry.name))).map((path) => `${entry.name}/${path}`)
      : [entry.name],
  );
  return (await Promise.all(below)).flat();
}

export const exists = async (path: string): Promise<boolean> => (await stat(path).catch(() => undefined)) !== undefined;

/** Writes the commit of a revision atomically. */
export async function writeRef(places: RepositoryCache, revision: string, commit: string): Promise<void> {
  const path = places.ref(revision);
  await makeFolder(places, dirname(path));
  const temporary = `${path}.${randomUUID()}`;
  await writeFile(temporary, commit, { flag: 'wx' });
  await rename(temporary, path);
}

/** Makes a folder of a repository. @throws HubError UnsafeCache if a link on the way leads out of the repository */
export async function makeFolder({ root }: RepositoryCache, folder: string): Promise<void> {
  await mkdir(root, { recursive: true });
  let existing = folder;
  while (!(await exists(existing))) existing = dirname(existing);
  const inside = relative(await realpath(root), await realpath(existing));
  if (inside.split(sep)[0] === '..' || isAbsolute(inside)) {
    throw new HubError(
      'UnsafeCache',
      `${existing}: expected a folder of the cache, found a link that leads out of it; remove it`,
    );
  }
  await mkdir(folder, { recursive: true });
}

/** Makes a symbolic link. Tests replace it to act as a file system without links. */
export type MakeLink = (target: string, path: string) => Promise<void>;

/**
 * Gives a blob a file name in a snapshot: by a relative symbolic link, else by a hard link, else by a copy. An existing
 * file or link of that name is replaced, never written through.
 */
export async function linkBlob(
  places: RepositoryCache,
  { commit, path, hash }: { commit: string; path: string; hash: string },
  makeLink: MakeLink = symlink,
): Promise<void> {
  const name = join(places.snapshot(commit), ...path.split('/'));
  await makeFolder(places, dirname(name));
  const blob = join(places.blobs, hash);
  const temporary = `${name}.${randomUUID()}`;
  await whileUnfinished(temporary, async () => {
    const symbolic = async (): Promise<void> => {
      await makeLink(relative(dirname(name), blob), temporary);
      // Wine reports success without making a link.
      await stat(temporary);
    };
    // On Windows ordinary users can make hard links only; some file systems have no links at all.
    await symbolic()
      .catch(() => rm(temporary, { force: true }).then(() => link(blob, temporary)))
      .catch(() => copyFile(blob, temporary));
    await rename(temporary, name);
    // POSIX rename does nothing if both names are hard links to the same file.
    await rm(temporary, { force: true });
  });
}

/** Whether a blob exists with the right size. A symbolic link in its place is removed. */
export async function hasBlob(places: RepositoryCache, hash: string, size: number): Promise<boolean> {
  const path = join(places.blobs, hash);
  const status = await lstat(path).catch(() => undefined);
  if (status?.isSymbolicLink()) await unlink(path);
  return status?.isFile() === true && status.size === size;
}

export interface CachedModel {
  readonly repository: string;
  readonly folder: string;
  readonly snapshots: readonly {
    readonly commit: string;
    readonly refs: readonly string[];
    readonly files: readonly string[];
  }[];
  /** Size of all blobs, unfinished downloads included. */
  readonly bytes: number;
}

/** All models of a cache, sorted by name. */
export async function listModels(cache: string): Promise<CachedModel[]> {
  const names = await readdir(cache).catch(() => [] as string[]);
  const models = names
    .filter((name) => name.startsWith(PREFIX))
    .map((name) => name.slice(PREFIX.length).replace('--', '/'))
    .filter(isRepository);
  return Promise.all(models.sort().map((repository) => describeModel(cache, repository)));
}

async function describeModel(cache: string, repository: string): Promise<CachedModel> {
  const places = repositoryCache(cache, repository);
  const refs = new Map<string, string>();
  for (const ref of await snapshotFiles(join(places.root, 'refs')))
    refs.set(ref, (await readFile(places.ref(ref), 'utf8')).trim());
  const commits = (await readdir(join(places.root, 'snapshots')).catch(() => [] as string[])).filter(isCommit);
  let bytes = 0;
  for (const blob of await readdir(places.blobs).catch(() => [] as string[])) {
    bytes += (await lstat(join(places.blobs, blob)).catch(() => undefined))?.size ?? 0;
  }
  const snapshots = commits.map(async (commit) => ({
    commit,
    refs: [...refs].flatMap(([ref, to]) => (to === commit ? [ref] : [])),
    files: await snapshotFiles(places.snapshot(commit)),
  }));
  return { repository, folder: places.root, snapshots: await Promise.all(snapshots), bytes };
}

/** Removes a model from the cache. @returns bytes freed @throws HubError NotCached */
export async function removeModel(cache: string, repository: string): Promise<number> {
  const { root } = repositoryCache(cache, repository);
  const status = await lstat(root).catch(() => undefined);
  if (!status) throw notCached(cache, repository);
  if (status.isSymbolicLink()) {
    await unlink(root);
    return 0;
  }
  const { bytes } = await describeModel(cache, repository);
  await rm(root, { recursive: true });
  return bytes;
}

export function notCached(cache: string, repository: string): HubError {
  return new HubError(
    'NotCached',
    `${repository}: expected in the cache ${cache}, found nothing; \`lanewise list\` shows what is there`,
  );
}
