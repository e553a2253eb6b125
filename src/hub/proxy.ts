/**
 * Requests through a proxy, from the variables HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY, read as curl does. `fetch`
 * of Node 20 and 22 has no proxies, so such requests use node:http with an agent that opens tunnels.
 */
import { Agent as HttpAgent, type IncomingMessage, type RequestOptions, request as requestHttp } from 'node:http';
import { Agent as HttpsAgent, request as requestHttps } from 'node:https';
import { BlockList, isIP, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { Readable } from 'node:stream';
import { type ConnectionOptions, connect as connectTls } from 'node:tls';
import { HubError } from '../errors.ts';
import { quote } from './names.ts';

type Environment = Readonly<Record<string, string | undefined>>;

/** The proxy for an address; undefined for a direct connection. @throws HubError InvalidProxy */
export function proxyFor(url: URL, environment: Environment = process.env): URL | undefined {
  const value = (name: string): string | undefined => environment[name.toLowerCase()] || environment[name];
  const scheme = url.protocol.slice(0, -1).toUpperCase();
  // In a CGI program, HTTP_PROXY is the header `Proxy` of the client.
  const own =
    scheme === 'HTTP' && environment.REQUEST_METHOD !== undefined ? environment.http_proxy : value(`${scheme}_PROXY`);
  const text = own || value('ALL_PROXY');
  if (!text || isExcepted(url, value('NO_PROXY') ?? '')) return undefined;
  const address = text.includes('://') ? text : `http://${text}`;
  const proxy = URL.canParse(address) ? new URL(address) : undefined;
  if (proxy?.hostname && (proxy.protocol === 'http:' || proxy.protocol === 'https:')) return proxy;
  const shown = quote(address.replace(/\/\/[^/]*@/, '//***@'));
  throw new HubError('InvalidProxy', `${scheme}_PROXY or ALL_PROXY: expected an http or https proxy, found ${shown}`);
}

/** Whether NO_PROXY matches. Its entries: `*`, a domain with its subdomains, an address or a range, each with `:PORT`. */
function isExcepted(url: URL, list: string): boolean {
  const host = url.hostname.replace(/^\[(.*)\]$/, '$1').toLowerCase();
  const port = url.port || (url.protocol === 'https:' ? '443' : '80');
  return list
    .toLowerCase()
    .split(/[\s,]+/)
    .some((entry) => {
      if (entry === '*') return true;
      const [, bracketed, plain, wantedPort] = /^(?:\[([^\]]+)\]|(.*?))(?::(\d+))?$/.exec(
        isIP(entry) === 6 ? `[${entry}]` : entry,
      )!;
      if (wantedPort !== undefined && wantedPort !== port) return false;
      const name = bracketed ?? plain!.replace(/^\*?\./, '');
      if (name === '') return false;
      const [network, bits] = name.split('/');
      if (bits !== undefined && isIP(network!) && isIP(host) === isIP(network!))
        return inRange(host, network!, Number(bits));
      return host === name || (isIP(host) === 0 && host.endsWith(`.${name}`));
    });
}

function inRange(host: string, network: string, bits: number): boolean {
  const kind = isIP(host) === 6 ? 'ipv6' : 'ipv4';
  if (!Number.isInteger(bits) || bits < 0 || bits > (kind === 'ipv6' ? 128 : 32)) return false;
  const list = new BlockList();
  list.addSubnet(network, bits, kind);
  return list.check(host, kind);
}

/** The header for `user:password` in the proxy's address. */
function authorization(proxy: URL): Record<string, string> {
  if (proxy.username === '' && proxy.password === '') return {};
  const text = `${decodeURIComponent(proxy.username)}:${decodeURIComponent(proxy.password)}`;
  return { 'proxy-authorization': `Basic ${Buffer.from(text).toString('base64')}` };
}

const portOf = (url: URL): string => url.port || (url.protocol === 'https:' ? '443' : '80');
const hostOf = (url: URL): string => url.hostname.replace(/^\[(.*)\]$/, '$1');
const requestTo = (url: URL): typeof requestHttp => (url.protocol === 'https:' ? requestHttps : requestHttp);

