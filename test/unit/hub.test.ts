import assert from 'node:assert/strict';
import { lstat, mkdir, mkdtemp, readdir, readFile, readlink, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { HubError } from '../../src/errors.ts';
import { listModels, removeModel } from '../../src/hub/cache.ts';
import { type DownloadOptions, download } from '../../src/hub/download.ts';
import { hubModel } from '../../src/hub/model.ts';
import { checkPath, checkRepository, isSafePath, matchesGlob, parseHubId } from '../../src/hub/names.ts';
import { hubSettings } from '../../src/hub/settings.ts';
import { type VerifiedFile, verifyModel } from '../../src/hub/verify.ts';
import { commit, HubServer, hashOf, noise } from './hub-server.ts';

const id = 'people/small-model';
const config = '{"model_type":"llama"}\n';
const tokenizer = '{"model":{}}';
const weights = noise(1000);
const model = {
  'config.json': config,
  'tokenizer.json': tokenizer,
  'model.safetensors': weights,
  'README.md': 'hello',
};
const quick = { attempts: 3, delayMs: 1, stallMs: 5_000, partBytes: 256, parallel: 3 };

async function folder(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'lanewise-hub-'));
  t.after(() => rm(path, { recursive: true, force: true }));
  return path;
}

async function start(
  t: TestContext,
  files: Record<string, Buffer | string> = model,
): Promise<{ hub: HubServer; cache: string; options: DownloadOptions }> {
  const hub = await HubServer.start(files);
  t.after(() => hub.stop());
  const cache = await folder(t);
  return { hub, cache, options: { settings: hub.settings(cache), transport: quick } };
}

async function verified(cache: string, repository: string): Promise<VerifiedFile[]> {
  const files: VerifiedFile[] = [];
  for await (const file of verifyModel(cache, repository)) files.push(file);
  return files;
}

const rootOf = (cache: string): string => join(cache, 'models--people--small-model');

test('a download has the layout of huggingface_hub: blobs by hash, relative links, a ref with the commit', async (t) => {
  const { cache, options } = await start(t);
  const { folder: snapshot, fetched } = await download(id, options);
  assert.equal(snapshot, join(rootOf(cache), 'snapshots', commit));
  assert.equal(await readFile(join(rootOf(cache), 'refs', 'main'), 'utf8'), commit);
  assert.deepEqual(
    (await readdir(join(rootOf(cache), 'blobs'))).sort(),
    Object.entries(model)
      .map(([name, bytes]) => hashOf(name, Buffer.from(bytes)))
      .sort(),
  );
  assert.equal(
    await readlink(join(snapshot, 'model.safetensors')),
    `../../blobs/${hashOf('model.safetensors', weights)}`,
  );
  assert.deepEqual(await readFile(join(snapshot, 'model.safetensors')), weights);
  assert.equal(await readFile(join(snapshot, 'config.json'), 'utf8'), config);
  assert.equal(fetched, config.length + tokenizer.length + weights.length + 5);
});

test('files in folders of a repository are linked from where they are', async (t) => {
  const { options } = await start(t, { 'onnx/deep/config.json': config });
  const { folder: snapshot } = await download(id, options);
  assert.equal(
    await readlink(join(snapshot, 'onnx', 'deep', 'config.json')),
    `../../../../blobs/${hashOf('config.json', Buffer.from(config))}`,
  );
});

test('a second download requests only the description', async (t) => {
  const { hub, options } = await start(t);
  await download(id, options);
  hub.seen.length = 0;
  assert.equal((await download(id, options)).fetched, 0);
  assert.deepEqual(
    hub.seen.map(({ path }) => path),
    [`/api/models/${id}/revision/main`],
  );
});

test('a new commit shares blobs that have not changed', async (t) => {
  const { hub, cache, options } = await start(t);
  await download(id, options);
  hub.commit = 'd'.repeat(40);
  hub.files.set('config.json', Buffer.from('{}'));
  assert.equal((await download(id, options)).fetched, 2);
  assert.equal(await readFile(join(rootOf(cache), 'refs', 'main'), 'utf8'), hub.commit);
  const [listed] = await listModels(cache);
  assert.deepEqual(listed!.snapshots.map(({ refs }) => refs.join()).sort(), ['', 'main']);
});

