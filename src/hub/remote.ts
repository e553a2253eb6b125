/** Models of the hub that are looked at without fetching them: headers by ranges. */
import { basename } from 'node:path';
import { fetchFolder } from '../formats/adapters/fetch.ts';
import type { FileFolder } from '../formats/bytes.ts';
import { chooseFiles } from './choice.ts';
import { type DownloadOptions, Repository } from './download.ts';
import { type HubId, revisionOf } from './names.ts';
import { hubSettings } from './settings.ts';

export interface RemoteModel {
  readonly folder: FileFolder;
  /** The model's file, where it is one. */
  readonly file: string | undefined;
}

/** The folder of a model at the hub, at the commit that the revision stands for now. @throws HubError */
export async function remoteModel(id: HubId, options: DownloadOptions = {}): Promise<RemoteModel> {
  const settings = options.settings ?? (await hubSettings());
  const repository = new Repository(id.repository, settings, options);
  const { commit, files } = await repository.describe(revisionOf(id, options.revision));
  const paths = files.map(({ path }) => path);
  const { file } = await chooseFiles(id, paths, async (path) => {
    const answer = await repository.read(commit, path);
    return answer.toString('utf8');
  });
  const isFolder = file === '' || !/\.(?:gguf|safetensors)$/i.test(file);
  const place = isFolder ? file && `${file.replace(/\/$/, '')}/` : file.slice(0, file.length - basename(file).length);
  const names = paths.flatMap((path) =>
    path.startsWith(place) && !path.slice(place.length).includes('/') ? [path.slice(place.length)] : [],
  );
  const folder = fetchFolder(repository.address(commit, place), {
    names,
    signal: options.signal,
    request: (address, { headers }) => repository.ask(address, new Headers(headers)),
  });
  return { folder, file: isFolder ? undefined : basename(file) };
}
