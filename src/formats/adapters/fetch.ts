/** Files behind HTTP addresses, read by ranges (RFC 9110, section 14). */
import type { FormatErrorCode } from '../../error-codes.ts';
import { FormatError } from '../../errors.ts';
import { type ByteSource, byteSource, checkFileName, type FileFolder, fileChanged } from '../bytes.ts';
import { IMPOSTOR_BYTES, impostorOf, notTheFile } from '../impostor.ts';
import { blobSource } from './blob.ts';

export interface FetchOptions {
  /** Sent with every request, for instance `{ authorization: 'Bearer ...' }`. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Aborts requests; pending reads reject with its reason. */
  readonly signal?: AbortSignal;
  /** Replaces `fetch`, for servers that need special requests. */
  readonly request?: (url: string, init: RequestInit) => Promise<Response>;
  /** Called for each address that has no file, with the server's status. */
  readonly onMissing?: (url: string, status: number) => void;
}

/** What a response says about the file: `bytes 0-0/1234` gives total 1234. */
interface RangeAnswer {
  readonly response: Response;
  /** File position of the body's first byte; undefined if the file is empty (416). */
  readonly start: number | undefined;
  /** Bytes of the body, if known. */
  readonly length: number | undefined;
  /** Length of the file; undefined if the server does not say, or hides it from pages of other origins (CORS). */
  readonly total: number | undefined;
  readonly etag: string | null;
  /** The body is the whole file: the server does not support ranges. */
  readonly whole?: boolean;
}

/** Statuses that do not mean a missing file: timeouts and rate limits. */
const passing = new Set([408, 425, 429]);

/**
 * Opens the file at an address. It is read by ranges, or downloaded whole if the server does not support ranges.
 * Undefined if the server has no such file: a 4xx status (some stores answer 403 for missing files) or an HTML page.
 * @throws FormatError HttpStatus, InvalidRange, NotTheFile
 */
export async function openUrl(url: string | URL, options: FetchOptions = {}): Promise<ByteSource | undefined> {
  const name = String(url);
  const { request = fetch, signal, headers } = options;
  const missing = (status: number): undefined => void options.onMissing?.(name, status);
  const first = await requestRange(name, 0, IMPOSTOR_BYTES, options);
  if (typeof first === 'number') return missing(first);
  const { response, etag } = first;
  const blob = first.whole ? await response.blob() : undefined;
  const start = blob ? new Uint8Array(await blob.slice(0, IMPOSTOR_BYTES).arrayBuffer()) : await beginning(first, name);
  const impostor = impostorOf(start);
  // Hosts of single-page applications answer with index.html for missing files.
  if (impostor?.what === 'an HTML page') return missing(response.status);
  if (impostor) throw notTheFile(name, impostor);
  if (blob) return blobSource(name, blob);
  const total = first.total ?? (await lengthOf(name, options));
  if (total === undefined) {
    const whole = await request(name, { headers, signal });
    if (whole.ok) return blobSource(name, await whole.blob());
    throw new FormatError(
      'HttpStatus',
      name,
      `expected status 200, found ${whole.status} ${whole.statusText}`.trimEnd(),
    );
  }
  return byteSource(name, total, async (start, target) => {
    if (target.length === 0) return;
    const answer = await requestRange(name, start, start + target.length, options);
    if (typeof answer === 'number') throw fileChanged(name, start);
    if (answer.start !== start || (answer.total ?? total) !== total || answer.etag !== etag || answer.whole) {
      await answer.response.body?.cancel();
      throw fileChanged(name, start);
    }
    await fill(answer.response, name, start, target);
  });
}

/** Length of a file, for servers whose range responses do not state it. */
async function lengthOf(url: string, { request = fetch, signal, headers }: FetchOptions): Promise<number | undefined> {
  const response = await request(url, { method: 'HEAD', headers, signal });
  await response.body?.cancel();
  const length = Number(response.headers.get('content-length') ?? Number.NaN);
  const encoded = response.headers.get('content-encoding') ?? 'identity';
  return response.ok && encoded === 'identity' && Number.isSafeInteger(length) ? length : undefined;
}

