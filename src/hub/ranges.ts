/** A model at the hub as a folder whose files are read by ranges and not cached. */
import { type FetchOptions, fetchFolder } from '../formats/adapters/fetch.ts';
import type { FileFolder } from '../formats/bytes.ts';
import { chooseFiles } from './choice.ts';
import { type HubId, staysInside } from './names.ts';

export interface RangedModel {
  readonly folder: FileFolder;
  /** The model's file; undefined for a model in a folder. */
  readonly file?: string;
}

export interface RangedOptions extends FetchOptions {
  /** Address of a file or folder (with a slash at the end) of the repository. */
  readonly addressOf: (path: string) => string;
  readonly read: (path: string) => Promise<string>;
}

/** @param paths all files of the repository @throws HubError */
export async function rangedModel(
  id: HubId,
  paths: readonly string[],
  { addressOf, read, ...fetching }: RangedOptions,
): Promise<RangedModel> {
  const safe = paths.filter(staysInside);
  const { file } = await chooseFiles(id, safe, read);
  const isFile = /\.(?:gguf|safetensors)$/i.test(file);
  const place = isFile ? file.slice(0, file.lastIndexOf('/') + 1) : file && `${file.replace(/\/$/, '')}/`;
  const inside = safe.flatMap((path) => (path.startsWith(place) ? [path.slice(place.length)] : []));
  const folder = fetchFolder(addressOf(place), { ...fetching, paths: inside });
  return isFile ? { folder, file: file.slice(place.length) } : { folder };
}
