/** Requests to the hub: redirects are followed and checked here, failures retried, stalled responses given up. */
import type { HubErrorCode } from '../error-codes.ts';
import { HubError } from '../errors.ts';
import { IMPOSTOR_BYTES, impostorOf } from '../formats/impostor.ts';
import { quote } from './names.ts';
import { fetchThroughProxy, proxyFor } from './proxy.ts';
import type { HubSettings } from './settings.ts';

export interface Connection {
  readonly settings: HubSettings;
  readonly signal: AbortSignal | undefined;
  /** Most tries of a request. */
  readonly attempts: number;
  /** Milliseconds before the second try; doubled for each further try. */
  readonly delayMs: number;
  /** A response is given up after this many milliseconds without data. */
  readonly stallMs: number;
}

export interface Reply {
  readonly response: Response;
  /** Final address, after redirects. */
  readonly url: URL;
  /** Pieces of the body. @throws HubError Stalled; network errors */
  chunks(): AsyncGenerator<Uint8Array, void, undefined>;
  /** Closes the response without reading the body. */
  cancel(): Promise<void>;
}

export interface RequestOptions {
  readonly method?: 'GET' | 'HEAD';
  readonly headers?: Readonly<Record<string, string>>;
  /** Aborts this request, in addition to the connection's signal. */
  readonly signal?: AbortSignal;
  /** Whether to return a redirect to another origin, or one with the file's hash, instead of following it. */
  readonly stay?: boolean;
}

const MOST_HOPS = 5;
const LONGEST_WAIT_MS = 60_000;

/** A failure that may not occur on another try. */
export class Transient extends HubError {
  readonly waitMs: number | undefined;

  constructor(code: HubErrorCode, message: string, waitMs?: number) {
    super(code, message);
    this.waitMs = waitMs;
  }
}

/** Target of a redirect. @throws HubError InsecureRedirect, InvalidRedirect */
export function nextHop(from: URL, location: string | null): URL {
  const to = location !== null && URL.canParse(location, from) ? new URL(location, from) : undefined;
  if (!to || (to.protocol !== 'https:' && to.protocol !== 'http:')) {
    throw new HubError(
      'InvalidRedirect',
      `${from.origin}: expected the address of a redirect, found ${quote(String(location))}`,
    );
  }
  if (from.protocol === 'https:' && to.protocol === 'http:') {
    throw new HubError('InsecureRedirect', `${from.origin}: redirects to plain http at ${to.host}: refused`);
  }
  return to;
}

/** Sends a request once. @throws HubError for statuses except 200, 206, 304, 416 and (with `stay`) redirects; Transient */
export async function request(
  connection: Connection,
  address: string | URL,
  options: RequestOptions = {},
): Promise<Reply> {
  const { settings, stallMs } = connection;
  let url = new URL(address);
  for (let hop = 0; ; hop++) {
    const controller = new AbortController();
    const signals = [controller.signal, connection.signal, options.signal].filter((signal) => signal !== undefined);
    const timer = stallTimer(controller, stallMs, url);
    const headers: Record<string, string> = { 'accept-encoding': 'identity', ...options.headers };
    if (settings.token && url.origin === new URL(settings.endpoint).origin) {
      headers.authorization = `Bearer ${settings.token}`;
    }
    const response = await fetchThroughProxy(url, {
      method: options.method ?? 'GET',
      headers,
      signal: anySignal(signals),
    })
      .catch((error: unknown) => {
        throw networkError(error, url, signals);
      })
      .finally(() => timer.stop());
    const redirects = [301, 302, 303, 307, 308].includes(response.status);
    if (!redirects) {
      if (![200, 206, 304, 416].includes(response.status)) throw await refusal(response, url, settings);
      return reply(response, url, { controller, stallMs, signals });
    }
    const to = nextHop(url, response.headers.get('location'));
    if (options.stay && (to.origin !== url.origin || response.headers.has('x-linked-etag')))
      return reply(response, url, { controller, stallMs, signals });
    await response.body?.cancel();
    if (hop >= MOST_HOPS) {
      throw new HubError(
        'TooManyRedirects',
        `${new URL(address).host}: expected at most ${MOST_HOPS} redirects, found more`,
      );
    }
    url = to;
  }
}

/** Controllers to abort with a signal. One listener per signal, so that listeners do not accumulate. */
const followers = new WeakMap<AbortSignal, Set<WeakRef<AbortController>>>();

/** Keeps a controller alive as long as its signal is referenced. */
const keepers = new WeakMap<AbortSignal, AbortController>();

/** `AbortSignal.any`, which Node 20.0 lacks. */
function anySignal(signals: readonly AbortSignal[]): AbortSignal {
  if ('any' in AbortSignal) return AbortSignal.any([...signals]);
  const controller = new AbortController();
  for (const signal of signals) {
    if (signal.aborted) controller.abort(signal.reason);
    let group = followers.get(signal);
    if (!group) {
      const made = new Set<WeakRef<AbortController>>();
      followers.set(signal, made);
      group = made;
      const abort = (): void => {
        for (const follower of made) follower.deref()?.abort(signal.reason);
      };
      signal.addEventListener('abort', abort, { once: true });
    }
    group.add(new WeakRef(controller));
  }
  keepers.set(controller.signal, controller);
  return controller.signal;
}

