/** Sources of the browser's `load`: addresses, ids of the hub, files, folders. Runs under Node with a local server. */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test, { after, before } from 'node:test';
import { describeModel, load, openTokenizer, type WebLoadOptions, type WebModelSource } from '../../src/browser.ts';
import { embeddedModel, quantizeModel } from '../../src/node.ts';

const COMMIT = '0123456789abcdef0123456789abcdef01234567';
const work = mkdtempSync(path.join(tmpdir(), 'lanewise-web-source-'));
const files = new Map<string, Uint8Array<ArrayBuffer>>();
const asked: { url: string; token: string | undefined }[] = [];
let origin = '';
/** Responses of the server for missing files. */
let missing: 404 | 403 | 'page' = 404;
let ranges = true;

const server = createServer((request, response) => {
  const { pathname, searchParams } = new URL(request.url!, 'http://localhost');
  asked.push({ url: request.url!, token: request.headers.authorization });
  const api = /^\/api\/models\/(org\/(?:stories|gguf))\/revision\/(main|v1)$/.exec(pathname);
  if (pathname === '/api/models/org/gated/revision/main') return void response.writeHead(401).end();
  if (api) {
    const names = [...files.keys()].filter((name) => name.endsWith('.gguf') === (api[1] === 'org/gguf'));
    const siblings = [...names, 'runs/10:00:00/x', '../out'].map((rfilename) => ({ rfilename }));
    return void response.end(JSON.stringify({ sha: COMMIT, siblings }));
  }
  const resolved = new RegExp(`^/org/(?:stories|gguf)/resolve/${COMMIT}/(.+)$`).exec(pathname)?.[1];
  const name = resolved ?? /^\/(?:models|signed)\/(.+)$/.exec(pathname)?.[1] ?? '';
  const bytes = pathname.startsWith('/signed/') && searchParams.get('key') !== 'k' ? undefined : files.get(name);
  if (!bytes && missing === 'page') return void response.end('<!doctype html><title>app</title>');
  if (!bytes) return void response.writeHead(missing === 403 ? 403 : 404).end();
  const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? [];
  if (!ranges || from === undefined) return void response.end(bytes);
  const end = Math.min(Number(to), bytes.length - 1);
  response.writeHead(206, { 'content-range': `bytes ${from}-${end}/${bytes.length}` });
  response.end(bytes.subarray(Number(from), end + 1));
});

before(async () => {
  for (const name of readdirSync(embeddedModel))
    if (/\.(?:json|safetensors)$/.test(name))
      files.set(name, new Uint8Array(readFileSync(path.join(embeddedModel, name))));
  for (const [to, name] of [
    ['q8_0', 'stories-Q8_0.gguf'],
    ['q4_0', 'stories-Q4_0.gguf'],
  ] as const) {
    await quantizeModel(embeddedModel, path.join(work, name), { to });
    files.set(name, new Uint8Array(readFileSync(path.join(work, name))));
  }
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});

after(() => {
  server.close();
  server.closeAllConnections();
  rmSync(work, { recursive: true, force: true });
});

async function say(source: WebModelSource, options: WebLoadOptions = {}): Promise<string> {
  const model = await load(source, options);
  try {
    let text = '';
    for await (const event of model.generate('Once upon a time', { temperature: 0, maxTokens: 12 }))
      if (event.type === 'done') text = event.text;
    return text;
  } finally {
    await model.dispose();
  }
}

const file = (name: string, as = name): File => new File([files.get(name)!], as);
const folderFiles = (): File[] => [...files.keys()].filter((name) => !name.endsWith('.gguf')).map((name) => file(name));

/** The part of a browser's handles that is used. */
function folderHandle(entries: readonly File[]): FileSystemDirectoryHandle {
  const absent = (): Promise<never> => Promise.reject(new DOMException('none', 'NotFoundError'));
  const handles = entries.map((entry) => ({ kind: 'file', name: entry.name, getFile: async () => entry }));
  return {
    kind: 'directory',
    name: 'chosen',
    values: async function* () {
      yield* handles;
    },
    getFileHandle: (name: string) => {
      const found = handles.find((handle) => handle.name === name);
      return found ? Promise.resolve(found) : absent();
    },
    getDirectoryHandle: absent,
  } as unknown as FileSystemDirectoryHandle;
}

test('a tokenizer and a description need no weights', async () => {
  for (const source of [`${origin}/models`, file('stories-Q8_0.gguf'), folderFiles()]) {
    const tokenizer = await openTokenizer(source);
    assert.deepEqual(tokenizer.encode('Once upon a time'), [559, 552, 263, 423]);
    const { modelType, parameters } = await describeModel(source, 'q4_0');
    assert.deepEqual([modelType, parameters], ['gpt2', 5_918_720]);
  }
  await assert.rejects(openTokenizer('org/gated', { endpoint: origin }), { code: 'Unauthorized' });
});

