/** Files behind HTTP addresses, read by ranges (RFC 9110, section 14). */
import { FormatError } from '../../errors.ts';
import { type ByteSource, byteSource, checkFileName, type FileFolder, fileChanged } from '../bytes.ts';
import { IMPOSTOR_BYTES, impostorOf, notTheFile } from '../impostor.ts';

export interface FetchOptions {
  /** Sent with every request, for instance `{ authorization: 'Bearer ...' }`. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Stops requests under way; reads then reject with its reason. */
  readonly signal?: AbortSignal;
  /** Makes the requests, for servers with rules of their own. Default: `fetch`. */
  readonly request?: (url: string, init: RequestInit) => Promise<Response>;
}

/** What an answer says about the file: `bytes 0-0/1234` gives total 1234. */
interface RangeAnswer {
  readonly response: Response;
  /** First byte of the body, undefined where the file is empty (416). */
  readonly start: number | undefined;
  /** Bytes of the body. */
  readonly length: number;
  readonly total: number;
  readonly etag: string | null;
}

/**
 * Opens a file behind an address. Undefined where the server has none: status 404, or a page of HTML, with which hosts of
 * single-page applications answer whatever they do not have.
 * @throws FormatError HttpStatus, RangeNotSupported, InvalidRange, NotTheFile
 */
export async function openUrl(url: string | URL, options: FetchOptions = {}): Promise<ByteSource | undefined> {
  const name = String(url);
  const first = await requestRange(name, 0, IMPOSTOR_BYTES, options);
  if (!first) return undefined;
  const { total, etag } = first;
  const start = new Uint8Array(first.length);
  await fill(first.response, name, 0, start);
  if (isPage(start)) return undefined;
  const impostor = impostorOf(start);
  if (impostor) throw notTheFile(name, impostor);
  return byteSource(name, total, async (start, target) => {
    if (target.length === 0) return;
    const answer = await requestRange(name, start, start + target.length, options);
    if (answer?.start !== start || answer.total !== total || answer.etag !== etag) {
      await answer?.response.body?.cancel();
      throw fileChanged(name, start);
    }
    await fill(answer.response, name, start, target);
  });
}

/** Asks for bytes [start, end). Undefined where there is no such file. */
async function requestRange(
  url: string,
  start: number,
  end: number,
  options: FetchOptions,
): Promise<RangeAnswer | undefined> {
  const headers = { ...options.headers, range: `bytes=${start}-${end - 1}` };
  const { request = fetch, signal = null } = options;
  const response = await request(url, { headers, signal });
  const refuse = async (code: string, what: string): Promise<never> => {
    if (!response.bodyUsed) await response.body?.cancel().catch(() => undefined);
    throw new FormatError(code, url, what, { offset: start });
  };
  const etag = response.headers.get('etag');
  const range = response.headers.get('content-range') ?? '';
  if (response.status === 206) {
    const [, from, to, total] = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(range) ?? [];
    if (total === undefined || Number(to) >= end) {
      return refuse(
        'InvalidRange',
        `asked for bytes ${start} to ${end - 1}, the server answers ${JSON.stringify(range)}`,
      );
    }
    return { response, start: Number(from), length: Number(to) + 1 - Number(from), total: Number(total), etag };
  }
  if (response.status === 416 && /^bytes \*\/0$/.test(range)) {
    return { response, start: undefined, length: 0, total: 0, etag };
  }
  if (response.status === 404) {
    await response.body?.cancel();
    return undefined;
  }
  if (response.status === 200) {
    const reader = response.body?.getReader();
    const { value } = (await reader?.read()) ?? {};
    await reader?.cancel().catch(() => undefined);
    if (value && isPage(value)) return undefined;
    const what = 'asked for a range, the server answers 200 with the whole file: it does not support ranges';
    return refuse('RangeNotSupported', `${what}; use one that does, or load from a file`);
  }
  return refuse('HttpStatus', `expected status 206, found ${response.status} ${response.statusText}`.trimEnd());
}

/** Whether a body is a page of HTML, the answer of many hosts where they have no file. */
const isPage = (body: Uint8Array): boolean => impostorOf(body)?.what === 'an HTML page';

/** Fills `target` with a body of exactly its length. */
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

/** Files under an address. HTTP cannot list: `names` are the files known to be there, if any are known. */
export function fetchFolder(
  base: string | URL,
  options: FetchOptions & { names?: readonly string[] } = {},
): FileFolder {
  const root = String(base).replace(/\/?$/, '/');
  return {
    name: root.slice(0, -1),
    list: async () => [...(options.names ?? [])].sort(),
    async open(name) {
      checkFileName(root, name);
      return openUrl(new URL(encodeURIComponent(name), root), options);
    },
    folder(name) {
      checkFileName(root, name);
      return fetchFolder(new URL(encodeURIComponent(name), root), { ...options, names: undefined });
    },
  };
}
