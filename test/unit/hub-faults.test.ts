import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtemp, open, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { type DownloadOptions, download, type Transport } from '../../src/hub/download.ts';
import { nextHop } from '../../src/hub/http.ts';
import { parseHubId } from '../../src/hub/names.ts';
import { remoteModel } from '../../src/hub/remote.ts';
import { type Disk, nodeDisk } from '../../src/hub/transfer.ts';
import { commit, type Fault, HubServer, hashOf, noise, type Seen, sendBytes } from './hub-server.ts';

const id = 'people/small-model';
const file = 'model.safetensors';
const weights = noise(1000);
const hash = hashOf(file, weights);
const quick = { attempts: 4, delayMs: 1, stallMs: 5_000, partBytes: 300, parallel: 3 };

interface Scene {
  readonly hub: HubServer;
  readonly cache: string;
  readonly blobs: string;
  get(transport?: Partial<Transport>, options?: DownloadOptions): Promise<Buffer>;
}

async function scene(t: TestContext, content: Buffer | string = weights): Promise<Scene> {
  const hub = await HubServer.start({ [file]: content });
  t.after(() => hub.stop());
  const cache = await mkdtemp(join(tmpdir(), 'lanewise-hub-'));
  t.after(() => rm(cache, { recursive: true, force: true }));
  return {
    hub,
    cache,
    blobs: join(cache, 'models--people--small-model', 'blobs'),
    async get(transport, options) {
      const settings = hub.settings(cache);
      const { folder } = await download(id, { settings, transport: { ...quick, ...transport }, ...options });
      return readFile(join(folder, file));
    },
  };
}

/** A fault that affects only requests for file contents. */
const onBytes =
  (fault: (request: IncomingMessage, response: ServerResponse, seen: Seen, count: number) => boolean): Fault =>
  (request, response, seen) =>
    seen.path.startsWith('/cdn/') ? fault(request, response, seen, count++) : false;
let count = 0;
test.beforeEach(() => {
  count = 0;
});

/** Answers a range with its first `most` bytes, then drops the connection. */
function cut(request: IncomingMessage, response: ServerResponse, bytes: Buffer, most: number): boolean {
  const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? [];
  const part = from === undefined ? bytes : bytes.subarray(Number(from), Number(to) + 1);
  response.setHeader('etag', '"of-the-cdn"');
  if (from !== undefined) response.setHeader('content-range', `bytes ${from}-${to}/${bytes.length}`);
  response.writeHead(from === undefined ? 200 : 206, { 'content-length': part.length });
  response.write(part.subarray(0, most), () => setTimeout(() => response.destroy(), 5));
  return true;
}

for (const most of [0, 1, 500, 999]) {
  test(`a connection cut after ${most} bytes goes on from there, with If-Range`, async (t) => {
    const { hub, get } = await scene(t);
    hub.fault = onBytes((request, response, _, count) => count === 0 && cut(request, response, weights, most));
    assert.deepEqual(await get({ partBytes: 1000, parallel: 1 }), weights);
    const [first, second, ...more] = hub.gets(file);
    assert.equal(first!.range, 'bytes=0-999');
    assert.equal(second!.range, `bytes=${most}-999`);
    assert.equal(second!.ifRange, '"of-the-cdn"');
    assert.deepEqual(more, []);
  });
}

test('the unfinished file of an earlier run is resumed, and hashed before it gets its name', async (t) => {
  const { hub, blobs, get } = await scene(t);
  hub.fault = onBytes(
    (request, response, { range }) => range!.startsWith('bytes=600') && cut(request, response, weights, 0),
  );
  await assert.rejects(get({ parallel: 1 }), { code: /CutOff|NetworkError/ });
  assert.deepEqual(await readdir(blobs), [`${hash}.incomplete`]);
  assert.equal((await stat(join(blobs, `${hash}.incomplete`))).size, 600);
  hub.fault = undefined;
  hub.seen.length = 0;
  assert.deepEqual(await get({ parallel: 1 }), weights);
  assert.deepEqual(
    hub.gets(file).map(({ range }) => range),
    ['bytes=600-899', 'bytes=900-999'],
  );
  assert.deepEqual(await readdir(blobs), [hash]);
});

test('wrong bytes of an earlier run are downloaded again, once', async (t) => {
  const { hub, blobs, get } = await scene(t);
  hub.fault = onBytes(
    (request, response, { range }) => range!.startsWith('bytes=600') && cut(request, response, weights, 0),
  );
  await assert.rejects(get({ parallel: 1 }));
  hub.fault = undefined;
  await writeFile(join(blobs, `${hash}.incomplete`), noise(600, 7));
  assert.deepEqual(await get(), weights);
});

