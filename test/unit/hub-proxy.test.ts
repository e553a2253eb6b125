import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, request, type Server } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { download } from '../../src/hub/download.ts';
import { fetchThroughProxy, proxyFor } from '../../src/hub/proxy.ts';
import { HubServer, noise } from './hub-server.ts';

const https = new URL('https://huggingface.co/org/name');
const http = new URL('http://mirror.example:8080/org/name');

const rows: readonly (readonly [string, URL, Record<string, string>, string | undefined])[] = [
  ['none', https, {}, undefined],
  ['HTTPS_PROXY for https', https, { HTTPS_PROXY: 'http://p:1' }, 'http://p:1/'],
  ['small letters', https, { https_proxy: 'http://p:1' }, 'http://p:1/'],
  ['small letters first', https, { https_proxy: 'http://p:1', HTTPS_PROXY: 'http://q:2' }, 'http://p:1/'],
  ['without a scheme', https, { HTTPS_PROXY: 'p:1' }, 'http://p:1/'],
  ['not for http', http, { HTTPS_PROXY: 'http://p:1' }, undefined],
  ['HTTP_PROXY for http', http, { HTTP_PROXY: 'http://p:1' }, 'http://p:1/'],
  ['not HTTP_PROXY in a CGI program', http, { HTTP_PROXY: 'http://p:1', REQUEST_METHOD: 'GET' }, undefined],
  ['ALL_PROXY for what has none', https, { ALL_PROXY: 'http://p:1', HTTP_PROXY: 'http://q:2' }, 'http://p:1/'],
  ['empty is none', https, { HTTPS_PROXY: '', ALL_PROXY: '' }, undefined],
  ['NO_PROXY: the host', https, { HTTPS_PROXY: 'http://p:1', NO_PROXY: 'other.com, huggingface.co' }, undefined],
  ['NO_PROXY: a domain', new URL('https://cdn.hf.co/x'), { HTTPS_PROXY: 'http://p:1', no_proxy: '.hf.co' }, undefined],
  [
    'NO_PROXY: a domain without a dot',
    new URL('https://cdn.hf.co/x'),
    { HTTPS_PROXY: 'p:1', NO_PROXY: 'hf.co' },
    undefined,
  ],
  [
    'NO_PROXY: a domain with a star',
    new URL('https://cdn.hf.co/x'),
    { HTTPS_PROXY: 'p:1', NO_PROXY: '*.HF.co' },
    undefined,
  ],
  [
    'NO_PROXY: not the end of a name',
    new URL('https://nothf.co/x'),
    { HTTPS_PROXY: 'http://p:1', NO_PROXY: 'hf.co' },
    'http://p:1/',
  ],
  ['NO_PROXY: all', https, { HTTPS_PROXY: 'http://p:1', NO_PROXY: '*' }, undefined],
  ['NO_PROXY: a port', http, { HTTP_PROXY: 'http://p:1', NO_PROXY: 'mirror.example:8080' }, undefined],
  ['NO_PROXY: another port', http, { HTTP_PROXY: 'http://p:1', NO_PROXY: 'mirror.example:80' }, 'http://p:1/'],
  ['NO_PROXY: a range', new URL('http://10.1.2.3/x'), { HTTP_PROXY: 'http://p:1', NO_PROXY: '10.0.0.0/8' }, undefined],
  [
    'NO_PROXY: not in the range',
    new URL('http://11.1.2.3/x'),
    { HTTP_PROXY: 'http://p:1', NO_PROXY: '10.0.0.0/8' },
    'http://p:1/',
  ],
  ['NO_PROXY: IPv6', new URL('http://[::1]:8/x'), { HTTP_PROXY: 'http://p:1', NO_PROXY: '::1' }, undefined],
  [
    'NO_PROXY: IPv6 with a port',
    new URL('http://[::1]:8/x'),
    { HTTP_PROXY: 'http://p:1', NO_PROXY: '[::1]:9' },
    'http://p:1/',
  ],
];
for (const [what, url, environment, expected] of rows)
  test(`which proxy: ${what}`, () => assert.equal(proxyFor(url, environment)?.href, expected));

test('which proxy: one of another kind is refused, its password not shown', () => {
  assert.throws(
    () => proxyFor(https, { ALL_PROXY: 'socks5://me:secret@p:1' }),
    (error: Error & { code: string }) => {
      assert.equal(error.code, 'InvalidProxy');
      assert.match(error.message, /expected an http or https proxy, found "socks5:\/\/\*\*\*@p:1"/);
      return true;
    },
  );
});

interface Recorded {
  readonly method: string;
  readonly target: string;
  readonly authorization: string | undefined;
}