/** The first bytes of a file, fewer if the file is shorter. */
async function beginning({ response, start, length }: RangeAnswer, url: string): Promise<Uint8Array> {
  if (start === undefined) return new Uint8Array();
  if (length === undefined) return new Uint8Array(await response.arrayBuffer());
  const bytes = new Uint8Array(length);
  await fill(response, url, 0, bytes);
  return bytes;
}

/** Requests bytes [start, end). Returns the status if there is no such file. */
async function requestRange(
  url: string,
  start: number,
  end: number,
  options: FetchOptions,
): Promise<RangeAnswer | number> {
  const headers = { ...options.headers, range: `bytes=${start}-${end - 1}` };
  const { request = fetch, signal } = options;
  const response = await request(url, { headers, signal });
  const { status } = response;
  const refuse = async (code: FormatErrorCode, what: string): Promise<never> => {
    await response.body?.cancel().catch(() => undefined);
    throw new FormatError(code, url, what, { offset: start });
  };
  const etag = response.headers.get('etag');
  const range = response.headers.get('content-range') ?? '';
  if (status === 206) {
    if (range === '') return { response, start, length: undefined, total: undefined, etag };
    const [, from, to, total] = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(range) ?? [];
    if (total === undefined || Number(to) >= end) {
      return refuse(
        'InvalidRange',
        `expected bytes ${start} to ${end - 1}, the server answered ${JSON.stringify(range)}`,
      );
    }
    const length = Number(to) + 1 - Number(from);
    return { response, start: Number(from), length, total: total === '*' ? undefined : Number(total), etag };
  }
  if (status === 416 && /^bytes \*\/0$/.test(range)) {
    return { response, start: undefined, length: 0, total: 0, etag };
  }
  if (status === 200) return { response, start: 0, length: undefined, total: undefined, etag, whole: true };
  if (status >= 400 && status < 500 && status !== 416 && !passing.has(status)) {
    await response.body?.cancel();
    return status;
  }
  return refuse('HttpStatus', `expected status 206 or 200, found ${status} ${response.statusText}`.trimEnd());
}

/** Fills `target` from a body that must have exactly its length. */
async function fill(response: Response, url: string, start: number, target: Uint8Array): Promise<void> {
  const reader = response.body?.getReader();
  let done = 0;
  try {
    for (;;) {
      const piece = await reader?.read();
      if (!piece || piece.done) break;
      if (done + piece.value.length > target.length) throw fileChanged(url, start + target.length);
      target.set(piece.value, done);
      done += piece.value.length;
    }
  } finally {
    await reader?.cancel().catch(() => undefined);
  }
  if (done < target.length) throw fileChanged(url, start + done);
}

export interface FetchFolderOptions extends FetchOptions {
  /** Names of files known to exist, returned by `list`: HTTP cannot list. */
  readonly names?: readonly string[];
  /** Paths of all files below the address; other paths are not requested. */
  readonly paths?: readonly string[];
  /** Appended to each address: `?` and parameters. */
  readonly query?: string;
}

/** The files below an address. */
export function fetchFolder(base: string | URL, options: FetchFolderOptions = {}): FileFolder {
  const root = String(base).replace(/\/?$/, '/');
  const { names, paths, query = '' } = options;
  const address = (name: string): URL => new URL(encodeURIComponent(name) + query, root);
  return {
    name: root.slice(0, -1),
    list: async () => [...(paths?.filter((path) => !path.includes('/')) ?? names ?? [])].sort(),
    async open(name) {
      checkFileName(root, name);
      return paths && !paths.includes(name) ? undefined : openUrl(address(name), options);
    },
    folder(name) {
      checkFileName(root, name);
      const inside = paths?.flatMap((path) => (path.startsWith(`${name}/`) ? [path.slice(name.length + 1)] : []));
      return fetchFolder(new URL(encodeURIComponent(name), root), { ...options, names: undefined, paths: inside });
    },
  };
}