test('a server that answers ranges with the whole file is read in one go', async (t) => {
  const { hub, get } = await scene(t);
  hub.fault = onBytes((_, response) => {
    response.writeHead(200, { 'content-length': weights.length }).end(weights);
    return true;
  });
  assert.deepEqual(await get(), weights);
});

test('a wrong Content-Range is refused', async (t) => {
  const { hub, get } = await scene(t);
  hub.fault = onBytes((_, response, { range }) => {
    if (range === undefined) return false;
    response.writeHead(206, { 'content-range': 'bytes 1-300/1000' }).end(weights.subarray(1, 301));
    return true;
  });
  assert.deepEqual(await get(), weights);
});

test('parts of two files are not put together', async (t) => {
  const { hub, blobs, get } = await scene(t);
  hub.fault = onBytes((request, response, { range }) => {
    if (range === undefined || range.startsWith('bytes=0')) return false;
    delete request.headers['if-range'];
    sendBytes(request, response, noise(1000, 2), '"other"');
    return true;
  });
  assert.deepEqual(await get(), weights);
  assert.deepEqual(await readdir(blobs), [hash]);
});

test('a body longer than declared ends the download', async (t) => {
  const { hub, blobs, get } = await scene(t);
  hub.fault = onBytes((_, response) => {
    response.writeHead(200).end(Buffer.concat([weights, Buffer.from('more')]));
    return true;
  });
  await assert.rejects(get(), { code: 'SizeMismatch' });
  assert.ok(!(await readdir(blobs)).includes(hash));
});

test('a flipped byte is a HashMismatch; the file is kept aside, and only it is downloaded again', async (t) => {
  const { hub, blobs, get } = await scene(t);
  hub.files.set('good.safetensors', noise(2000, 3));
  const flipped = Buffer.from(weights);
  flipped[123]! ^= 4;
  hub.fault = onBytes((request, response, { path }) => {
    if (!path.endsWith(file)) return false;
    sendBytes(request, response, flipped);
    return true;
  });
  await assert.rejects(get(), { code: 'HashMismatch', message: /expected the hash [0-9a-f]{64}, found [0-9a-f]{64}/ });
  const names = await readdir(blobs);
  assert.ok(!names.includes(hash) && names.includes(`${hash}.corrupt`));
  hub.fault = undefined;
  assert.deepEqual(await get(), weights);
  const good = hub.gets('good.safetensors').length;
  hub.seen.length = 0;
  await get();
  assert.deepEqual([good, hub.gets('good.safetensors').length], [7, 0]);
});

const impostors = [
  ['an HTML page', '<!DOCTYPE html><html>Please log in</html>'],
  ['a Git LFS pointer', 'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1000\n'],
  ['a Git Xet pointer', '# xet version 0\nfilesize = 12\n'],
  ['the message "Entry not found" of a server', 'Entry not found'],
  ['an error message in JSON', '{"error":"not today"}'],
] as const;
for (const [what, text] of impostors) {
  for (const length of [text.length, 1000]) {
    test(`${what} of ${length} bytes with status 200 is named and thrown away`, async (t) => {
      const { hub, blobs, get } = await scene(t);
      hub.fault = onBytes((_, response) => {
        response.writeHead(200).end(text.padEnd(length));
        return true;
      });
      await assert.rejects(get(), { code: 'NotTheFile', message: new RegExp(`received ${what}`) });
      const left = await Promise.all((await readdir(blobs)).map(async (name) => (await stat(join(blobs, name))).size));
      assert.ok(left.every((size) => size === 0));
    });
  }
}

test('a page instead of the description is named', async (t) => {
  const { hub, get } = await scene(t);
  hub.fault = (_, response) => {
    response.writeHead(200, { 'content-type': 'text/html' }).end('<html>hotel</html>');
    return true;
  };
  await assert.rejects(get(), { code: 'NotTheFile', message: /received an HTML page/ });
});

const full = (): Promise<never> => Promise.reject(Object.assign(new Error('no space left'), { code: 'ENOSPC' }));
const fullDisks: readonly (readonly [string, Disk])[] = [
  ['before it begins', { ...nodeDisk, free: async () => 500 }],
  ['at half', { ...nodeDisk, open: (path, flags) => failing(path, flags, 'write') }],
  ['at sync', { ...nodeDisk, open: (path, flags) => failing(path, flags, 'sync') }],
  ['at rename', { ...nodeDisk, rename: full }],
];

/** A file whose second write, or whose sync, finds the disk full. */
async function failing(path: string, flags: string, method: 'write' | 'sync'): ReturnType<Disk['open']> {
  const handle = await open(path, flags);
  const real = handle.write.bind(handle) as (...args: unknown[]) => Promise<unknown>;
  let writes = 0;
  if (method === 'sync') handle.sync = full;
  else Object.assign(handle, { write: (...args: unknown[]) => (writes++ ? full() : real(...args)) });
  return handle;
}

