/** A local server with the API of the hub, and with faults that tests can inject. */
import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { HubSettings } from '../../src/hub/settings.ts';

export const commit = 'c'.repeat(40);

export interface Seen {
  readonly method: string;
  readonly path: string;
  readonly range: string | undefined;
  readonly authorization: string | undefined;
  readonly ifRange: string | undefined;
}

/** Handles a request instead of the server. @returns whether it did */
export type Fault = (request: IncomingMessage, response: ServerResponse, seen: Seen) => boolean | undefined;

export class HubServer {
  readonly files = new Map<string, Buffer>();
  readonly seen: Seen[] = [];
  commit = commit;
  fault: Fault | undefined;
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  static async start(files: Record<string, Buffer | string> = {}): Promise<HubServer> {
    const server = createServer((request, response) => hub.#answer(request, response));
    const hub = new HubServer(server);
    for (const [path, bytes] of Object.entries(files)) hub.files.set(path, Buffer.from(bytes));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return hub;
  }

  get origin(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  settings(cache: string, more: Partial<HubSettings> = {}): HubSettings {
    return { cache, endpoint: this.origin, token: undefined, offline: false, ...more };
  }

  /** Requests for the bytes of a file. */
  gets(path: string): Seen[] {
    return this.seen.filter(
      (one) => one.method === 'GET' && one.path.endsWith(`/${path}`) && one.path.startsWith('/cdn'),
    );
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const path = decodeURIComponent(new URL(request.url!, this.origin).pathname);
    const { range, authorization, 'if-range': ifRange } = request.headers;
    const seen = { method: request.method!, path, range, authorization, ifRange: ifRange as string | undefined };
    this.seen.push(seen);
    if (this.fault?.(request, response, seen)) return;
    if (path.startsWith('/api/models/')) {
      const siblings = [...this.files].map(([rfilename, bytes]) => ({ rfilename, size: bytes.length }));
      response.setHeader('content-type', 'application/json');
      response.end(JSON.stringify({ sha: this.commit, siblings }));
      return;
    }
    const [, place, file = ''] = /^\/(cdn|[^/]+\/[^/]+\/resolve\/[^/]+)\/(.+)$/s.exec(path) ?? [];
    const bytes = this.files.get(file);
    if (!bytes) {
      response.writeHead(404, { 'x-error-code': 'EntryNotFound' }).end();
      return;
    }
    if (place === 'cdn') sendBytes(request, response, bytes);
    else {
      response.setHeader('x-repo-commit', this.commit);
      response.setHeader('x-linked-etag', `"${hashOf(file, bytes)}"`);
      response.setHeader('x-linked-size', bytes.length);
      response.writeHead(302, { location: `/cdn/${file.split('/').map(encodeURIComponent).join('/')}` }).end();
    }
  }
}

const isLarge = (file: string): boolean => /\.(safetensors|gguf)$/.test(file);

/** The blob name of a file: sha256 for large files, git's sha1 for others. */
export function hashOf(file: string, bytes: Buffer): string {
  if (isLarge(file)) return createHash('sha256').update(bytes).digest('hex');
  return createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex');
}

/** Sends a file, or the requested range. */
export function sendBytes(
  request: IncomingMessage,
  response: ServerResponse,
  bytes: Buffer,
  etag = '"of-the-cdn"',
): void {
  const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? [];
  const condition = request.headers['if-range'];
  response.setHeader('etag', etag);
  if (from === undefined || (condition !== undefined && condition !== etag)) {
    response.writeHead(200, { 'content-length': bytes.length }).end(bytes);
    return;
  }
  const end = Math.min(Number(to) + 1, bytes.length);
  const part = bytes.subarray(Number(from), end);
  response.setHeader('content-range', `bytes ${from}-${end - 1}/${bytes.length}`);
  response.writeHead(206, { 'content-length': part.length }).end(part);
}

/** Pseudorandom bytes from a seed. */
export function noise(length: number, seed = 1): Buffer {
  const bytes = Buffer.alloc(length);
  let state = seed;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = state >>> 24;
  }
  return bytes;
}
