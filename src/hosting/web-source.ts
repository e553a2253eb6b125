/** Finds the files of a model in a browser: at an address, on the hub, or among files and folders that the user chose. */
import { browserHost } from '../backend/wasm/threads/host-browser.ts';
import type { ModelSource } from '../engine/load.ts';
import { FormatError, LanewiseError, OptionError } from '../errors.ts';
import { blobFolder, handleFolder } from '../formats/adapters/blob.ts';
import { type FetchOptions, fetchFolder } from '../formats/adapters/fetch.ts';
import type { FileFolder } from '../formats/bytes.ts';
import { parseHubId } from '../hub/names.ts';
import { webModel } from '../hub/web.ts';

/**
 * An id of the hub (`org/name`, `org/name:Q4_K_M`, `org/name@revision`), the address of a folder or of a .gguf or
 * .safetensors file (a relative address begins with `/`, `./` or `../`), or files or a folder that the user chose.
 */
export type WebModelSource =
  | string
  | URL
  | Blob
  | Iterable<File>
  | ArrayLike<File>
  | FileSystemDirectoryHandle
  | FileSystemFileHandle;

export interface WebSourceOptions {
  /** Address of the hub. Default https://huggingface.co. */
  readonly endpoint?: string;
  /** Access token of the hub, for private and gated models. Sent to the hub only. */
  readonly token?: string;
  /** A branch, tag or commit of the hub's repository. Default main. */
  readonly revision?: string;
  /** Sent with each request. */
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
}

export interface FoundFiles {
  readonly folder: FileFolder;
  readonly file?: string;
  /** Adds the server's answer to an error about a missing file, if the server refused that file. */
  explain(error: unknown): unknown;
}

const HUB = 'https://huggingface.co';
const KINDS =
  'an id of the hub, the address of a folder or of a .gguf or .safetensors file, a File, an array of Files or a folder handle';
const isFileName = (name: string): boolean => /\.(?:gguf|safetensors)$/i.test(name);
const asIs = (error: unknown): unknown => error;

/** @throws OptionError, HubError, FormatError */
export async function findFiles(source: WebModelSource, options: WebSourceOptions = {}): Promise<FoundFiles> {
  if (typeof source === 'string' || source instanceof URL) return atAddress(String(source), options);
  if (source instanceof Blob) return { ...(await oneFile(source)), explain: asIs };
  if (typeof source !== 'object' || source === null) throw new OptionError('source', KINDS, source);
  if ('kind' in source) {
    if (source.kind === 'file') return { ...(await oneFile(await source.getFile())), explain: asIs };
    return { folder: handleFolder(source), explain: asIs };
  }
  if (!(Symbol.iterator in source || 'length' in source)) throw new OptionError('source', KINDS, source);
  const files = Array.from(source);
  if (files.length === 0 || !files.every((file) => file instanceof Blob && typeof file.name === 'string'))
    throw new OptionError('source', KINDS, source);
  if (files.length === 1) return { ...(await oneFile(files[0]!)), explain: asIs };
  return { folder: blobFolder('chosen files', files), explain: asIs };
}

/** Makes addresses absolute, since a worker resolves relative ones against its own address. @throws OptionError */
export function sourceForWorker(source: WebModelSource): WebModelSource {
  if (source instanceof URL) return String(source);
  if (typeof source === 'string') return /^\.{0,2}\//.test(source) ? String(absolute(source)) : source;
  if (typeof source !== 'object' || source === null) throw new OptionError('source', KINDS, source);
  if (source instanceof Blob || 'kind' in source) return source;
  if (!(Symbol.iterator in source || 'length' in source)) throw new OptionError('source', KINDS, source);
  return Array.from(source);
}

/** Finds the files of a draft model, with the same options but `revision`, which applies to the model only. */
export const otherModel =
  ({ endpoint, token, headers }: WebSourceOptions, signal: AbortSignal | undefined) =>
  async (path: string): Promise<ModelSource> => {
    const { folder, file } = await findFiles(path, { endpoint, token, headers, signal });
    return { folder, file, host: browserHost() };
  };

/** Recognizes a single file by its first bytes: its name may be anything, or missing. */
async function oneFile(blob: Blob): Promise<Pick<FoundFiles, 'folder' | 'file'>> {
  const given = blob instanceof File ? blob.name : 'model';
  const start = new Uint8Array(await blob.slice(0, 4).arrayBuffer());
  const isGguf = String.fromCharCode(...start) === 'GGUF';
  const name = isGguf && !given.endsWith('.gguf') ? `${given}.gguf` : given;
  if (!isFileName(name)) {
    const what = `expected a .gguf file, or a .safetensors file together with its config.json and tokenizer, found neither`;
    throw new FormatError('NoCheckpoint', name, what);
  }
  const file = name === given && blob instanceof File ? blob : new File([blob], name);
  return { folder: blobFolder('chosen files', [file]), file: name };
}

async function atAddress(text: string, options: WebSourceOptions): Promise<FoundFiles> {
  const { endpoint = HUB, token, revision, headers, signal } = options;
  const refusals = new Map<string, number>();
  const onMissing = (url: string, status: number): void => void refusals.set(url, status);
  const fetching: FetchOptions = { headers, signal, onMissing };
  const isAddress = /^(?:[a-z][\w+.-]*:\/\/|blob:|\.{0,2}\/)/i.test(text) && !/^hf:\/\//i.test(text);
  const id = isAddress && !/^https?:/i.test(text) ? undefined : parseHubId(text, endpoint.replace(/\/+$/, ''));
  const explain = (error: unknown): unknown => refusal(error, refusals);
  if (id) return { ...(await webModel(id, { ...fetching, endpoint, token, revision })), explain };
  if (revision !== undefined)
    throw new OptionError('revision', 'left out: the source is not an id of the hub', revision);
  const url = absolute(text);
  if (url.protocol === 'blob:') return { ...(await oneFile(await (await fetch(url, { signal })).blob())), explain };
  const { pathname, search } = url;
  const name = decodeURIComponent(pathname.slice(pathname.lastIndexOf('/') + 1));
  const isFile = isFileName(name);
  const folder = new URL(isFile ? '.' : pathname, url);
  folder.search = '';
  folder.hash = '';
  return { folder: fetchFolder(folder, { ...fetching, query: search }), ...(isFile && { file: name }), explain };
}

/** @throws OptionError */
function absolute(text: string): URL {
  const base = globalThis.document?.baseURI ?? globalThis.location?.href;
  if (!URL.canParse(text, base)) throw new OptionError('source', KINDS, text);
  return new URL(text, base);
}

/** Adds the server's answer to an error about a file that the server did not simply report missing. */
function refusal(error: unknown, refusals: ReadonlyMap<string, number>): unknown {
  if (!(error instanceof LanewiseError && ['NoConfig', 'NoCheckpoint', 'MissingShard'].includes(error.code)))
    return error;
  const [url, status] = [...refusals].find(([, found]) => found !== 404) ?? [];
  if (status === undefined) return error;
  const found = status < 300 ? 'a page (text/html) instead of a file' : `status ${status}`;
  error.message = `${error.message} (the server answered ${url} with ${found})`;
  return error;
}