function stallTimer(controller: AbortController, stallMs: number, url: URL): { stop(): void } {
  const what = `${url.host}: the server sent nothing for ${stallMs / 1000} s; check the network, then try again`;
  const timer = setTimeout(() => controller.abort(new Transient('Stalled', what)), stallMs);
  return { stop: () => clearTimeout(timer) };
}

function reply(
  response: Response,
  url: URL,
  about: { controller: AbortController; stallMs: number; signals: readonly AbortSignal[] },
): Reply {
  const { controller, stallMs, signals } = about;
  return {
    response,
    url,
    async *chunks() {
      const reader = response.body?.getReader();
      if (!reader) return;
      try {
        for (;;) {
          const timer = stallTimer(controller, stallMs, url);
          const piece = await reader
            .read()
            .catch((error: unknown) => {
              throw networkError(error, url, signals);
            })
            .finally(() => timer.stop());
          if (piece.done) return;
          yield piece.value;
        }
      } finally {
        await reader.cancel().catch(() => undefined);
      }
    },
    cancel: async () => response.body?.cancel().catch(() => undefined),
  };
}

/** The reason of an abort, else a HubError for a failed connection. */
function networkError(error: unknown, url: URL, signals: readonly AbortSignal[]): unknown {
  const aborted = signals.find((signal) => signal.aborted);
  if (aborted) return aborted.reason;
  if (error instanceof HubError) return error;
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  const code = cause instanceof Error && 'code' in cause ? String(cause.code) : String(cause);
  const proxy = proxyFor(url);
  const [through, check] = proxy ? [` through the proxy ${proxy.host}`, 'HTTPS_PROXY'] : ['', 'HF_ENDPOINT'];
  return new Transient(
    'NetworkError',
    `${url.host}: no connection${through} (${code}); check the network and ${check}`,
  );
}

/** The error for a response. */
async function refusal(response: Response, url: URL, settings: HubSettings): Promise<HubError> {
  await response.body?.cancel().catch(() => undefined);
  const { status, headers } = response;
  const code = headers.get('x-error-code');
  const place = `${url.host}${url.pathname}`;
  if (status === 429 || status >= 500) {
    const seconds = Number(headers.get('retry-after') ?? Number.NaN);
    const wait = Number.isFinite(seconds) && seconds >= 0 ? Math.min(seconds * 1000, LONGEST_WAIT_MS) : undefined;
    const what = status === 429 ? 'too many requests' : `the server failed with status ${status}`;
    return new Transient(
      status === 429 ? 'TooManyRequests' : 'ServerError',
      `${place}: ${what}; try again later`,
      wait,
    );
  }
  if (code === 'RevisionNotFound') return new HubError(code, `${place}: there is no such revision`);
  if (code === 'EntryNotFound') return new HubError(code, `${place}: there is no such file`);
  if (code === 'GatedRepo') {
    return new HubError(
      code,
      `${place}: the owner requires your consent; give it on the model's page, then set HF_TOKEN`,
    );
  }
  if (status === 401 || status === 403) {
    const what = settings.token
      ? 'the token in HF_TOKEN does not give access, or there is no such model'
      : 'no such model, or a private one: check the id, or set HF_TOKEN';
    return new HubError('Unauthorized', `${place}: ${what}`);
  }
  if (status === 404)
    return new HubError('RepositoryNotFound', `${place}: there is no such model or file; check the id`);
  return new HubError('HttpStatus', `${place}: expected status 200, found ${status}`);
}

/** Retries `work` after transient failures, with growing delays. */
export async function patiently<T>(connection: Connection, work: (attempt: number) => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work(attempt);
    } catch (error) {
      if (!(error instanceof Transient) || attempt >= connection.attempts) throw error;
      await pause(error.waitMs ?? connection.delayMs * 2 ** (attempt - 1), connection.signal);
    }
  }
}

async function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const stop = (): void => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', stop);
      resolve();
    }, ms);
    if (signal?.aborted) stop();
    else signal?.addEventListener('abort', stop, { once: true });
  });
}

/** Reads a body of at most `limit` bytes. @throws HubError TooLarge */
export async function readBody(reply: Reply, limit: number): Promise<Buffer> {
  const pieces: Uint8Array[] = [];
  let length = 0;
  for await (const piece of reply.chunks()) {
    length += piece.length;
    if (length > limit)
      throw new HubError('TooLarge', `${reply.url.host}: expected at most ${limit} bytes, found more`);
    pieces.push(piece);
  }
  return Buffer.concat(pieces);
}

/** Description of bytes that are an HTML page or a message instead of a file; undefined for others. */
export function impostor(bytes: Uint8Array): string | undefined {
  const start = Buffer.from(bytes.subarray(0, IMPOSTOR_BYTES)).toString('latin1').trimStart();
  return impostorOf(bytes)?.what ?? (/^\{\s*"error"/.test(start) ? 'an error message in JSON' : undefined);
}

/** @param host the host that sent the file */
export function notTheFile(name: string, received: string, host?: string): HubError {
  const from = host === undefined ? '' : ` from ${host}`;
  const what = `expected the file${from}, received ${received}; check HF_ENDPOINT and the network`;
  return new HubError('NotTheFile', `${name}: ${what}`);
}
