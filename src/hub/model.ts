/** What of a repository a model needs to run, from the cache if it is there. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { HubError } from '../errors.ts';
import { firstPart, partNames } from '../formats/gguf.ts';
import { cachedCommit, repositoryCache, snapshotFiles } from './cache.ts';
import { type DownloadOptions, download, offline, type RemoteFile } from './download.ts';
import { type HubId, isSafePath } from './names.ts';
import { hubSettings } from './settings.ts';

const SINGLE = 'model.safetensors';
const INDEX = 'model.safetensors.index.json';
const companions = [
  'config.json',
  'generation_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'tokenizer.model',
  'spiece.model',
  'special_tokens_map.json',
  'added_tokens.json',
  'vocab.json',
  'vocab.txt',
  'merges.txt',
  'chat_template.jinja',
  'chat_template.json',
  '1_Pooling/config.json',
  'modules.json',
];
const vocabularies = ['tokenizer.json', 'tokenizer.model', 'spiece.model', 'vocab.txt'];

/**
 * Path of a model of the hub: its folder, or its .gguf or .safetensors file. A model that is in the cache is used as it
 * is, without a look at the network; `download` fetches what is newer.
 * @throws HubError
 */
export async function hubModel(id: HubId, options: DownloadOptions = {}): Promise<string> {
  const settings = options.settings ?? (await hubSettings());
  const cached = await findCached(id, { ...options, settings });
  if (cached !== undefined) return cached;
  if (settings.offline) throw offline(settings, id.file === undefined ? id.repository : `${id.repository}/${id.file}`);
  let file = '';
  const { folder } = await download(id.repository, { ...options, settings }, async (files, read) => {
    const chosen = await chooseFiles(id, files, read);
    file = chosen.file;
    return chosen.files;
  });
  return join(folder, file);
}

/** Path of a model if the cache has all of it. */
export async function findCached(id: HubId, options: DownloadOptions = {}): Promise<string | undefined> {
  const settings = options.settings ?? (await hubSettings());
  const places = repositoryCache(settings.cache, id.repository);
  const commit = await cachedCommit(places, options.revision ?? 'main');
  if (commit === undefined) return undefined;
  const folder = places.snapshot(commit);
  const found = await cachedModel(folder, id.file, settings.offline);
  return found === undefined ? undefined : join(folder, found);
}

/** The model's name in a snapshot that has all of it ('' for the folder itself); undefined where something is missing. */
async function cachedModel(folder: string, file: string | undefined, lenient: boolean): Promise<string | undefined> {
  const names = await snapshotFiles(folder);
  const has = (name: string): boolean => names.includes(name);
  if (file?.endsWith('.gguf')) return partNames(file).every(has) ? file : undefined;
  if (!has('config.json')) {
    const models = [...new Set(names.filter((name) => name.endsWith('.gguf')).map(firstPart))];
    return file === undefined && models.length === 1 && partNames(models[0]!).every(has) ? models[0] : undefined;
  }
  if (!lenient && !vocabularies.some(has)) return undefined;
  if (file !== undefined) return has(file) ? file : undefined;
  if (has(SINGLE)) return '';
  if (has(INDEX)) return shardsOf(await readFile(join(folder, INDEX), 'utf8'), folder).every(has) ? '' : undefined;
  return names.filter((name) => name.endsWith('.safetensors') && !name.includes('/')).length === 1 ? '' : undefined;
}

/** Of all files of a repository, those that the model needs, and the name of the model among them. @throws HubError */
export async function chooseFiles(
  { repository, file }: HubId,
  files: readonly RemoteFile[],
  read: (path: string) => Promise<string>,
): Promise<{ file: string; files: RemoteFile[] }> {
  const has = (path: string): boolean => files.some((remote) => remote.path === path);
  const take = (name: string, paths: readonly string[]): { file: string; files: RemoteFile[] } => {
    const missing = paths.find((path) => !has(path));
    if (missing !== undefined)
      throw new HubError('EntryNotFound', `${repository}: expected the file ${missing}, found ${examples(files)}`);
    return { file: name, files: files.filter(({ path }) => paths.includes(path)) };
  };
  const beside = companions.filter(has);
  if (file?.endsWith('.gguf')) return take(file, partNames(file));
  if (file !== undefined) return take(file, [file, ...beside]);
  if (has(SINGLE)) return take('', [SINGLE, ...beside]);
  if (has(INDEX)) return take('', [INDEX, ...beside, ...shardsOf(await read(INDEX), repository)]);
  const [weights, ...more] = files.filter(({ path }) => path.endsWith('.safetensors') && !path.includes('/'));
  if (weights && more.length === 0) return take('', [weights.path, ...beside]);
  const models = [...new Set(files.filter(({ path }) => path.endsWith('.gguf')).map(({ path }) => firstPart(path)))];
  if (models.length === 1) return take(models[0]!, partNames(models[0]!));
  if (models.length > 1) {
    const choices = models.slice(0, 12).map((model) => `${repository}:${model}`);
    throw new HubError('AmbiguousModel', `${repository}: has ${models.length} models; name one: ${choices.join(', ')}`);
  }
  throw new HubError(
    'NoWeights',
    `${repository}: expected ${SINGLE}, ${INDEX} or a .gguf file, found ${examples(files)}`,
  );
}

const examples = (files: readonly RemoteFile[]): string =>
  files
    .slice(0, 12)
    .map(({ path }) => path)
    .join(', ') || 'no files';

function shardsOf(index: string, name: string): string[] {
  let map: unknown;
  try {
    map = (JSON.parse(index) as { weight_map?: unknown } | null)?.weight_map;
  } catch {
    // Told below.
  }
  const shards = typeof map === 'object' && map !== null ? [...new Set<unknown>(Object.values(map))] : [];
  if (shards.length > 0 && shards.every((shard): shard is string => typeof shard === 'string' && isSafePath(shard)))
    return shards;
  throw new HubError(
    'InvalidIndex',
    `${name}: expected {"weight_map": {tensor: file}} in ${INDEX}, found something else`,
  );
}