test('globs choose files, and a commit is fetched without a ref', async (t) => {
  const { cache, options } = await start(t);
  const { files } = await download(id, {
    ...options,
    revision: commit,
    include: ['*.json', 'READ*'],
    exclude: ['token*'],
  });
  assert.deepEqual(files, ['config.json', 'README.md']);
  await assert.rejects(readdir(join(rootOf(cache), 'refs')));
  await assert.rejects(download(id, { ...options, include: ['nothing'] }), { code: 'NothingToDownload' });
  assert.ok(matchesGlob('*.gguf', 'sub/x.gguf') && !matchesGlob('a.c', 'abc') && matchesGlob('a?c', 'abc'));
});

test('a model needs its config, tokenizer and weights, once', async (t) => {
  const { hub, cache, options } = await start(t);
  const path = await hubModel({ repository: id, file: undefined }, options);
  assert.deepEqual((await readdir(path)).sort(), ['config.json', 'model.safetensors', 'tokenizer.json']);
  hub.seen.length = 0;
  assert.equal(await hubModel({ repository: id, file: undefined }, options), path);
  assert.deepEqual(hub.seen, []);
  assert.equal(
    await hubModel({ repository: id, file: undefined }, { settings: hub.settings(cache, { offline: true }) }),
    path,
  );
  assert.deepEqual(hub.seen, []);
});

test('offline nothing touches the network, and what is missing is an error', async (t) => {
  const { hub, cache, options } = await start(t);
  const offline = { settings: hub.settings(cache, { offline: true }) };
  await assert.rejects(hubModel({ repository: id, file: undefined }, offline), { code: 'Offline' });
  await assert.rejects(download(id, offline), { code: 'Offline' });
  assert.deepEqual(hub.seen, []);
  await download(id, options);
  hub.seen.length = 0;
  assert.equal((await download(id, offline)).commit, commit);
  assert.deepEqual(hub.seen, []);
});

test('shards are those of the index; a snapshot that lacks one is no model', async (t) => {
  const index = JSON.stringify({ weight_map: { a: 'w-1-of-2.safetensors', b: 'w-2-of-2.safetensors' } });
  const files = {
    'config.json': config,
    'tokenizer.json': tokenizer,
    'model.safetensors.index.json': index,
    'other.safetensors': 'x',
  };
  const { hub, options } = await start(t, { ...files, 'w-1-of-2.safetensors': 'one', 'w-2-of-2.safetensors': 'two' });
  const path = await hubModel({ repository: id, file: undefined }, options);
  assert.ok(!(await readdir(path)).includes('other.safetensors'));
  await rm(join(path, 'w-2-of-2.safetensors'));
  hub.files.delete('w-2-of-2.safetensors');
  await assert.rejects(
    hubModel({ repository: id, file: undefined }, options),
    /EntryNotFound|expected the file w-2-of-2/,
  );
});

test('a GGUF file is named by its id and name; several want a choice', async (t) => {
  const { options } = await start(t, {
    'q4.gguf': 'four',
    'sub/q8-00001-of-00002.gguf': 'a',
    'sub/q8-00002-of-00002.gguf': 'b',
  });
  await assert.rejects(
    hubModel({ repository: id, file: undefined }, options),
    /name one: people\/small-model:Q4, people\/small-model:Q8/,
  );
  const path = await hubModel(parseHubId(`${id}:sub/q8-00001-of-00002.gguf`)!, options);
  assert.equal(await readFile(path, 'utf8'), 'a');
  assert.equal(await readFile(path.replace('00001-of', '00002-of'), 'utf8'), 'b');
  await assert.rejects(hubModel({ repository: id, file: 'q5.gguf' }, options), { code: 'EntryNotFound' });
});

test('a repository without weights says what it has', async (t) => {
  const { options } = await start(t, { 'config.json': config, 'pytorch_model.bin': 'x' });
  await assert.rejects(hubModel({ repository: id, file: undefined }, options), /found config.json, pytorch_model.bin/);
});

test('ids', () => {
  assert.deepEqual(parseHubId('a/b'), { repository: 'a/b', file: undefined });
  assert.deepEqual(parseHubId('a/b:c.gguf'), { repository: 'a/b', file: 'c.gguf' });
  assert.deepEqual(parseHubId('a/b/c/d.gguf'), { repository: 'a/b', file: 'c/d.gguf' });
  for (const text of ['./a', '../a', 'a/..', 'a/b/c', 'a/b:../c.gguf', '/a/b', 'a/b--c', 'a//b.gguf', 'a/b:', 'a.gguf'])
    assert.equal(parseHubId(text), undefined, text);
  assert.equal(checkRepository('gpt2'), 'gpt2');
  assert.throws(() => checkRepository('../gpt2'), HubError);
});