for (const [when, disk] of fullDisks) {
  test(`a disk that is full ${when} is told with what is needed; nothing gets its name`, async (t) => {
    const { blobs, get } = await scene(t);
    await assert.rejects(get({ disk }), { code: 'DiskFull', message: /needs 1000 bytes in .*, \d+ are free/ });
    assert.ok(!(await readdir(blobs)).includes(hash));
    assert.deepEqual(await get(), weights);
  });
}

test('fifty first downloads at once all succeed', async (t) => {
  const { blobs, get } = await scene(t);
  const all = await Promise.all(Array.from({ length: 50 }, () => get()));
  for (const bytes of all) assert.deepEqual(bytes, weights);
  assert.deepEqual(await readdir(blobs), [hash]);
});

test('a run that was killed leaves no file under the final name, and the next one goes on', async (t) => {
  const { hub, cache, blobs, get } = await scene(t);
  const arrived = new Promise<void>((resolve) => {
    hub.fault = onBytes((_, __, { range }) => {
      if (!range!.startsWith('bytes=600')) return false;
      setTimeout(resolve, 50);
      return true;
    });
  });
  const program = `import { download } from ${JSON.stringify(new URL('../../src/hub/download.ts', import.meta.url).href)};
    await download(${JSON.stringify(id)}, { settings: ${JSON.stringify(hub.settings(cache))}, transport: ${JSON.stringify({ ...quick, parallel: 1 })} });`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], { stdio: 'inherit' });
  await arrived;
  child.kill('SIGKILL');
  await new Promise((resolve) => child.once('exit', resolve));
  const [left, ...more] = await readdir(blobs);
  assert.match(left!, /^[0-9a-f]{64}\.\d+-[0-9a-f-]+\.incomplete$/);
  assert.deepEqual(more, []);
  hub.fault = undefined;
  hub.seen.length = 0;
  assert.deepEqual(await get({ parallel: 1 }), weights);
  assert.equal(hub.gets(file)[0]!.range, 'bytes=600-899');
  assert.deepEqual(await readdir(blobs), [hash]);
});

test('the token goes to the hub and to nobody else', async (t) => {
  const { hub, cache, get } = await scene(t);
  const other = await HubServer.start({ [file]: weights });
  t.after(() => other.stop());
  hub.fault = (_, response, { path }) => {
    if (!path.includes('/resolve/')) return false;
    response
      .writeHead(302, { 'x-linked-etag': `"${hash}"`, 'x-linked-size': 1000, location: `${other.origin}/cdn/${file}` })
      .end();
    return true;
  };
  assert.deepEqual(await get({}, { settings: hub.settings(cache, { token: 'secret' }) }), weights);
  assert.ok(hub.seen.every(({ authorization }) => authorization === 'Bearer secret'));
  assert.ok(other.seen.length > 0 && other.seen.every(({ authorization }) => authorization === undefined));
});

test('twenty redirects are too many, http after https is refused', async (t) => {
  const { hub, get } = await scene(t);
  hub.fault = (request, response) => {
    response.writeHead(302, { location: `${request.url}x` }).end();
    return true;
  };
  await assert.rejects(get(), { code: 'TooManyRedirects' });
  assert.equal(hub.seen.length, 6);
  const from = new URL('https://hub.example/a');
  assert.throws(() => nextHop(from, 'http://hub.example/b'), { code: 'InsecureRedirect' });
  for (const bad of [null, 'file:///etc/passwd', 'http://['])
    assert.throws(() => nextHop(from, bad), { code: 'InvalidRedirect' });
  assert.equal(nextHop(from, '/b').href, 'https://hub.example/b');
});

test('a model that is read at the hub follows redirects by the same rules', async (t) => {
  const { hub, cache } = await scene(t);
  await using other = await HubServer.start({ [file]: weights });
  const settings = hub.settings(cache, { token: 'secret' });
  const { folder } = await remoteModel(parseHubId(`${id}:${file}`)!, { settings, transport: quick });
  hub.fault = (_, response) => {
    response.writeHead(302, { location: `${other.origin}/cdn/${file}` }).end();
    return true;
  };
  const source = (await folder.open(file))!;
  assert.deepEqual(Buffer.from(await source.read(10, 20)), weights.subarray(10, 20));
  assert.ok(hub.seen.every(({ authorization }) => authorization === 'Bearer secret'));
  assert.ok(other.seen.length > 0 && other.seen.every(({ authorization }) => authorization === undefined));
  hub.fault = (request, response) => {
    response.writeHead(302, { location: `${request.url}x` }).end();
    return true;
  };
  hub.seen.length = 0;
  await assert.rejects(folder.open(file), { code: 'TooManyRedirects' });
  assert.equal(hub.seen.length, 6);
  hub.fault = undefined;
  assert.equal(await folder.open('none.json'), undefined);
});