/** A proxy that records its requests. */
class RecordingProxy {
  readonly seen: Recorded[] = [];
  /** Status of all its responses, instead of serving. */
  status: number | undefined;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  constructor(t: TestContext) {
    const note = (message: IncomingMessage): void =>
      void this.seen.push({
        method: message.method!,
        target: message.url!,
        authorization: message.headers['proxy-authorization'],
      });
    this.#server = createServer((from, to) => {
      note(from);
      if (this.status) return void to.writeHead(this.status).end('no');
      const onward = request(from.url!, { method: from.method, headers: from.headers }, (answer) => {
        to.writeHead(answer.statusCode!, answer.headers);
        answer.pipe(to);
      });
      from.pipe(onward);
    });
    this.#server.on('connect', (from: IncomingMessage, socket: Socket) => {
      note(from);
      if (this.status) return void socket.end(`HTTP/1.1 ${this.status} No\r\n\r\n`);
      const [, host, port] = /^(.*):(\d+)$/.exec(from.url!)!;
      const onward = connect(Number(port), host!.replace('localhost', '127.0.0.1'), () => {
        socket.write('HTTP/1.1 200 Connection established\r\n\r\n');
        onward.pipe(socket).pipe(onward);
      });
      for (const one of [socket, onward]) {
        this.#sockets.add(one);
        one.on('error', () => {});
      }
    });
    t.after(() => {
      for (const socket of this.#sockets) socket.destroy();
      this.#server.closeAllConnections();
      this.#server.close();
    });
  }

  async start(credentials = ''): Promise<string> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    return `http://${credentials}127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }
}

function environment(t: TestContext, variables: Record<string, string>): void {
  const before = { ...process.env };
  t.after(() => {
    process.env = before;
  });
  process.env = { ...before, http_proxy: '', https_proxy: '', all_proxy: '', NO_PROXY: '', no_proxy: '', ...variables };
}

test('a download through a proxy asks it for whole addresses, with user and password, in parallel ranges too', async (t) => {
  const weights = noise(3000);
  const hub = await HubServer.start({ 'model.safetensors': weights, 'config.json': '{}' });
  t.after(() => hub.stop());
  const cache = await mkdtemp(join(tmpdir(), 'lanewise-hub-'));
  t.after(() => rm(cache, { recursive: true, force: true }));
  const proxy = new RecordingProxy(t);
  environment(t, { HTTP_PROXY: await proxy.start('me:p%40ss@') });
  const settings = hub.settings(cache);
  const transport = { attempts: 2, delayMs: 1, stallMs: 5_000, partBytes: 500, parallel: 3 };
  const { folder } = await download('org/name', { settings, transport });
  assert.deepEqual(await readFile(join(folder, 'model.safetensors')), weights);
  assert.ok(proxy.seen.length >= 8);
  for (const { target, authorization } of proxy.seen) {
    assert.ok(target.startsWith(`${hub.origin}/`), target);
    assert.equal(authorization, `Basic ${Buffer.from('me:p@ss').toString('base64')}`);
  }
  assert.equal(proxy.seen.length, hub.seen.length);
  proxy.status = 407;
  await assert.rejects(download('org/other', { settings, transport }), {
    code: 'ProxyRefused',
    message: /answered 407 .*user and password/,
  });
  process.env.NO_PROXY = '127.0.0.1';
  proxy.seen.length = 0;
  await download('org/other', { settings, transport });
  assert.deepEqual(proxy.seen, []);
});

test('https goes through a tunnel, which is used again', async (t) => {
  const key = await readFile(new URL('../golden/tls/key.pem', import.meta.url));
  const cert = await readFile(new URL('../golden/tls/cert.pem', import.meta.url));
  const server = createTlsServer({ key, cert }, (from, to) => {
    to.setHeader('x-seen', `${from.method} ${from.url} ${from.headers.host}`);
    to.end('through the tunnel');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const proxy = new RecordingProxy(t);
  environment(t, { https_proxy: await proxy.start('me:secret@'), NODE_TLS_REJECT_UNAUTHORIZED: '0' });
  const { port } = server.address() as AddressInfo;
  const url = new URL(`https://localhost:${port}/a/b?c=d`);
  const init = { headers: { range: 'bytes=0-1' }, signal: new AbortController().signal };
  for (let i = 0; i < 2; i++) {
    const answer = await fetchThroughProxy(url, { ...init, method: 'GET' });
    assert.equal(answer.status, 200);
    assert.equal(answer.headers.get('x-seen'), `GET /a/b?c=d localhost:${port}`);
    assert.equal(await answer.text(), 'through the tunnel');
  }
  const head = await fetchThroughProxy(url, { ...init, method: 'HEAD' });
  assert.equal(head.body, null);
  const authorization = `Basic ${Buffer.from('me:secret').toString('base64')}`;
  assert.deepEqual(proxy.seen, [{ method: 'CONNECT', target: `localhost:${port}`, authorization }]);
  await assert.rejects(fetchThroughProxy(url, { ...init, method: 'GET', signal: AbortSignal.abort() }));
});

test('a proxy that refuses a tunnel is named', async (t) => {
  const proxy = new RecordingProxy(t);
  proxy.status = 403;
  environment(t, { HTTPS_PROXY: await proxy.start() });
  const cache = await mkdtemp(join(tmpdir(), 'lanewise-hub-'));
  t.after(() => rm(cache, { recursive: true, force: true }));
  const settings = { cache, endpoint: 'https://hub.invalid', token: undefined, offline: false };
  await assert.rejects(download('org/name', { settings }), {
    code: 'ProxyRefused',
    message: /^the proxy 127\.0\.0\.1:\d+ answered 403 No instead of connecting; check HTTPS_PROXY and NO_PROXY$/,
  });
});
