/** Downloads models from the hub to the cache. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { HubError } from '../errors.ts';
import {
  cachedCommit,
  exists,
  hasBlob,
  linkBlob,
  type MakeLink,
  makeFolder,
  notCached,
  type RepositoryCache,
  repositoryCache,
  writeRef,
} from './cache.ts';
import { type Connection, impostor, patiently, readBody, request } from './http.ts';
import {
  checkPath,
  checkRepository,
  checkRevision,
  isCommit,
  isHash,
  isSafePath,
  matchesGlob,
  quote,
  staysInside,
} from './names.ts';
import { type HubSettings, hubSettings } from './settings.ts';
import { type Disk, fetchBlob } from './transfer.ts';
import { fetchWhole, lengthOf } from './transfer-whole.ts';

export interface DownloadOptions {
  /** A branch, tag or commit. Default main. */
  readonly revision?: string;
  /** Download only files that match one of these globs. */
  readonly include?: readonly string[];
  readonly exclude?: readonly string[];
  /** Called with the bytes received and their total, which is Infinity while it is unknown. */
  readonly onProgress?: (done: number, total: number) => void;
  readonly signal?: AbortSignal;
  /** Default: from environment variables. */
  readonly settings?: HubSettings;
  /** Retries, timeouts and parallelism. */
  readonly transport?: Partial<Transport>;
}

export interface Transport {
  readonly attempts: number;
  readonly delayMs: number;
  readonly stallMs: number;
  /** Bytes per range request. */
  readonly partBytes: number;
  /** Number of range requests, or of small files, in parallel. */
  readonly parallel: number;
  readonly disk: Disk | undefined;
  readonly makeLink: MakeLink | undefined;
  /** Whether file names must be valid on Windows. */
  readonly windows: boolean;
}

const defaults: Transport = {
  attempts: 5,
  delayMs: 500,
  stallMs: 30_000,
  partBytes: 8 * 2 ** 20,
  parallel: 8,
  disk: undefined,
  makeLink: undefined,
  windows: process.platform === 'win32',
};

/** A file of a repository at one commit. */
export interface RemoteFile {
  readonly path: string;
  /** Bytes, if the hub states them. */
  readonly size: number | undefined;
  /** sha256, or git's sha1 for small files, if the hub's list has it. */
  readonly hash?: string | undefined;
}

export interface Download {
  /** Folder of the snapshot. */
  readonly folder: string;
  readonly commit: string;
  /** Paths of the requested files in the folder. */
  readonly files: readonly string[];
  /** Bytes received over the network. */
  readonly fetched: number;
  /** Files left out because their names are not valid on this system (Windows). */
  readonly skipped: readonly string[];
}

const INFO_LIMIT = 64 * 2 ** 20;
const MOST_FILES = 100_000;

/** An entry of the hub's list of files. */
interface Sibling {
  readonly rfilename?: unknown;
  readonly size?: unknown;
  readonly blobId?: unknown;
  readonly lfs?: { readonly sha256?: unknown } | null;
}

/** A repository at the hub: its description and downloads of its files. */
export class Repository {
  readonly id: string;
  readonly settings: HubSettings;
  readonly places: RepositoryCache;
  readonly #connection: Connection;
  readonly #transport: Transport;
  readonly #onProgress: ((done: number, total: number) => void) | undefined;
  #done = 0;
  #total = 0;
  /** Number of running downloads of unknown size. */
  #unknown = 0;

  constructor(id: string, settings: HubSettings, { transport, onProgress, signal }: DownloadOptions) {
    this.id = checkRepository(id);
    this.settings = settings;
    this.places = repositoryCache(settings.cache, id);
    this.#transport = { ...defaults, ...transport };
    this.#connection = { settings, signal, ...this.#transport };
    this.#onProgress = onProgress;
  }