test('every way to name a model gives its text', async () => {
  const folder = await say(`${origin}/models`);
  const q8 = await say(file('stories-Q8_0.gguf'));
  assert.ok(folder.length > 10 && q8.length > 10);
  const inFolder = folderFiles().map((entry) => {
    Object.defineProperty(entry, 'webkitRelativePath', { value: `my model/${entry.name}` });
    return entry;
  });
  const endpoint = `${origin}/`;
  const rows: readonly [string, WebModelSource, WebLoadOptions, string][] = [
    ['folder, slash', `${origin}/models/`, {}, folder],
    ['safetensors address', new URL(`${origin}/models/model.safetensors`), {}, folder],
    ['gguf address', `${origin}/models/stories-Q8_0.gguf`, {}, q8],
    ['gguf address with parameters', `${origin}/signed/stories-Q8_0.gguf?key=k#top`, {}, q8],
    ['id', 'org/stories', { endpoint }, folder],
    ['id and revision', 'org/stories@v1', { endpoint }, folder],
    ['revision as an option', 'org/stories', { endpoint, revision: 'v1', token: 'secret' }, folder],
    ['id and file', 'org/gguf:stories-Q8_0.gguf', { endpoint }, q8],
    ['id and quantization', 'org/gguf:Q8_0', { endpoint }, q8],
    ['link to the hub', `${origin}/org/gguf/blob/main/stories-Q8_0.gguf`, { endpoint }, q8],
    ['files', folderFiles(), {}, folder],
    ['files of a folder', inFolder, {}, folder],
    ['one gguf of a list', [file('stories-Q8_0.gguf')], {}, q8],
    ['gguf of another name', file('stories-Q8_0.gguf', 'download'), {}, q8],
    ['blob', new Blob([files.get('stories-Q8_0.gguf')!]), {}, q8],
    ['folder handle', folderHandle(folderFiles()), {}, folder],
    ['file handle', folderFileHandle(file('stories-Q8_0.gguf')), {}, q8],
    ['blob address', URL.createObjectURL(file('stories-Q8_0.gguf')), {}, q8],
  ];
  for (const [name, source, options, expected] of rows) assert.equal(await say(source, options), expected, name);
  assert.ok(asked.some(({ url, token }) => url.startsWith('/org/stories/resolve/') && token === 'Bearer secret'));
});

const folderFileHandle = (entry: File): FileSystemFileHandle =>
  ({ kind: 'file', name: entry.name, getFile: async () => entry }) as unknown as FileSystemFileHandle;

test('optional files that a server refuses or answers with a page are not there; servers without ranges will do', async (t) => {
  t.after(() => {
    missing = 404;
    ranges = true;
  });
  const expected = await say(`${origin}/models`);
  for (const answer of [403, 'page'] as const) {
    missing = answer;
    for (const some of [true, false]) {
      ranges = some;
      assert.equal(await say(`${origin}/models`), expected);
    }
  }
});

test("missing files are named, with the server's answer", async (t) => {
  t.after(() => {
    missing = 404;
  });
  await assert.rejects(load(`${origin}/nothing`), { code: 'NoConfig' });
  await assert.rejects(load(`${origin}/models/nothing.gguf`), { code: 'NoCheckpoint', message: /nothing\.gguf/ });
  missing = 403;
  await assert.rejects(load(`${origin}/models/nothing.gguf`), { message: /nothing\.gguf .*status 403/ });
  missing = 'page';
  await assert.rejects(load(`${origin}/nothing`), { message: /config\.json with a page/ });
  const endpoint = origin;
  await assert.rejects(load('org/none', { endpoint }), { code: 'InvalidAnswer' });
  missing = 404;
  await assert.rejects(load('org/none', { endpoint }), { code: 'RevisionNotFound', message: /org\/none@main/ });
  await assert.rejects(load('org/gated', { endpoint }), { code: 'Unauthorized', message: /option token/ });
  await assert.rejects(load('org/stories', { endpoint: 'http://127.0.0.1:1' }), { code: 'Unreachable' });
  await assert.rejects(load(`${origin}/models`, { revision: 'v1' }), { code: 'InvalidOption', message: /revision/ });
  await assert.rejects(load(file('config.json')), { code: 'NoCheckpoint' });
  for (const wrong of [undefined, 7, {}, [], ['x'], 'not an address'])
    await assert.rejects(load(wrong as never), { code: 'InvalidOption', message: /^source must be/ });
});