test('file names that leave their folder on any system are refused', async (t) => {
  const names = [
    '../../.bashrc',
    '..\\x',
    'C:\\x',
    'C:x',
    '\\\\host\\s',
    '/abs',
    'a\0b',
    'CON',
    'aux.txt',
    'a/../b',
    'a//b',
    '',
    'a.',
    'b ',
    'COM1.json',
  ];
  for (const name of names) assert.equal(isSafePath(name), false, name);
  for (const name of ['a/b.json', 'console', '.gitattributes', 'ä/日本.txt'])
    assert.equal(isSafePath(name), true, name);
  for (const windows of [false, true])
    assert.throws(() => checkPath(id, 'a/../b', windows), { code: 'UnsafeFileName' });
  const { hub, cache, options } = await start(t);
  hub.files.set('../../../evil', Buffer.from('x'));
  await assert.rejects(download(id, options), { code: 'UnsafeFileName' });
  assert.deepEqual(await readdir(cache), []);
});

test('ETags that are not hashes are not used as names, invalid commits are refused', async (t) => {
  const { hub, cache, options } = await start(t);
  hub.fault = (_, response, { method }) => {
    if (method !== 'HEAD') return false;
    response.writeHead(200, { etag: '"../../lanewise-escaped"', 'content-length': 3 }).end();
    return true;
  };
  await download(id, options);
  for (const blob of await readdir(join(rootOf(cache), 'blobs'))) assert.match(blob, /^[0-9a-f]{64}$/);
  hub.fault = undefined;
  hub.commit = '../../lanewise-escaped';
  await assert.rejects(download(id, options), { code: 'InvalidAnswer' });
  await assert.rejects(download(id, { ...options, revision: '../lanewise-escaped' }), { code: 'InvalidRevision' });
  assert.deepEqual(
    (await readdir(join(cache, '..'))).filter((name) => name === 'lanewise-escaped'),
    [],
  );
});

test('links in the cache that lead out of it are replaced or refused, never written through', async (t) => {
  const { cache, options } = await start(t, { 'config.json': config, 'sub/a.json': '{}' });
  const outside = await folder(t);
  const victim = join(outside, 'victim');
  await writeFile(victim, 'mine');
  const blobs = join(rootOf(cache), 'blobs');
  const snapshot = join(rootOf(cache), 'snapshots', commit);
  await mkdir(blobs, { recursive: true });
  await mkdir(snapshot, { recursive: true });
  const hash = hashOf('config.json', Buffer.from(config));
  await symlink(victim, join(blobs, hash));
  await symlink(victim, join(blobs, `${hash}.incomplete`));
  await download(id, { ...options, include: ['config.json'] });
  assert.equal(await readFile(victim, 'utf8'), 'mine');
  assert.equal((await lstat(join(blobs, hash))).isFile(), true);
  await symlink(outside, join(snapshot, 'sub'));
  await assert.rejects(download(id, options), { code: 'UnsafeCache' });
  assert.deepEqual(await readdir(outside), ['victim']);
  for (const linked of ['snapshots', `snapshots/${commit}`, 'blobs', 'refs']) {
    await rm(rootOf(cache), { recursive: true });
    await mkdir(dirname(join(rootOf(cache), linked)), { recursive: true });
    await symlink(outside, join(rootOf(cache), linked));
    await assert.rejects(download(id, options), { code: 'UnsafeCache' }, linked);
    assert.deepEqual(await readdir(outside), ['victim'], linked);
  }
});

test('a repository of the cache may itself lie behind a link', async (t) => {
  const { cache, options } = await start(t);
  const elsewhere = await folder(t);
  await mkdir(cache, { recursive: true });
  await symlink(elsewhere, rootOf(cache));
  await download(id, options);
  assert.deepEqual((await readdir(elsewhere)).sort(), ['blobs', 'refs', 'snapshots']);
});

test('without links, snapshots have copies', async (t) => {
  const { options } = await start(t);
  const makeLink = () => Promise.reject(Object.assign(new Error('no links here'), { code: 'EPERM' }));
  const { folder: snapshot } = await download(id, { ...options, transport: { ...quick, makeLink } });
  assert.equal((await lstat(join(snapshot, 'config.json'))).isFile(), true);
  assert.equal(await readFile(join(snapshot, 'config.json'), 'utf8'), config);
});

