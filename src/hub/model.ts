/** Finds models by path or id, in the cache or at the hub. */
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { HubError } from '../errors.ts';
import { partNames } from '../formats/gguf.ts';
import { INDEX, SINGLE } from '../formats/shard-index.ts';
import { cachedCommit, repositoryCache, snapshotFiles } from './cache.ts';
import { chooseFiles, chooseGguf, ggufModels, shardsOf, vocabularies } from './choice.ts';
import { type DownloadOptions, download, offline } from './download.ts';
import { type HubId, parseHubId, revisionOf } from './names.ts';
import { type HubSettings, hubSettings } from './settings.ts';

export interface HubModelOptions extends DownloadOptions {
  /** Called if a GGUF file was chosen by its quantization because the id names none. */
  readonly onChoice?: (file: string, others: readonly string[]) => void;
}

/**
 * Path of a model of the hub: its folder, or its .gguf or .safetensors file. A model in the cache is used without a
 * request to the hub; `download` updates it.
 * @throws HubError
 */
export async function hubModel(id: HubId, options: HubModelOptions = {}): Promise<string> {
  const settings = options.settings ?? (await hubSettings());
  const cached = await findCached(id, { ...options, settings });
  if (cached !== undefined) return cached;
  const { repository, file: named, tag } = id;
  if (settings.offline)
    throw offline(settings, named ? `${repository}/${named}` : `${repository}${tag ? `:${tag}` : ''}`);
  let file = '';
  const revision = revisionOf(id, options.revision);
  const { folder } = await download(repository, { ...options, revision, settings }, async (files, read) => {
    const paths = files.map(({ path }) => path);
    const chosen = await chooseFiles(id, paths, read);
    file = chosen.file;
    if (chosen.others.length > 0) options.onChoice?.(file, chosen.others);
    return files.filter(({ path }) => chosen.files.includes(path));
  });
  return join(folder, file);
}

/**
 * Path of a model named by a path or an id of the hub. An existing file or folder comes first; a model that the cache
 * lacks is downloaded. @throws HubError with a message that says what was tried
 */
export async function modelAt(given: string, options: HubModelOptions = {}): Promise<string> {
  const settings = options.settings ?? (await hubSettings());
  const id = await nameOf(given, { ...options, settings });
  if (typeof id === 'string') return id;
  try {
    return await hubModel(id, { ...options, settings });
  } catch (error) {
    throw hubError(given, error);
  }
}

/** Tells paths from ids of the hub: an existing path or an invalid id is returned unchanged. */
export async function nameOf(
  given: string,
  { revision, settings }: { readonly revision?: string | undefined; readonly settings: HubSettings },
): Promise<string | HubId> {
  if (!(await stat(given).catch(() => undefined))) return parseHubId(given, settings.endpoint) ?? given;
  if (revision === undefined) return given;
  throw new HubError(
    'InvalidRevision',
    `${given}: only models of the hub have revisions, and this is a local file or folder`,
  );
}

/** Adds to a HubError that no such path exists: a mistyped path looks like an id. */
export function hubError(given: string, error: unknown): unknown {
  if (!(error instanceof HubError)) return error;
  const what = `no such file or folder, and not available from the hub: ${error.message}`;
  return new HubError(error.code, `${given}: ${what}`);
}

/** Path of a model, if the cache has all its files. */
export async function findCached(id: HubId, options: DownloadOptions = {}): Promise<string | undefined> {
  const settings = options.settings ?? (await hubSettings());
  const places = repositoryCache(settings.cache, id.repository);
  const commit = await cachedCommit(places, revisionOf(id, options.revision));
  if (commit === undefined) return undefined;
  const folder = places.snapshot(commit);
  const found = await cachedModel(folder, id, settings.offline);
  return found === undefined ? undefined : join(folder, found);
}

/** Path of the model in a snapshot ('' for the folder itself); undefined if a file is missing. */
async function cachedModel(folder: string, { file, tag }: HubId, lenient: boolean): Promise<string | undefined> {
  const names = await snapshotFiles(folder);
  const has = (name: string): boolean => names.includes(name);
  if (file?.toLowerCase().endsWith('.gguf')) return partNames(file).every(has) ? file : undefined;
  if (tag !== undefined) {
    const inside = await cachedModel(join(folder, ...tag.split('/')), { repository: '', file: undefined }, lenient);
    if (inside === '') return tag;
  }
  if (tag !== undefined || !has('config.json')) {
    const [model, ...more] = chooseGguf(ggufModels(names), tag);
    return model !== undefined && more.length === 0 && partNames(model).every(has) ? model : undefined;
  }
  if (!lenient && !vocabularies.some(has)) return undefined;
  if (file?.endsWith('.safetensors')) return has(file) ? file : undefined;
  if (has(SINGLE)) return '';
  if (has(INDEX)) return shardsOf(await readFile(join(folder, INDEX), 'utf8'), folder).every(has) ? '' : undefined;
  return names.filter((name) => name.endsWith('.safetensors') && !name.includes('/')).length === 1 ? '' : undefined;
}