  /** The current commit of a revision and its files. @throws HubError */
  async describe(revision: string): Promise<{ commit: string; files: RemoteFile[] }> {
    const address = `${this.settings.endpoint}/api/models/${this.id}/revision/${encodeURIComponent(checkRevision(revision))}?blobs=true`;
    const bytes = await patiently(this.#connection, async () =>
      readBody(await request(this.#connection, address, { headers: { accept: 'application/json' } }), INFO_LIMIT),
    );
    const { sha, siblings } = parseInfo(bytes, address);
    if (!isCommit(sha)) throw invalid(this.id, 'a commit of 40 hexadecimal digits', sha);
    if (isCommit(revision) && revision !== sha) throw invalid(this.id, `the commit ${revision}`, sha);
    if (!Array.isArray(siblings) || siblings.length > MOST_FILES) throw invalid(this.id, 'a list of files', siblings);
    const files = siblings.flatMap((entry: Sibling | null) => {
      const hash = [entry?.lfs?.sha256, entry?.blobId].find((one) => typeof one === 'string' && isHash(one)) as
        | string
        | undefined;
      const size = Number.isSafeInteger(entry?.size) ? (entry?.size as number) : undefined;
      return typeof entry?.rfilename === 'string' ? [{ path: entry.rfilename, size, hash }] : [];
    });
    return { commit: sha, files };
  }

  /** Reads a small file, bypassing the cache. @throws HubError */
  read(commit: string, path: string): Promise<Buffer> {
    return patiently(this.#connection, async () =>
      readBody(await request(this.#connection, this.address(commit, path)), INFO_LIMIT),
    );
  }

  /** The hub's response to a request for a file; status 404 if there is no such file. @throws HubError */
  async ask(address: string, headers: Headers): Promise<Response> {
    try {
      const ask = () => request(this.#connection, address, { headers: Object.fromEntries(headers) });
      return (await patiently(this.#connection, ask)).response;
    } catch (error) {
      if (error instanceof HubError && error.code === 'EntryNotFound') return new Response(null, { status: 404 });
      throw error;
    }
  }

  address(commit: string, path: string): string {
    const name = path.split('/').map(encodeURIComponent).join('/');
    return `${this.settings.endpoint}/${this.id}/resolve/${commit}/${name}`;
  }

  /** Downloads files to the snapshot: small files in parallel, then large files one by one in parallel ranges. */
  async fetch(commit: string, files: readonly RemoteFile[]): Promise<void> {
    for (const { path } of files) checkPath(this.id, path, this.#transport.windows);
    const missing: RemoteFile[] = [];
    for (const file of files) if (!(await exists(join(this.places.snapshot(commit), file.path)))) missing.push(file);
    for (const { size } of missing) this.#total += size ?? 0;
    const isLarge = ({ size }: RemoteFile): boolean => (size ?? 0) > this.#transport.partBytes;
    const small = missing.filter((file) => !isLarge(file));
    const lanes = Array.from({ length: Math.min(this.#transport.parallel, small.length) }, async () => {
      for (let file = small.shift(); file; file = small.shift()) await this.#fetchFile(commit, file, 1);
    });
    await settleAll(lanes);
    for (const file of missing.filter(isLarge)) await this.#fetchFile(commit, file, this.#transport.parallel);
  }

  get fetched(): number {
    return this.#done;
  }

  async #fetchFile(commit: string, file: RemoteFile, parallel: number): Promise<void> {
    const { places } = this;
    const { disk, makeLink, partBytes } = this.#transport;
    const { hash, size } = await this.#inspect(commit, file);
    const transfer = {
      connection: this.#connection,
      url: new URL(this.address(commit, file.path)),
      name: `${this.id}/${file.path}`,
      blobs: places.blobs,
      onBytes: (count: number) => {
        this.#done += count;
        this.#onProgress?.(
          this.#done,
          this.#unknown > 0 ? Number.POSITIVE_INFINITY : Math.max(this.#total, this.#done),
        );
      },
      disk,
    };
    if (hash === undefined || size === undefined) {
      this.#unknown++;
      await makeFolder(places, places.blobs);
      const found = await fetchWhole({ ...transfer, hash, size });
      this.#unknown--;
      this.#total += found.size - (file.size ?? 0);
      await linkBlob(places, { commit, path: file.path, hash: found.hash }, makeLink);
      return;
    }
    this.#total += size - (file.size ?? 0);
    if (await hasBlob(places, hash, size)) this.#total -= size;
    else {
      await makeFolder(places, places.blobs);
      await fetchBlob({ ...transfer, hash, size, partBytes, parallel });
    }
    await linkBlob(places, { commit, path: file.path, hash }, makeLink);
  }

  /** Hash and size of a file, if known: from the headers of the hub's first response, or from its list of files. */
  async #inspect(
    commit: string,
    { path, ...listed }: RemoteFile,
  ): Promise<{ hash: string | undefined; size: number | undefined }> {
    const name = `${this.id}/${path}`;
    const headers = await patiently(this.#connection, async () => {
      const reply = await request(this.#connection, this.address(commit, path), { method: 'HEAD', stay: true });
      await reply.cancel();
      return reply.response.headers;
    }).catch((error: unknown) => {
      // Some mirrors support only GET.
      if (error instanceof HubError && error.code === 'HttpStatus') return new Headers();
      throw error;
    });
    const tag = (headers.get('x-linked-etag') ?? headers.get('etag') ?? '')
      .replace(/^W\//, '')
      .replace(/^"(.*)"$/, '$1');
    // Mirrors may send other tags and no lengths; the list of files has both.
    const hash = isHash(tag) ? tag : listed.hash;
    if (hash === undefined && headers.get('content-type')?.includes('text/html') && !/\.html?$/i.test(path))
      throw new HubError('InvalidEtag', `${name}: expected a file, received an HTML page; check HF_ENDPOINT`);
    const found = headers.get('x-repo-commit');
    if (found !== null && found !== commit) {
      throw new HubError('CommitMismatch', `${name}: expected the commit ${commit}, found ${quote(found)}; try again`);
    }
    const linked = headers.get('x-linked-size') ?? '';
    if (/^\d{1,15}$/.test(linked)) return { hash, size: Number(linked) };
    // A length of 0 may be the length of the empty response to HEAD.
    return { hash, size: listed.size ?? (lengthOf(headers) || undefined) };
  }
}

/** Waits for all, then throws the first error. */
async function settleAll(work: readonly Promise<void>[]): Promise<void> {
  for (const result of await Promise.allSettled(work)) if (result.status === 'rejected') throw result.reason;
}

function parseInfo(bytes: Buffer, address: string): { sha?: unknown; siblings?: unknown } {
  try {
    const json: unknown = JSON.parse(bytes.toString('utf8'));
    if (typeof json === 'object' && json !== null) return json;
  } catch {
    // Reported below.
  }
  const what = impostor(bytes) ?? 'something else';
  throw new HubError(
    'NotTheFile',
    `${new URL(address).host}: expected a model's description in JSON, received ${what}; check HF_ENDPOINT`,
  );
}

function invalid(id: string, expected: string, found: unknown): HubError {
  return new HubError('InvalidAnswer', `${id}: expected ${expected}, found ${quote(String(found))}; check HF_ENDPOINT`);
}

/**
 * Downloads the files of a model to the cache: those that `choose` returns, or all that match the globs. All come from
 * one commit, found at the start. Offline, only the cache is used.
 * @throws HubError
 */
export async function download(
  id: string,
  options: DownloadOptions = {},
  choose?: (files: readonly RemoteFile[], read: (path: string) => Promise<string>) => Promise<readonly RemoteFile[]>,
): Promise<Download> {
  const settings = options.settings ?? (await hubSettings());
  const repository = new Repository(id, settings, options);
  const { places } = repository;
  const revision = checkRevision(options.revision ?? 'main');
  if (settings.offline) {
    const commit = await cachedCommit(places, revision);
    if (commit === undefined) throw offline(settings, id);
    return { folder: places.snapshot(commit), commit, files: [], fetched: 0, skipped: [] };
  }
  const { commit, files } = await repository.describe(revision);
  const folder = places.snapshot(commit);
  const read = async (path: string): Promise<string> => {
    await repository.fetch(
      commit,
      files.filter((file) => file.path === path),
    );
    return readFile(join(folder, path), 'utf8');
  };
  const wanted = choose ? await choose(files, read) : files.filter(({ path }) => isWanted(path, options));
  const windows = options.transport?.windows ?? defaults.windows;
  const isSkipped = ({ path }: RemoteFile): boolean => windows && !choose && staysInside(path) && !isSafePath(path);
  const skipped = wanted.filter(isSkipped).map(({ path }) => path);
  const chosen = wanted.filter((file) => !isSkipped(file));
  if (chosen.length === 0)
    throw new HubError('NothingToDownload', `${id}: expected files that match include and exclude, found none`);
  await repository.fetch(commit, chosen);
  if (!isCommit(revision)) await writeRef(places, revision, commit);
  return { folder, commit, files: chosen.map(({ path }) => path), fetched: repository.fetched, skipped };
}

function isWanted(path: string, { include, exclude }: DownloadOptions): boolean {
  const some = (globs: readonly string[]): boolean => globs.some((glob) => matchesGlob(glob, path));
  return (!include?.length || some(include)) && !(exclude?.length && some(exclude));
}

export function offline(settings: HubSettings, id: string): HubError {
  const { message } = notCached(settings.cache, id);
  return new HubError('Offline', `${message} (HF_HUB_OFFLINE is set: nothing is downloaded)`);
}
