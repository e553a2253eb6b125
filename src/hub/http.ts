/** Requests to the hub: redirects followed by hand, patience with busy servers, none with silent ones. */
import type { HubErrorCode } from '../error-codes.ts';
import { HubError } from '../errors.ts';
import { IMPOSTOR_BYTES, impostorOf } from '../formats/impostor.ts';
import { quote } from './names.ts';
import { fetchThroughProxy, proxyFor } from './proxy.ts';
import type { HubSettings } from './settings.ts';

export interface Connection {
  readonly settings: HubSettings;
  readonly signal: AbortSignal | undefined;
  /** Tries of one request before its error counts. */
  readonly attempts: number;
  /** Milliseconds before the second try; doubled for each further one. */
  readonly delayMs: number;
  /** A server that sends nothing for so long is given up. */
  readonly stallMs: number;
}

export interface Reply {
  readonly response: Response;
  /** Address that answered. */
  readonly url: URL;
  /** Pieces of the body. @throws HubError Stalled; errors of the network */
  chunks(): AsyncGenerator<Uint8Array, void, undefined>;
  /** Ends the exchange without reading the body. */
  cancel(): Promise<void>;
}

export interface RequestOptions {
  readonly method?: 'GET' | 'HEAD';
  readonly headers?: Readonly<Record<string, string>>;
  /** Ends this request besides the connection's signal. */
  readonly signal?: AbortSignal;
  /** A redirect to another origin, or one that names the file's hash, is the answer. */
  readonly stay?: boolean;
}

const MOST_HOPS = 5;
const LONGEST_WAIT_MS = 60_000;

/** A failure that another try may mend. */
export class Transient extends HubError {
  readonly waitMs: number | undefined;

  constructor(code: HubErrorCode, message: string, waitMs?: number) {
    super(code, message);
    this.waitMs = waitMs;
  }
}

/** Where a redirect leads. @throws HubError InsecureRedirect, InvalidRedirect */
export function nextHop(from: URL, location: string | null): URL {
  const to = location !== null && URL.canParse(location, from) ? new URL(location, from) : undefined;
  if (!to || (to.protocol !== 'https:' && to.protocol !== 'http:')) {
    throw new HubError(
      'InvalidRedirect',
      `${from.origin}: expected an address to go on to, found ${quote(String(location))}`,
    );
  }
  if (from.protocol === 'https:' && to.protocol === 'http:') {
    throw new HubError('InsecureRedirect', `${from.origin}: redirects to plain http at ${to.host}: refused`);
  }
  return to;
}

/** One try. @throws HubError for every answer but 200, 206, 304, 416 and (with `stay`) redirects; Transient */
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

/** Controllers that end with a signal, heard by one listener of it. */
const followers = new WeakMap<AbortSignal, Set<WeakRef<AbortController>>>();

/** Keeps a controller as long as somebody has its signal. */
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

/** An abort keeps its own reason. */
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

/** The error that an answer stands for. */
async function refusal(response: Response, url: URL, settings: HubSettings): Promise<HubError> {
  await response.body?.cancel().catch(() => undefined);
  const { status, headers } = response;
  const code = headers.get('x-error-code');
  const place = `${url.host}${url.pathname}`;
  if (status === 429 || status >= 500) {
    const seconds = Number(headers.get('retry-after') ?? Number.NaN);
    const wait = Number.isFinite(seconds) && seconds >= 0 ? Math.min(seconds * 1000, LONGEST_WAIT_MS) : undefined;
    const what = status === 429 ? 'too many requests' : `the server has failed (status ${status})`;
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
      `${place}: its owner asks for your consent; give it on the model's page, then set HF_TOKEN`,
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

/** Tries again what may pass, with growing pauses. */
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

/** A whole body of at most `limit` bytes. @throws HubError TooLarge */
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

/** What bytes look like that are not the file asked for; undefined where they look like any file. */
export function impostor(bytes: Uint8Array): string | undefined {
  const start = Buffer.from(bytes.subarray(0, IMPOSTOR_BYTES)).toString('latin1').trimStart();
  return impostorOf(bytes)?.what ?? (/^\{\s*"error"/.test(start) ? 'an error message in JSON' : undefined);
}

/** @param host the one that sent it */
export function notTheFile(name: string, received: string, host?: string): HubError {
  const from = host === undefined ? '' : ` from ${host}`;
  const what = `expected the file${from}, received ${received}; check HF_ENDPOINT and the network`;
  return new HubError('NotTheFile', `${name}: ${what}`);
}
