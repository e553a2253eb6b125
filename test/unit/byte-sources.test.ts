/** Byte sources over files, HTTP and blobs; the writer of SafeTensors files. */
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, open, readdir, readFile, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { blobFolder } from '../../src/formats/adapters/blob.ts';
import { fetchFolder, openUrl } from '../../src/formats/adapters/fetch.ts';
import { nodeFolder, openFile, writeSafeTensors } from '../../src/formats/adapters/node.ts';
import { type ByteSource, type FileFolder, isPlainFileName, memoryFolder } from '../../src/formats/bytes.ts';
import { openCheckpoint } from '../../src/formats/checkpoint.ts';

const content = Uint8Array.from({ length: 1000 }, (_, i) => (i * 7) % 251);

async function temporaryFolder(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'lanewise-'));
  t.after(() => rm(folder, { recursive: true }));
  return folder;
}

async function serve(
  t: TestContext,
  answer: (request: IncomingMessage, response: ServerResponse) => void,
): Promise<string> {
  const server = createServer(answer).listen(0, '127.0.0.1');
  await new Promise((listening) => server.once('listening', listening));
  t.after(() => new Promise((closed) => server.close(closed).closeAllConnections()));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/models/`;
}

/** Answers ranges of `content` as a file server does. */
function serveRange(request: IncomingMessage, response: ServerResponse, bytes = content, etag = '"1"'): void {
  if (request.url !== '/models/x.bin') return void response.writeHead(404).end();
  const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? [];
  if (Number(from) >= bytes.length) {
    return void response.writeHead(416, { 'content-range': `bytes */${bytes.length}` }).end();
  }
  const end = Math.min(Number(to) + 1, bytes.length);
  response.writeHead(206, { 'content-range': `bytes ${from}-${end - 1}/${bytes.length}`, etag });
  response.end(bytes.subarray(Number(from), end));
}

/** Checks the contract of byte sources, for a source with `content`. */
async function checkSource(source: ByteSource): Promise<void> {
  assert.equal(source.byteLength, content.length);
  assert.deepEqual(await source.read(10, 20), content.slice(10, 20));
  assert.deepEqual(await source.read(0, 1000), content);
  assert.deepEqual(await source.read(1000, 1000), new Uint8Array(0));
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
  const view = new Uint8Array(memory.buffer, 100, 300);
  await source.readInto(600, view);
  assert.deepEqual(view.slice(), content.slice(600, 900));
  assert.deepEqual(new Uint8Array(memory.buffer, 0, 100).slice(), new Uint8Array(100), 'nothing before the view');
  assert.deepEqual(new Uint8Array(memory.buffer, 400, 100).slice(), new Uint8Array(100), 'nothing behind it');
  for (const [start, end] of [
    [0, 1001],
    [-1, 5],
    [5, 4],
    [0.5, 2],
    [0, 2 ** 53],
    [Number.NaN, 5],
  ] as const) {
    await assert.rejects(source.read(start, end), { code: 'OutOfFile' });
  }
  await assert.rejects(source.readInto(999, new Uint8Array(2)), { code: 'OutOfFile' });
  await source.dispose();
}

async function checkFolder(folder: FileFolder, names: string[]): Promise<void> {
  assert.deepEqual(await folder.list(), names);
  assert.equal(await folder.open('none.bin'), undefined);
  for (const name of ['../x.bin', 'a/x.bin', '..', '', 'a\\x', 'C:x', '/etc/passwd']) {
    await assert.rejects(folder.open(name), { code: 'UnsafeFileName' });
  }
  await checkSource((await folder.open('x.bin'))!);
}

test('plain file names', () => {
  for (const name of ['model.safetensors', '.hidden', 'a b', 'ü', '...', 'x'.repeat(255)])
    assert.ok(isPlainFileName(name));
  assert.ok(!isPlainFileName('x'.repeat(256)));
});

test('memory', () => checkFolder(memoryFolder('m', new Map([['x.bin', content]])), ['x.bin']));

test('blobs', async () => {
  await checkFolder(blobFolder('chosen', [new File([content], 'x.bin'), new File([], 'empty')]), ['empty', 'x.bin']);
});

test('node: files, links, folders, files that are not there', async (t) => {
  const path = await temporaryFolder(t);
  await writeFile(join(path, 'x.bin'), content);
  await mkdir(join(path, 'inner'));
  await symlink(join(path, 'x.bin'), join(path, 'link.bin'));
  await checkFolder(nodeFolder(path), ['link.bin', 'x.bin']);
  await checkSource((await nodeFolder(path).open('link.bin'))!);
  await assert.rejects(openFile(join(path, 'inner')), { code: 'NotAFile' });
  assert.equal(await openFile(join(path, 'x.bin', 'below')), undefined);
});

test('node: a file that shrinks while it is open', async (t) => {
  const path = join(await temporaryFolder(t), 'x.bin');
  await writeFile(path, content);
  const source = (await openFile(path))!;
  t.after(() => source.dispose());
  await truncate(path, 500);
  assert.deepEqual(await source.read(0, 500), content.slice(0, 500));
  await assert.rejects(source.read(400, 600), { name: 'FormatError', code: 'FileChanged', file: path, offset: 500 });
});

test('node: bytes beyond 4 GiB', async (t) => {
  const path = join(await temporaryFolder(t), 'large.bin');
  const far = 2 ** 32 + 12345;
  const handle = await open(path, 'w');
  await handle.write(content, 0, content.length, far);
  await handle.close();
  const source = (await openFile(path))!;
  t.after(() => source.dispose());
  assert.equal(source.byteLength, far + content.length);
  assert.deepEqual(await source.read(far + 1, far + 1000), content.slice(1));
});

test('fetch: ranges of a file', async (t) => {
  const base = await serve(t, serveRange);
  await checkFolder(fetchFolder(base, { names: ['x.bin'] }), ['x.bin']);
  assert.deepEqual(await fetchFolder(base).list(), []);
});

test('folders inside folders', async (t) => {
  const root = await mkdtemp(join(tmpdir(), 'lanewise-'));
  t.after(() => rm(root, { recursive: true }));
  await mkdir(join(root, 'models'));
  await writeFile(join(root, 'models/x.bin'), content);
  const node = nodeFolder(root);
  const memory = memoryFolder('m', new Map([['models/x.bin', content]]));
  const fetched = fetchFolder(new URL('..', await serve(t, serveRange)));
  for (const folder of [node, memory]) await checkFolder(folder.folder('models'), ['x.bin']);
  await checkFolder(fetched.folder('models'), []);
  for (const folder of [node, memory, fetched, blobFolder('chosen', [])]) {
    assert.deepEqual(await folder.list(), []);
    assert.equal(await folder.folder('none').open('x.bin'), undefined);
  }
  for (const folder of [node, memory, fetched]) assert.throws(() => folder.folder('..'), { code: 'UnsafeFileName' });
});

test('fetch: headers are sent, names are escaped', async (t) => {
  const seen: unknown[] = [];
  const base = await serve(t, (request, response) => {
    seen.push(request.url, request.headers.authorization);
    response.writeHead(404).end();
  });
  const folder = fetchFolder(base, { headers: { authorization: 'Bearer x' } });
  assert.equal(await folder.open('a?b #1.bin'), undefined);
  assert.deepEqual(seen, ['/models/a%3Fb%20%231.bin', 'Bearer x']);
});

test('fetch: an empty file', async (t) => {
  const base = await serve(t, (request, response) => serveRange(request, response, new Uint8Array(0)));
  const source = (await openUrl(`${base}x.bin`))!;
  assert.equal(source.byteLength, 0);
  assert.deepEqual(await source.read(0, 0), new Uint8Array(0));
});

test('fetch: a server without ranges gives the whole file, once', async (t) => {
  let requests = 0;
  const base = await serve(t, (_, response) => {
    requests++;
    response.writeHead(200).end(content);
  });
  const source = (await openUrl(`${base}x.bin`))!;
  assert.equal(source.byteLength, content.length);
  assert.deepEqual(await source.read(10, 30), new Uint8Array(content.subarray(10, 30)));
  assert.equal(requests, 1);
});

test('fetch: a server that forgets ranges after the first', async (t) => {
  let requests = 0;
  const base = await serve(t, (request, response) => {
    if (requests++ === 0) serveRange(request, response);
    else response.writeHead(200).end(content);
  });
  const source = (await openUrl(`${base}x.bin`))!;
  await assert.rejects(source.read(0, 10), { code: 'FileChanged' });
});

test('fetch: ranges without a length: the length is asked for, or the file fetched whole', async (t) => {
  for (const told of [true, false]) {
    for (const range of [undefined, (from: string, to: string) => `bytes ${from}-${to}/*`]) {
      const base = await serve(t, (request, response) => {
        const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? [];
        if (request.method === 'HEAD')
          return void response.writeHead(told ? 200 : 405, { 'content-length': content.length }).end();
        if (from === undefined) return void response.writeHead(200).end(content);
        response.writeHead(206, range && { 'content-range': range(from, to!) });
        response.end(content.subarray(Number(from), Number(to) + 1));
      });
      const source = (await openUrl(`${base}x.bin`))!;
      assert.equal(source.byteLength, content.length);
      assert.deepEqual(await source.read(100, 130), new Uint8Array(content.subarray(100, 130)));
    }
  }
});

test('fetch: other statuses and other ranges than asked for', async (t) => {
  const base = await serve(t, (request, response) => {
    const [, status] = /(\d+)$/.exec(request.url ?? '') ?? [];
    if (status) response.writeHead(Number(status)).end('no');
    else
      response
        .writeHead(206, { 'content-range': request.url?.endsWith('more') ? 'bytes 0-256/1000' : 'x' })
        .end('abcdef');
  });
  const missing: number[] = [];
  for (const status of [400, 401, 403, 404, 410])
    assert.equal(await openUrl(`${base}${status}`, { onMissing: (_, found) => missing.push(found) }), undefined);
  assert.deepEqual(missing, [400, 401, 403, 404, 410]);
  for (const status of [408, 429, 500, 503])
    await assert.rejects(openUrl(`${base}${status}`), { code: 'HttpStatus', message: new RegExp(`${status}`) });
  await assert.rejects(openUrl(`${base}more`), { code: 'InvalidRange' });
  await assert.rejects(openUrl(`${base}garbage`), { code: 'InvalidRange' });
});

test('fetch: a file that changes between ranges, by tag, by size, by what is sent', async (t) => {
  const changes: ((request: IncomingMessage, response: ServerResponse) => void)[] = [
    (request, response) => serveRange(request, response, content, '"2"'),
    (request, response) => serveRange(request, response, content.subarray(0, 900)),
    (_, response) => response.writeHead(404).end(),
    (_, response) => response.writeHead(206, { 'content-range': 'bytes 0-9/1000', etag: '"1"' }).end('short'),
    (_, response) => response.writeHead(206, { 'content-range': 'bytes 0-9/1000', etag: '"1"' }).end('much longer'),
    (_, response) => response.writeHead(206, { 'content-range': 'bytes 1-9/1000', etag: '"1"' }).end('123456789'),
  ];
  for (const change of changes) {
    let requests = 0;
    const base = await serve(t, (request, response) => (requests++ === 0 ? serveRange : change)(request, response));
    const source = (await openUrl(`${base}x.bin`))!;
    await assert.rejects(source.read(0, 10), { name: 'FormatError', code: 'FileChanged' });
  }
});

test('fetch: a signal stops a read', async (t) => {
  let requests = 0;
  const base = await serve(t, (request, response) => {
    if (requests++ === 0) serveRange(request, response);
    else controller.abort(new Error('enough'));
  });
  const controller = new AbortController();
  const source = (await openUrl(`${base}x.bin`, { signal: controller.signal }))!;
  await assert.rejects(source.read(0, 10), /enough/);
});

test('the writer: tensors whole and in pieces come back', async (t) => {
  const path = join(await temporaryFolder(t), 'model.safetensors');
  async function* pieces(): AsyncGenerator<Uint8Array> {
    yield content.subarray(0, 3);
    yield content.subarray(3, 3);
    yield content.subarray(3, 8);
  }
  const tensors = [
    { name: 'whole', dtype: 'F32', shape: [2, 1], data: content.subarray(0, 8) },
    { name: 'pieces', dtype: 'I64', shape: [], data: pieces() },
    { name: 'list', dtype: 'U8', shape: [4], data: [content.subarray(4, 6), content.subarray(6, 8)] },
    { name: 'empty', dtype: 'F16', shape: [0, 5], data: [] },
  ] as const;
  await writeSafeTensors(path, tensors, { format: 'pt' });
  const checkpoint = await openCheckpoint(nodeFolder(join(path, '..')));
  t.after(() => checkpoint.close());
  assert.deepEqual([...checkpoint.metadata], [['format', 'pt']]);
  for (const [name, from] of [
    ['whole', 0],
    ['pieces', 0],
    ['list', 4],
    ['empty', 8],
  ] as const) {
    const bytes = new Uint8Array(checkpoint.tensors.get(name)!.byteLength);
    await checkpoint.tensors.get(name)!.readInto(0, bytes);
    assert.deepEqual(bytes, content.slice(from, 8));
  }
});

test('the writer: a failed write leaves the old file and nothing else', async (t) => {
  const folder = await temporaryFolder(t);
  const path = join(folder, 'model.safetensors');
  await writeFile(path, 'old');
  const tensor = { name: 'w', dtype: 'F32', shape: [2] } as const;
  function* failing(): Generator<Uint8Array> {
    yield content.subarray(0, 4);
    throw new Error('no more');
  }
  await assert.rejects(writeSafeTensors(path, [{ ...tensor, data: failing() }]), /no more/);
  await assert.rejects(writeSafeTensors(path, [{ ...tensor, data: content.subarray(0, 7) }]), RangeError);
  await assert.rejects(writeSafeTensors(path, [{ ...tensor, data: content.subarray(0, 9) }]), RangeError);
  assert.equal(await readFile(path, 'utf8'), 'old');
  assert.deepEqual(await readdir(folder), ['model.safetensors']);
});