test('verify finds a byte that has changed, a blob that has gone, and names what is left over', async (t) => {
  const { cache, options } = await start(t);
  const { folder: snapshot } = await download(id, options);
  const check = async () => Object.fromEntries((await verified(cache, id)).map(({ file, status }) => [file, status]));
  assert.deepEqual(Object.values(await check()), ['PASS', 'PASS', 'PASS', 'PASS']);
  const changed = Buffer.from(weights);
  changed[500]! ^= 1;
  await writeFile(join(snapshot, 'model.safetensors'), changed);
  await rm(join(rootOf(cache), 'blobs', hashOf('config.json', Buffer.from(config))));
  await writeFile(join(rootOf(cache), 'blobs', 'x.incomplete'), 'x');
  assert.deepEqual(await check(), {
    'README.md': 'PASS',
    'blobs/x.incomplete': 'WARN',
    'config.json': 'FAIL',
    'model.safetensors': 'FAIL',
    'tokenizer.json': 'PASS',
  });
  await assert.rejects(verified(cache, 'no/body'), { code: 'NotCached' });
});

test('names that lead out of the cache remove nothing', async (t) => {
  const root = await mkdtemp(join(tmpdir(), 'lanewise-'));
  t.after(() => rm(root, { recursive: true, force: true }));
  const [cache, victim] = [join(root, 'cache'), join(root, 'victim')];
  await mkdir(join(cache, 'models--x--y'), { recursive: true });
  await mkdir(join(cache, 'models--not a name'));
  await mkdir(victim);
  for (const id of ['x/y/../../victim', '..', 'x/..', '../victim', 'x/y/z', ''])
    await assert.rejects(removeModel(cache, id), { code: 'InvalidId' });
  await lstat(victim);
  assert.deepEqual(
    (await listModels(cache)).map(({ repository }) => repository),
    ['x/y'],
  );
});

test('models are listed with their size, and removed', async (t) => {
  const { cache, options } = await start(t);
  assert.deepEqual(await listModels(cache), []);
  const { fetched } = await download(id, options);
  const [listed, ...more] = await listModels(cache);
  assert.deepEqual(more, []);
  assert.equal(listed!.repository, id);
  assert.equal(listed!.bytes, fetched);
  assert.deepEqual(listed!.snapshots, [{ commit, refs: ['main'], files: Object.keys(model).sort() }]);
  assert.equal(await removeModel(cache, id), fetched);
  assert.deepEqual(await readdir(cache), []);
  await assert.rejects(removeModel(cache, id), { code: 'NotCached' });
});

test('settings are those of huggingface_hub', async (t) => {
  const home = await folder(t);
  await writeFile(join(home, 'token'), ' kept \n');
  const settings = await hubSettings({ HF_HOME: home });
  assert.deepEqual(settings, {
    cache: join(home, 'hub'),
    endpoint: 'https://huggingface.co',
    token: 'kept',
    offline: false,
  });
  const given = await hubSettings({
    HF_HOME: home,
    HF_HUB_CACHE: '/c',
    HF_TOKEN: 'mine',
    HF_ENDPOINT: 'http://x:1/',
    HF_HUB_OFFLINE: 'yes',
  });
  assert.deepEqual(given, { cache: '/c', endpoint: 'http://x:1', token: 'mine', offline: true });
  assert.equal((await hubSettings({ XDG_CACHE_HOME: '/x' })).cache, '/x/huggingface/hub');
  await assert.rejects(hubSettings({ HF_ENDPOINT: 'ftp://x' }), { code: 'InvalidEndpoint' });
});

test('a mirror without lengths and with tags of its own: size and hash are those of the list of files', async (t) => {
  const { hub, cache, options } = await start(t);
  hub.fault = (request, response, { path, method }) => {
    if (path.startsWith('/api/')) {
      const siblings = [...hub.files].map(([rfilename, bytes]) => {
        const found = hashOf(rfilename, bytes);
        return {
          rfilename,
          size: bytes.length,
          ...(found.length === 64 ? { lfs: { sha256: found } } : { blobId: found }),
        };
      });
      response.end(JSON.stringify({ sha: commit, siblings }));
      return true;
    }
    const bytes = hub.files.get(path.split('/').at(-1)!)!;
    response.writeHead(200, { etag: '"65f1-abc"', 'transfer-encoding': 'chunked' });
    if (method === 'HEAD') response.end();
    else for (const half of [bytes.subarray(0, 3), bytes.subarray(3)]) response.write(half);
    if (method === 'GET') response.end();
    return request.complete || true;
  };
  const { folder: snapshot } = await download(id, options);
  assert.deepEqual(await readFile(join(snapshot, 'model.safetensors')), weights);
  assert.ok((await verified(cache, id)).every(({ status }) => status === 'PASS'));
});