/** An agent for connections through CONNECT tunnels of a proxy, which are kept open for further requests. */
class TunnelAgent extends HttpsAgent {
  readonly #proxy: URL;

  constructor(proxy: URL) {
    super({ keepAlive: true });
    this.#proxy = proxy;
  }

  override createConnection(
    options: ConnectionOptions & { host?: string; port?: number | string },
    connected?: (error: Error | null, socket: Duplex) => void,
  ): undefined {
    const finish = connected as (error: Error | null, socket?: Duplex) => void;
    const target = `${options.host!.includes(':') ? `[${options.host}]` : options.host}:${options.port}`;
    const ask = requestTo(this.#proxy)({
      host: hostOf(this.#proxy),
      port: portOf(this.#proxy),
      method: 'CONNECT',
      path: target,
      headers: { host: target, ...authorization(this.#proxy) },
      agent: false,
    });
    ask.once('error', finish);
    ask.once('connect', (answer: IncomingMessage, socket: Socket) => {
      ask.removeListener('error', finish);
      if (answer.statusCode !== 200) {
        socket.destroy();
        finish(refused(this.#proxy, answer));
        return;
      }
      finish(null, connectTls({ ...options, socket }));
    });
    ask.end();
    return undefined;
  }
}

/** The error for a proxy that refuses to connect. */
function refused(proxy: URL, { statusCode, statusMessage }: IncomingMessage): HubError {
  const what =
    statusCode === 407
      ? 'it needs a user and password: HTTPS_PROXY=http://user:password@host:port'
      : 'check HTTPS_PROXY and NO_PROXY';
  const found = `${statusCode} ${statusMessage ?? ''}`.trim();
  return new HubError('ProxyRefused', `the proxy ${proxy.host} answered ${found} instead of connecting; ${what}`);
}

/** Agents by proxy. */
const agents = new Map<string, { tunnels: TunnelAgent; plain: HttpAgent }>();

function agentsOf(proxy: URL): { tunnels: TunnelAgent; plain: HttpAgent } {
  const known = agents.get(proxy.href);
  if (known) return known;
  const plain = proxy.protocol === 'https:' ? new HttpsAgent({ keepAlive: true }) : new HttpAgent({ keepAlive: true });
  const made = { tunnels: new TunnelAgent(proxy), plain };
  agents.set(proxy.href, made);
  return made;
}

export interface PlainRequest {
  readonly method: 'GET' | 'HEAD';
  readonly headers: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
}

/** `fetch` without redirects, through the proxy for this address, if any. */
export async function fetchThroughProxy(url: URL, init: PlainRequest): Promise<Response> {
  const proxy = proxyFor(url);
  if (!proxy) return fetch(url, { ...init, redirect: 'manual' });
  const { tunnels, plain } = agentsOf(proxy);
  const { method, headers, signal } = init;
  const options: RequestOptions =
    url.protocol === 'https:'
      ? { host: hostOf(url), port: portOf(url), path: url.pathname + url.search, agent: tunnels, headers }
      : {
          host: hostOf(proxy),
          port: portOf(proxy),
          path: url.href.replace(/#.*$/, ''),
          agent: plain,
          headers: { ...headers, host: url.host, ...authorization(proxy) },
        };
  const ask = url.protocol === 'https:' ? requestHttps : requestTo(proxy);
  return new Promise((resolve, reject) => {
    const request = ask({ ...options, method, signal }, (answer) => {
      if (url.protocol === 'http:' && answer.statusCode === 407) {
        answer.resume();
        reject(refused(proxy, answer));
      } else resolve(toResponse(answer, method));
    });
    request.once('error', reject);
    request.end();
  });
}

function toResponse(answer: IncomingMessage, method: string): Response {
  const status = answer.statusCode!;
  const headers = new Headers();
  for (const [name, value] of Object.entries(answer.headers))
    for (const one of Array.isArray(value) ? value : [value ?? '']) headers.append(name, one);
  const empty = method === 'HEAD' || status === 204 || status === 304;
  if (empty) answer.resume();
  const body = empty ? null : (Readable.toWeb(answer) as unknown as ReadableStream<Uint8Array>);
  return new Response(body, { status, statusText: answer.statusMessage ?? '', headers });
}
