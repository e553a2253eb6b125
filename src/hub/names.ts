/** Names that come from a server or a command line, checked before they become paths. */
import { HubError } from '../errors.ts';
import { isPlainFileName } from '../formats/bytes.ts';

/** A repository, and maybe one of its files. */
export interface HubId {
  /** `organisation/name`, or `name` alone. */
  readonly repository: string;
  readonly file: string | undefined;
}

const PART = String.raw`[A-Za-z0-9](?:[\w.-]{0,94}\w)?`;
const REPOSITORY = new RegExp(`^(?:${PART}/)?${PART}$`);
const ID = new RegExp(`^(${PART}/${PART})(?:[:/](.+))?$`, 's');

/** `ORG/NAME`, `ORG/NAME:FILE` or `ORG/NAME/FILE`; undefined for anything else. A file ends in .gguf or .safetensors. */
export function parseHubId(text: string): HubId | undefined {
  const [, repository, file] = ID.exec(text) ?? [];
  if (repository === undefined || !isRepository(repository)) return undefined;
  if (file !== undefined && !(isSafePath(file) && /\.(gguf|safetensors)$/.test(file))) return undefined;
  return { repository, file };
}

export const isRepository = (id: string): boolean => REPOSITORY.test(id) && !/--|\.\./.test(id);

/** @throws HubError InvalidId */
export function checkRepository(id: string): string {
  if (isRepository(id)) return id;
  throw new HubError('InvalidId', `expected an id such as organisation/name, found ${quote(id)}`);
}

const RESERVED = /^(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(?:\..*)?$/i;

/** Whether a path stays below its folder, by the rules of POSIX and of Windows. */
export function isSafePath(path: string): boolean {
  return (
    path.length <= 1024 &&
    path.split('/').every((part) => isPlainFileName(part) && !RESERVED.test(part) && !/[. ]$|[<>"|?*]/.test(part))
  );
}

/** @throws HubError UnsafeFileName */
export function checkPath(repository: string, path: unknown): string {
  if (typeof path === 'string' && isSafePath(path)) return path;
  const found = quote(String(path));
  throw new HubError('UnsafeFileName', `${repository}: expected file names that stay in their folder, found ${found}`);
}

const COMMIT = /^[0-9a-f]{40}$/;
const HASH = /^(?:[0-9a-f]{40}|[0-9a-f]{64})$/;

export const isCommit = (text: unknown): text is string => typeof text === 'string' && COMMIT.test(text);
export const isHash = (text: string): boolean => HASH.test(text);

/** A branch or tag may have slashes. @throws HubError InvalidRevision */
export function checkRevision(revision: string): string {
  if (isSafePath(revision)) return revision;
  throw new HubError('InvalidRevision', `expected a branch, tag or commit, found ${quote(revision)}`);
}

/** `*` and `?` match within a path and across its folders, as Python's fnmatch does. */
export function matchesGlob(pattern: string, path: string): boolean {
  const source = pattern
    .replace(/[.+^${}()|[\]\\]/g, '\\$&')
    .replace(/\*+/g, '.*')
    .replace(/\?/g, '.');
  return new RegExp(`^${source}$`, 's').test(path);
}

export const quote = (text: string): string => JSON.stringify(text.slice(0, 200));
