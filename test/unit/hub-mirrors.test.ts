import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import type { ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { gzipSync } from 'node:zlib';
import { createProgress } from '../../src/cli/progress.ts';
import { download } from '../../src/hub/download.ts';
import { verifyModel } from '../../src/hub/verify.ts';
import { commit, HubServer, hashOf, noise } from './hub-server.ts';

const id = 'org/model';
const weights = noise(300_000);
const config = Buffer.from('{"model_type": "llama"}');
const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

type Send = (response: ServerResponse, bytes: Buffer, method: string) => void;

/** A mirror whose list has names, and more where `describe` adds it, and that answers for files as `send` does. */
async function mirror(t: TestContext, send: Send, describe: (path: string, bytes: Buffer) => object = () => ({})) {
  const cache = await mkdtemp(join(tmpdir(), 'lanewise-mirror-'));
  const hub = await HubServer.start({ 'model.safetensors': weights, 'config.json': config, empty: '' });
  t.after(async () => {
    await hub.stop();
    await rm(cache, { recursive: true, force: true });
  });
  hub.fault = (_, response, { path, method }) => {
    if (path.startsWith('/api/')) {
      const siblings = [...hub.files].map(([name, bytes]) => ({ rfilename: name, ...describe(name, bytes) }));
      response.end(JSON.stringify({ sha: commit, siblings }));
      return true;
    }
    const bytes = hub.files.get(path.split(`/resolve/${commit}/`)[1]!);
    if (!bytes) return false;
    send(response, bytes, method);
    return true;
  };
  const totals: number[] = [];
  const options = {
    settings: hub.settings(cache),
    onProgress: (done: number, total: number): void => void totals.push(done, total),
    transport: { partBytes: 64 * 1024, attempts: 2, delayMs: 1 },
  };
  return { hub, cache, options, totals, blobs: join(cache, 'models--org--model', 'blobs') };
}

/** Without content-length, node answers in chunks. */
const chunked: Send = (response, bytes, method) => {
  response.writeHead(200);
  if (method !== 'HEAD') for (let i = 0; i < bytes.length; i += 50_000) response.write(bytes.subarray(i, i + 50_000));
  response.end();
};

async function assertWhole(folder: string, cache: string): Promise<void> {
  assert.deepEqual(await readFile(join(folder, 'model.safetensors')), weights);
  assert.deepEqual(await readFile(join(folder, 'config.json')), config);
  assert.equal((await readFile(join(folder, 'empty'))).length, 0);
  for await (const { status, file, what } of verifyModel(cache, id)) assert.equal(status, 'PASS', `${file}: ${what}`);
}

test('a mirror without sizes and hashes: files are received in chunks and named by their hash', async (t) => {
  const { cache, options, totals, blobs } = await mirror(t, chunked);
  const { folder, fetched } = await download(id, options);
  await assertWhole(folder, cache);
  assert.equal(fetched, weights.length + config.length);
  assert.ok((await readdir(blobs)).includes(sha256(weights)));
  assert.equal(totals[1], Number.POSITIVE_INFINITY);
});

test('HEAD refused, tags and lengths of the mirror itself, sizes of answers to HEAD: all the same', async (t) => {
  const sends: Record<string, Send> = {
    'no HEAD': (response, bytes, method) => {
      if (method === 'HEAD') response.writeHead(405).end();
      else chunked(response, bytes, method);
    },
    'tags of its own': (response, bytes) =>
      void response.writeHead(200, { etag: 'W/"5f2-61a"', 'content-length': bytes.length }).end(bytes),
    'HEAD of length 0': (response, bytes, method) => {
      if (method === 'HEAD') response.writeHead(200, { 'content-length': 0 }).end();
      else response.writeHead(200, { 'content-length': bytes.length }).end(bytes);
    },
    compressed: (response, bytes) => {
      const packed = gzipSync(bytes);
      response.writeHead(200, { 'content-encoding': 'gzip', 'content-length': packed.length }).end(packed);
    },
  };
  for (const [name, send] of Object.entries(sends)) {
    await t.test(name, async (part) => {
      const { cache, options } = await mirror(part, send);
      await assertWhole((await download(id, options)).folder, cache);
    });
  }
});

test('sizes and hashes of the list are checked', async (t) => {
  const wrong = Buffer.from(weights);
  wrong[5]! ^= 1;
  const swapped: Send = (response, bytes, method) =>
    chunked(response, bytes.length === wrong.length ? wrong : bytes, method);
  const byHash = await mirror(t, swapped, (path, bytes) => ({ lfs: { sha256: hashOf(path, bytes) } }));
  const file = { include: ['model.safetensors'] };
  await assert.rejects(download(id, { ...byHash.options, ...file }), { code: 'HashMismatch' });
  assert.deepEqual(await readdir(byHash.blobs), []);
  for (const off of [-1, 1]) {
    const bySize = await mirror(t, chunked, (_, bytes) => ({ size: bytes.length + off }));
    await assert.rejects(download(id, { ...bySize.options, ...file }), { code: 'SizeMismatch' });
    assert.deepEqual(await readdir(bySize.blobs), []);
  }
  const bySha1 = await mirror(t, chunked, (path, bytes) =>
    path === 'config.json' ? { blobId: hashOf(path, bytes) } : {},
  );
  const { folder } = await download(id, bySha1.options);
  await assertWhole(folder, bySha1.cache);
  assert.ok((await readdir(bySha1.blobs)).includes(hashOf('config.json', config)));
});

test('an answer in chunks that breaks off, or a page, is no file', async (t) => {
  const file = { include: ['model.safetensors'] };
  let left = 1;
  const breaking: Send = (response, bytes, method) => {
    if (method === 'HEAD' || left-- <= 0) return chunked(response, bytes, method);
    response.writeHead(200);
    response.write(bytes.subarray(0, 1000), () => response.destroy());
  };
  const once = await mirror(t, breaking);
  const { folder } = await download(id, { ...once.options, ...file });
  assert.deepEqual(await readFile(join(folder, 'model.safetensors')), weights);
  const page = await mirror(t, (response) => void response.end('<!DOCTYPE html><title>Sign in</title>'));
  await assert.rejects(download(id, { ...page.options, ...file }), { code: 'NotTheFile' });
  assert.deepEqual(await readdir(page.blobs), []);
});

test('progress without a total shows what has come', () => {
  let [shown, time] = ['', 0];
  const stream = { isTTY: true, write: (text: string) => (shown += text) };
  const progress = createProgress(stream, 'download', { now: () => time });
  time = 2000;
  progress.update(4_000_000, Number.POSITIVE_INFINITY);
  assert.match(shown, /download 4\.0 MB, 2\.0 MB\/s$/);
});
