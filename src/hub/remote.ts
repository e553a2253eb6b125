/** Opens models at the hub without downloading them: headers and small files are read by ranges. */
import { type DownloadOptions, offline, Repository } from './download.ts';
import { findCached, hubError, nameOf } from './model.ts';
import { type HubId, revisionOf } from './names.ts';
import { type RangedModel, rangedModel } from './ranges.ts';
import { hubSettings } from './settings.ts';

/** The folder of a model at the hub, at the current commit of the revision. @throws HubError */
export async function remoteModel(id: HubId, options: DownloadOptions = {}): Promise<RangedModel> {
  const settings = options.settings ?? (await hubSettings());
  const repository = new Repository(id.repository, settings, options);
  const { commit, files } = await repository.describe(revisionOf(id, options.revision));
  return rangedModel(
    id,
    files.map(({ path }) => path),
    {
      addressOf: (path) => repository.address(commit, path),
      read: async (path) => (await repository.read(commit, path)).toString('utf8'),
      signal: options.signal,
      request: (address, { headers }) => repository.ask(address, new Headers(headers)),
    },
  );
}

/**
 * Like `modelAt`, for uses that need no weights: a model that the cache lacks is read at the hub without caching.
 * @returns a path, or the folder at the hub @throws HubError with a message that says what was tried
 */
export async function filesAt(given: string, options: DownloadOptions = {}): Promise<string | RangedModel> {
  const settings = options.settings ?? (await hubSettings());
  const id = await nameOf(given, { ...options, settings });
  if (typeof id === 'string') return id;
  try {
    const cached = await findCached(id, { ...options, settings });
    if (cached !== undefined) return cached;
    if (settings.offline) throw offline(settings, given);
    return await remoteModel(id, { ...options, settings });
  } catch (error) {
    throw hubError(given, error);
  }
}
