/** Parses and checks names from servers and command lines before they become paths. */
import { HubError } from '../errors.ts';
import { isPlainFileName } from '../formats/bytes.ts';

/** A repository, and optionally a file, tag or revision. */
export interface HubId {
  /** `organisation/name`, or `name` alone. */
  readonly repository: string;
  /** Path of a file in the repository. */
  readonly file: string | undefined;
  /** Chooses among several models: a quantization such as Q4_K_M, or a folder. */
  readonly tag?: string;
  /** A branch, tag or commit. */
  readonly revision?: string;
}

const PART = String.raw`[A-Za-z0-9](?:[\w.-]{0,94}\w)?`;
const REPOSITORY = new RegExp(`^(?:${PART}/)?${PART}$`);
/** `refs/pr/1` in links of the hub is a single revision. */
const REVISION = `refs/(?:pr|convert)/[^/:@]+|[^/:@]+`;
const ID = new RegExp(`^(${PART}/${PART}|${PART})(?:@(${REVISION}))?(?:([:/])(.+))?$`, 's');
const LINK = new RegExp(`^(${PART}/${PART}|${PART})(?:/(tree|blob|resolve|raw)/(${REVISION})(?:/(.+))?)?/?$`, 's');
const SITES = /^(?:https?:\/\/)?(?:www\.)?(?:huggingface\.co|hf\.co)\/(?:api\/)?(?:models\/)?/i;
const WEIGHTS = /\.(?:gguf|safetensors)$/i;
const FILE_NAME = /\.(?:gguf|safetensors|jinja|jsonl?|txt|bin|pt|pth|onnx|model|md)$/i;

/**
 * Parses the id of a model of the hub; undefined for other texts. Accepted are:
 * `ORG/NAME`, `NAME`, each with `@REVISION`, then `:FILE`, `/FILE` (.gguf or .safetensors) or `:TAG` (a quantization);
 * the same after `hf://`, `hf.co/` or `huggingface.co/`; links to a repository, a folder (`/tree/`) or a file (`/blob/`,
 * `/resolve/`, `/raw/`).
 * @param endpoint address of another hub whose links are accepted too
 */
export function parseHubId(text: string, endpoint?: string): HubId | undefined {
  const site = endpoint !== undefined && text.startsWith(`${endpoint}/`) ? `${endpoint}/` : SITES.exec(text)?.[0];
  if (site !== undefined) return parseLink(text.slice(site.length)) ?? parseId(text.slice(site.length));
  const [scheme] = /^hf:\/\/(?:models\/)?/i.exec(text) ?? [''];
  const id = parseId(text.slice(scheme.length));
  // A name without a slash that ends like a file name is a missing file, not an id.
  return scheme === '' && id && !id.repository.includes('/') && FILE_NAME.test(id.repository) ? undefined : id;
}

function parseId(text: string): HubId | undefined {
  const [, repository, revision, separator, rest] = ID.exec(text) ?? [];
  if (repository === undefined || !isRepository(repository)) return undefined;
  // `a/b/c` is accepted only as a .gguf or .safetensors file `c` in `a/b`; other paths are not ids.
  if (separator === '/' && (!WEIGHTS.test(rest!) || !repository.includes('/'))) return undefined;
  if (separator === undefined && /[:@]$/.test(text)) return undefined;
  return hubId(repository, revision, rest, WEIGHTS);
}

/** @param text path of a link to the hub, without the host */
function parseLink(text: string): HubId | undefined {
  const path = decoded(text.replace(/[?#].*$/s, ''));
  const [, repository, kind, revision, rest] = LINK.exec(path) ?? [];
  if (repository === undefined || !isRepository(repository)) return undefined;
  return hubId(repository, revision, rest, kind === 'tree' ? WEIGHTS : /./);
}

/** @param files matches `rest` if it is a file; otherwise it is a tag */
function hubId(
  repository: string,
  revision: string | undefined,
  rest: string | undefined,
  files: RegExp,
): HubId | undefined {
  const tail = rest?.replace(/\/$/, '');
  if (tail !== undefined && !isSafePath(tail)) return undefined;
  if (revision !== undefined && !isSafePath(revision)) return undefined;
  const isFile = tail !== undefined && files.test(tail);
  return {
    repository,
    file: isFile ? tail : undefined,
    ...(tail !== undefined && !isFile && { tag: tail }),
    ...(revision !== undefined && { revision }),
  };
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** The revision from an id or an option. @throws HubError InvalidRevision if both are given and differ */
export function revisionOf(id: HubId, option: string | undefined): string {
  if (id.revision !== undefined && option !== undefined && id.revision !== option) {
    const what = `expected one revision, found ${quote(id.revision)} in the id and ${quote(option)} as an option`;
    throw new HubError('InvalidRevision', `${id.repository}: ${what}`);
  }
  return option ?? id.revision ?? 'main';
}

export const isRepository = (id: string): boolean => REPOSITORY.test(id) && !/--|\.\./.test(id);

/** @throws HubError InvalidId */
export function checkRepository(id: string): string {
  if (isRepository(id)) return id;
  throw new HubError('InvalidId', `expected an id such as organisation/name, found ${quote(id)}`);
}

const RESERVED = /^(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(?:\..*)?$/i;

/** Whether a path stays below its folder and is a valid file name on POSIX systems and Windows. */
export function isSafePath(path: string): boolean {
  return (
    staysInside(path) &&
    path.split('/').every((part) => isPlainFileName(part) && !RESERVED.test(part) && !/[. ]$|[<>"|?*]/.test(part))
  );
}

/** Whether a path stays below its folder on all systems. It may still not be a valid file name on Windows. */
export function staysInside(path: string): boolean {
  return (
    path.length <= 1024 &&
    !/^[A-Za-z]:/.test(path) &&
    // biome-ignore lint/suspicious/noControlCharactersInRegex: the pattern looks for control characters
    !/[\\\u0000-\u001f]/.test(path) &&
    path.split('/').every((part) => part.length > 0 && part.length <= 255 && part !== '.' && part !== '..')
  );
}

/**
 * Checks the path of a file that is to be written.
 * @throws HubError UnsafeFileName
 */
export function checkPath(repository: string, path: string, windows = process.platform === 'win32'): string {
  if (windows ? isSafePath(path) : staysInside(path)) return path;
  const found = quote(path);
  throw new HubError('UnsafeFileName', `${repository}: expected file names that stay in their folder, found ${found}`);
}

const COMMIT = /^[0-9a-f]{40}$/;
const HASH = /^(?:[0-9a-f]{40}|[0-9a-f]{64})$/;

export const isCommit = (text: unknown): text is string => typeof text === 'string' && COMMIT.test(text);
export const isHash = (text: string): boolean => HASH.test(text);

/** Checks a branch, tag or commit, which may have slashes. @throws HubError InvalidRevision */
export function checkRevision(revision: string): string {
  if (isSafePath(revision)) return revision;
  throw new HubError('InvalidRevision', `expected a branch, tag or commit, found ${quote(revision)}`);
}

/** Matches like Python's fnmatch: `*` and `?` match slashes too. */
export function matchesGlob(pattern: string, path: string): boolean {
  const source = pattern
    .replace(/[.+^${}()|[\]\\]/g, '\\$&')
    .replace(/\*+/g, '.*')
    .replace(/\?/g, '.');
  return new RegExp(`^${source}$`, 's').test(path);
}

export const quote = (text: string): string => JSON.stringify(text.slice(0, 200));