const refusals = [
  [401, {}, 'Unauthorized'],
  [403, { 'x-error-code': 'GatedRepo' }, 'GatedRepo'],
  [404, {}, 'RepositoryNotFound'],
  [404, { 'x-error-code': 'RevisionNotFound' }, 'RevisionNotFound'],
  [418, {}, 'HttpStatus'],
] as const;
for (const [status, headers, code] of refusals) {
  test(`status ${status} is ${code}, at once`, async (t) => {
    const { hub, get } = await scene(t);
    hub.fault = (_, response) => {
      response.writeHead(status, headers).end();
      return true;
    };
    await assert.rejects(get(), { code, name: 'HubError' });
    assert.equal(hub.seen.length, 1);
  });
}

for (const [status, code] of [
  [429, 'TooManyRequests'],
  [500, 'ServerError'],
  [503, 'ServerError'],
] as const) {
  test(`status ${status} is tried again, then told`, async (t) => {
    const { hub, get } = await scene(t);
    let left = 2;
    hub.fault = (_, response) => {
      if (left-- <= 0) return false;
      response.writeHead(status, { 'retry-after': '0' }).end();
      return true;
    };
    assert.deepEqual(await get(), weights);
    left = 100;
    await assert.rejects(get(), { code });
  });
}

test('a server that falls silent is given up, in headers and in bodies', async (t) => {
  const { hub, get } = await scene(t);
  const impatient = { stallMs: 60, attempts: 2 };
  hub.fault = () => true;
  await assert.rejects(get(impatient), { code: 'Stalled' });
  hub.fault = onBytes((_, response, { range }) => {
    response.writeHead(206, { 'content-range': `${range!.replace('=', ' ')}/1000` }).write('x');
    return true;
  });
  await assert.rejects(get({ ...impatient, parallel: 1 }), { code: 'Stalled' });
});

test('a branch that moves midway changes nothing: one commit is pinned', async (t) => {
  const { hub, cache, get } = await scene(t);
  hub.files.set('config.json', Buffer.from('{}'));
  hub.fault = (_, __, { path }) => {
    if (path.includes('/resolve/')) assert.match(path, new RegExp(`/resolve/${commit}/`));
    return false;
  };
  await get();
  hub.fault = (_, response, { method }) => {
    if (method !== 'HEAD') return false;
    response.writeHead(200, { 'x-repo-commit': 'e'.repeat(40), etag: `"${hash}"`, 'content-length': 1000 }).end();
    return true;
  };
  hub.commit = 'd'.repeat(40);
  await assert.rejects(get(), { code: 'CommitMismatch' });
  assert.equal(await readFile(join(cache, 'models--people--small-model', 'refs', 'main'), 'utf8'), commit);
});

test('a server that cannot be reached is told', async (t) => {
  const { hub, cache } = await scene(t);
  const settings = hub.settings(cache);
  await hub.stop();
  await assert.rejects(download(id, { settings, transport: { attempts: 1 } }), {
    code: 'NetworkError',
    message: /ECONNREFUSED/,
  });
});

test('an abort stops at once with its reason and keeps what has come', async (t) => {
  const { hub, cache, blobs, get } = await scene(t);
  const controller = new AbortController();
  hub.fault = onBytes((_, __, { range }) => {
    if (!range!.startsWith('bytes=300')) return false;
    setTimeout(() => controller.abort(new Error('enough')), 20);
    return true;
  });
  await assert.rejects(
    get(
      { parallel: 1 },
      { settings: hub.settings(cache), transport: { ...quick, parallel: 1 }, signal: controller.signal },
    ),
    { message: 'enough' },
  );
  assert.equal((await stat(join(blobs, `${hash}.incomplete`))).size, 300);
});

test('an incomplete file that is too long is thrown away; progress counts bytes once', async (t) => {
  const { hub, cache, blobs, get } = await scene(t);
  await get();
  await rm(join(blobs, hash));
  await rm(join(cache, 'models--people--small-model', 'snapshots'), { recursive: true });
  await writeFile(join(blobs, `${hash}.incomplete`), '');
  await truncate(join(blobs, `${hash}.incomplete`), 2000);
  hub.fault = onBytes((request, response, _, count) => count === 1 && cut(request, response, weights, 7));
  let last: readonly number[] = [];
  await get(
    {},
    { settings: hub.settings(cache), transport: quick, onProgress: (done, total) => (last = [done, total]) },
  );
  assert.deepEqual(last, [1000, 1000]);
});

test('an empty file is a file', async (t) => {
  const { get } = await scene(t, '');
  assert.equal((await get()).length, 0);
});
