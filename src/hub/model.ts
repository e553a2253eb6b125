/** What of a repository a model needs to run, from the cache if it is there. */
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { HubError } from '../errors.ts';
import { partNames } from '../formats/gguf.ts';
import { cachedCommit, repositoryCache, snapshotFiles } from './cache.ts';
import { chooseFiles, chooseGguf, ggufModels, INDEX, SINGLE, shardsOf, vocabularies } from './choice.ts';
import { type DownloadOptions, download, offline } from './download.ts';
import { type HubId, parseHubId, revisionOf } from './names.ts';
import { type HubSettings, hubSettings } from './settings.ts';

export interface HubModelOptions extends DownloadOptions {
  /** A GGUF file was chosen among others by its quantization, and nobody had said which. */
  readonly onChoice?: (file: string, others: readonly string[]) => void;
}

/**
 * Path of a model of the hub: its folder, or its .gguf or .safetensors file. A model that is in the cache is used as it
 * is, without a look at the network; `download` fetches what is newer.
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
 * Path of what a person names: a file or folder that is there, or else a model of the hub, fetched where the cache does
 * not have it. @throws HubError whose message says what was tried
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

/** What a person names: a path of what is here, or an id of the hub; a path of nothing where it is neither. */
export async function nameOf(
  given: string,
  { revision, settings }: { readonly revision?: string | undefined; readonly settings: HubSettings },
): Promise<string | HubId> {
  if (!(await stat(given).catch(() => undefined))) return parseHubId(given, settings.endpoint) ?? given;
  if (revision === undefined) return given;
  throw new HubError(
    'InvalidRevision',
    `${given}: only models at the hub have revisions, and this is a file or folder here`,
  );
}

/** An error of the hub, with what else was tried: a path that was mistyped looks like an id. */
export function hubError(given: string, error: unknown): unknown {
  if (!(error instanceof HubError)) return error;
  const what = `no file or folder here, and not to be had from the hub: ${error.message}`;
  return new HubError(error.code, `${given}: ${what}`);
}

/** Path of a model if the cache has all of it. */
export async function findCached(id: HubId, options: DownloadOptions = {}): Promise<string | undefined> {
  const settings = options.settings ?? (await hubSettings());
  const places = repositoryCache(settings.cache, id.repository);
  const commit = await cachedCommit(places, revisionOf(id, options.revision));
  if (commit === undefined) return undefined;
  const folder = places.snapshot(commit);
  const found = await cachedModel(folder, id, settings.offline);
  return found === undefined ? undefined : join(folder, found);
}

/** The model's name in a snapshot that has all of it ('' for the folder itself); undefined where something is missing. */
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
