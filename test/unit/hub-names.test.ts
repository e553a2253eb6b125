import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join, relative } from 'node:path';
import test, { type TestContext } from 'node:test';
import { chooseGguf, ggufModels, quantizationOf } from '../../src/hub/choice.ts';
import { type DownloadOptions, download } from '../../src/hub/download.ts';
import { hubModel, modelAt } from '../../src/hub/model.ts';
import { type HubId, parseHubId, revisionOf } from '../../src/hub/names.ts';
import { remoteModel } from '../../src/hub/remote.ts';
import { describeModel, load, openTokenizer } from '../../src/node.ts';
import { commit, HubServer } from './hub-server.ts';

const id = 'org/name';
const quick = { attempts: 3, delayMs: 1, stallMs: 5_000, partBytes: 256, parallel: 3 };

async function start(
  t: TestContext,
  files: Record<string, Buffer | string>,
): Promise<{ hub: HubServer; cache: string; options: DownloadOptions }> {
  const hub = await HubServer.start(files);
  t.after(() => hub.stop());
  const cache = await mkdtemp(join(tmpdir(), 'lanewise-hub-'));
  t.after(() => rm(cache, { recursive: true, force: true }));
  return { hub, cache, options: { settings: hub.settings(cache), transport: quick } };
}

const hash = 'a'.repeat(40);
const file = 'model-Q4_K_M.gguf';
const ids: readonly (readonly [string, Partial<HubId>])[] = [
  ['org/name', {}],
  ['gpt2', { repository: 'gpt2' }],
  ['gpt2@main', { repository: 'gpt2', revision: 'main' }],
  ['org/name@v1.0', { revision: 'v1.0' }],
  [`org/name@${hash}`, { revision: hash }],
  ['org/name@refs/pr/3', { revision: 'refs/pr/3' }],
  ['org/name:Q4_K_M', { tag: 'Q4_K_M' }],
  ['org/name:q4_k_m', { tag: 'q4_k_m' }],
  ['org/name@v2:Q8_0', { revision: 'v2', tag: 'Q8_0' }],
  [`org/name:${file}`, { file }],
  [`org/name/${file}`, { file }],
  [`org/name@v2/sub/${file}`, { revision: 'v2', file: `sub/${file}` }],
  ['org/name:MODEL.GGUF', { file: 'MODEL.GGUF' }],
  ['hf.co/org/name', {}],
  ['HF.co/org/name', {}],
  ['hf.co/org/name:Q4_K_M', { tag: 'Q4_K_M' }],
  [`hf.co/org/name/${file}`, { file }],
  ['hf.co/gpt2', { repository: 'gpt2' }],
  ['huggingface.co/org/name', {}],
  ['www.huggingface.co/org/name/', {}],
  ['https://huggingface.co/org/name', {}],
  ['https://huggingface.co/org/name/', {}],
  ['https://huggingface.co/models/org/name?library=gguf#files', {}],
  ['https://huggingface.co/gpt2', { repository: 'gpt2' }],
  ['https://huggingface.co/org/name/tree/main', { revision: 'main' }],
  ['huggingface.co/org/name/tree/v1/', { revision: 'v1' }],
  ['https://huggingface.co/org/name/tree/refs%2Fpr%2F7', { revision: 'refs/pr/7' }],
  ['https://huggingface.co/org/name/tree/refs/pr/7', { revision: 'refs/pr/7' }],
  ['https://huggingface.co/org/name/tree/main/Q4_K_M', { revision: 'main', tag: 'Q4_K_M' }],
  [`https://huggingface.co/org/name/resolve/main/${file}?download=true`, { revision: 'main', file }],
  [`https://huggingface.co/org/name/blob/${hash}/sub/${file}`, { revision: hash, file: `sub/${file}` }],
  ['https://huggingface.co/org/name/raw/main/config.json', { revision: 'main', file: 'config.json' }],
  ['https://huggingface.co/org/name/blob/main/a%20b.gguf', { revision: 'main', file: 'a b.gguf' }],
  [
    'https://huggingface.co/gpt2/blob/main/model.safetensors',
    { repository: 'gpt2', revision: 'main', file: 'model.safetensors' },
  ],
  ['hf://org/name', {}],
  [`hf://org/name@v1/${file}`, { revision: 'v1', file }],
  ['hf://models/org/name', {}],
  ['http://mirror.example:8080/org/name/resolve/main/x.gguf', { revision: 'main', file: 'x.gguf' }],
];
for (const [text, expected] of ids)
  test(`${text} names a model of the hub`, () => {
    assert.deepEqual(parseHubId(text, 'http://mirror.example:8080'), { repository: id, file: undefined, ...expected });
  });

const none = [
  './org/name',
  '/org/name',
  '../name',
  '~/name',
  'C:\\models\\x',
  'org\\name',
  'model.gguf',
  'template.jinja',
];
const nor = ['a/b/c', 'org/name:', 'org/name@', 'org/name@../x', 'https://example.com/org/name', 'hf://a/b/c', ''];
const links = [
  'https://huggingface.co/datasets/org/name',
  'https://huggingface.co/org/name/resolve/main/../../x.gguf',
  'hf.co/',
];
for (const text of [...none, ...nor, ...links])
  test(`${JSON.stringify(text)} does not`, () => assert.equal(parseHubId(text), undefined));

test('two revisions that differ are refused', () => {
  assert.equal(revisionOf({ repository: id, file: undefined }, undefined), 'main');
  assert.equal(revisionOf({ repository: id, file: undefined, revision: 'a' }, undefined), 'a');
  assert.equal(revisionOf({ repository: id, file: undefined, revision: 'a' }, 'a'), 'a');
  assert.throws(() => revisionOf({ repository: id, file: undefined, revision: 'a' }, 'b'), { code: 'InvalidRevision' });
});

const labels: readonly (readonly [string, string | undefined])[] = [
  ['model.Q4_K_M.gguf', 'Q4_K_M'],
  ['model-q4_k_m.gguf', 'Q4_K_M'],
  ['model-Q4_K_M-00001-of-00003.gguf', 'Q4_K_M'],
  ['Q8_0/model-00001-of-00002.gguf', 'Q8_0'],
  ['model-UD-Q4_K_XL.gguf', 'UD-Q4_K_XL'],
  ['model.i1-IQ2_XXS.gguf', 'IQ2_XXS'],
  ['ggml-model-f16.gguf', 'F16'],
  ['model-fp16.gguf', 'F16'],
  ['model-BF16.gguf', 'BF16'],
  ['gemma-3-270m-it-qat-Q4_0.gguf', 'Q4_0'],
  ['model-mxfp4.gguf', 'MXFP4'],
  ['model.gguf', undefined],
];
for (const [name, label] of labels)
  test(`the quantization of ${name} is ${label ?? 'not known'}`, () => assert.equal(quantizationOf(name), label));

const shelf = [
  ...['m-BF16.gguf', 'm-F16.gguf', 'm-Q4_0.gguf', 'm-Q4_K_M.gguf', 'm-Q4_K_S.gguf', 'm-UD-Q4_K_XL.gguf'],
  ...['m-Q8_0-00001-of-00002.gguf', 'm-Q8_0-00002-of-00002.gguf', 'sub/m-Q6_K.gguf'],
  ...['mmproj-m-f16.gguf', 'm.mmproj-Q8_0.gguf', 'm-imatrix.gguf', 'imatrix.gguf'],
];
const chosen: readonly (readonly [string | undefined, readonly string[]])[] = [
  [undefined, ['m-Q4_K_M.gguf']],
  ['latest', ['m-Q4_K_M.gguf']],
  ['Q4_K_M', ['m-Q4_K_M.gguf']],
  ['q4_k_m', ['m-Q4_K_M.gguf']],
  ['q8_0', ['m-Q8_0-00001-of-00002.gguf']],
  ['fp16', ['m-F16.gguf']],
  ['f16', ['m-F16.gguf']],
  ['bf16', ['m-BF16.gguf']],
  ['UD-Q4_K_XL', ['m-UD-Q4_K_XL.gguf']],
  ['Q4_K_XL', ['m-UD-Q4_K_XL.gguf']],
  ['sub', ['sub/m-Q6_K.gguf']],
  ['Q6_K', ['sub/m-Q6_K.gguf']],
  ['Q2_K', []],
];
for (const [tag, expected] of chosen)
  test(`of many GGUF files, ${tag ?? 'no tag'} takes ${expected.join() || 'none'}`, () => {
    assert.deepEqual(chooseGguf(ggufModels(shelf), tag), expected);
  });

test('a tag fetches one quantization, all its parts, and finds it again in the cache', async (t) => {
  const { hub, options } = await start(t, Object.fromEntries(shelf.map((name) => [name, name])));
  const path = await hubModel(parseHubId('hf.co/org/name:q8_0')!, options);
  assert.equal(await readFile(path, 'utf8'), 'm-Q8_0-00001-of-00002.gguf');
  assert.deepEqual((await readdir(join(path, '..'))).sort(), shelf.filter((name) => name.includes('Q8_0-0')).sort());
  hub.seen.length = 0;
  assert.equal(await hubModel(parseHubId('org/name:Q8_0')!, options), path);
  assert.deepEqual(hub.seen, []);
  await assert.rejects(hubModel(parseHubId('org/name:Q2_K')!, options), {
    code: 'EntryNotFound',
    message: /for "Q2_K", found org\/name:BF16, org\/name:F16, org\/name:Q4_0/,
  });
});

test('without a tag the preferred quantization is taken, and told', async (t) => {
  const { options } = await start(t, Object.fromEntries(shelf.map((name) => [name, name])));
  const told: unknown[] = [];
  const onChoice = (...all: unknown[]): void => void told.push(...all);
  const path = await hubModel(parseHubId(id)!, { ...options, onChoice });
  assert.equal(basename(path), 'm-Q4_K_M.gguf');
  assert.deepEqual(told, ['m-Q4_K_M.gguf', ggufModels(shelf)]);
});

test('a projector of images beside one model is not the model', async (t) => {
  const { options } = await start(t, { 'mmproj-model-f16.gguf': 'p', 'model.gguf': 'm' });
  assert.equal(await readFile(await hubModel(parseHubId(id)!, options), 'utf8'), 'm');
});

test('an odd file name that nobody asked for does not refuse the repository', async (t) => {
  const odd = ['runs/Aug21_10:00:00/x', 'what?.md', 'aux.py', 'con', 'dot.', '../../evil', 'a\\b', '/abs'];
  const model = { 'config.json': '{}', 'tokenizer.json': '{}', 'model.safetensors': 'w' };
  const { hub, cache, options } = await start(t, { ...model, ...Object.fromEntries(odd.map((name) => [name, 'x'])) });
  const path = await hubModel(parseHubId(id)!, options);
  assert.deepEqual((await readdir(path)).sort(), Object.keys(model).sort());
  assert.equal((await remoteModel(parseHubId(id)!, options)).file, undefined);
  const json = await download(id, { ...options, include: ['*.json'] });
  assert.deepEqual(json.files, ['config.json', 'tokenizer.json']);
  await assert.rejects(download(id, options), { code: 'UnsafeFileName' });
  for (const name of ['../../evil', 'a\\b', '/abs']) hub.files.delete(name);
  const inWindows = await download(id, { ...options, transport: { ...quick, windows: true } });
  assert.deepEqual(inWindows.skipped, odd.slice(0, 5));
  assert.deepEqual([...inWindows.files].sort(), Object.keys(model).sort());
  await assert.rejects(
    download(id, { ...options, transport: { ...quick, windows: true } }, async (files) => files),
    { code: 'UnsafeFileName' },
  );
  assert.deepEqual(await readdir(cache), ['models--org--name']);
});

test('a model has the files of its tokenizer, templates and embedding modules', async (t) => {
  const wanted = [
    ...['config.json', 'generation_config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json'],
    ...['added_tokens.json', 'special_tokens_map.json', 'vocab.json', 'vocab.txt', 'merges.txt', 'tekken.json'],
    ...['chat_template.jinja', 'additional_chat_templates/tool_use.jinja', 'modules.json', 'sentence_bert_config.json'],
    ...[
      'config_sentence_transformers.json',
      '1_Pooling/config.json',
      '2_Dense/config.json',
      '2_Dense/model.safetensors',
    ],
    '3_Normalize/config.json',
  ];
  const left = [
    'README.md',
    'onnx/model.onnx',
    'pytorch_model.bin',
    '2_Dense/pytorch_model.bin',
    'openvino/config.json',
  ];
  const { options } = await start(t, Object.fromEntries([...wanted, ...left].map((name) => [name, 'x'])));
  const path = await hubModel(parseHubId(id)!, options);
  const entries = await readdir(path, { recursive: true, withFileTypes: true });
  const found = entries
    .filter((entry) => !entry.isDirectory())
    .map((entry) => relative(path, join(entry.parentPath, entry.name)));
  assert.deepEqual(found.sort(), wanted.sort());
});

test('a link to a folder with a model of its own', async (t) => {
  const files = {
    'small/config.json': '{}',
    'small/tokenizer.json': '{}',
    'small/model.safetensors': 'w',
    'config.json': '{}',
  };
  const { hub, options } = await start(t, files);
  const link = parseHubId('https://huggingface.co/org/name/tree/main/small')!;
  const path = await hubModel(link, options);
  assert.deepEqual((await readdir(path)).sort(), ['config.json', 'model.safetensors', 'tokenizer.json']);
  hub.seen.length = 0;
  assert.equal(await hubModel(link, options), path.replace(/\/$/, ''));
  assert.deepEqual(hub.seen, []);
  const remote = await remoteModel(link, options);
  assert.deepEqual(
    [await remote.folder.list(), remote.file],
    [['config.json', 'model.safetensors', 'tokenizer.json'], undefined],
  );
});

test('a folder here wins over the hub; an error says what was tried', async (t) => {
  const { hub, cache, options } = await start(t, {});
  const here = join(cache, 'org');
  await mkdir(here);
  assert.equal(await modelAt(here, options), here);
  assert.deepEqual(hub.seen, []);
  await assert.rejects(modelAt(here, { ...options, revision: 'main' }), { code: 'InvalidRevision' });
  await assert.rejects(modelAt('org/name', options), {
    code: 'NoWeights',
    message:
      /^org\/name: no such file or folder, and not available from the hub: org\/name: expected model.safetensors/,
  });
  assert.equal(await modelAt('./org/name', options), './org/name');
  assert.equal(commit.length, 40);
});

test('load, openTokenizer and describeModel of the library take an id', async (t) => {
  const folder = new URL('../golden/models/gpt2-tied-f32/', import.meta.url);
  const files: Record<string, Buffer> = {};
  for (const name of await readdir(folder))
    if (!name.startsWith('expected')) files[name] = await readFile(new URL(name, folder));
  files['tokenizer.json'] = await readFile(new URL('../../models/lanewise-stories/tokenizer.json', import.meta.url));
  const { hub, cache } = await start(t, files);
  const before = { ...process.env };
  t.after(() => {
    process.env = before;
  });
  process.env = { ...before, HF_ENDPOINT: hub.origin, HF_HUB_CACHE: cache, HF_HUB_OFFLINE: '', HF_TOKEN: 'x' };
  await using model = await load('org/name', { inline: true, threads: 1 });
  assert.ok(model.threads === 1);
  assert.ok((await openTokenizer('org/name@main')).vocabSize > 0);
  assert.equal((await describeModel(`${hub.origin}/org/name`)).modelType, 'gpt2');
  await assert.rejects(
    load('org/name@v9', { inline: true, threads: 1, signal: AbortSignal.abort(new Error('stop')) }),
    /stop/,
  );
  hub.fault = (_, response) => {
    response.writeHead(404, { 'x-error-code': 'RepoNotFound' }).end();
    return true;
  };
  await assert.rejects(load('nobody/nothing', { inline: true }), {
    code: 'RepositoryNotFound',
    message: /^nobody\/nothing: no such file or folder, and not available from the hub: .*check the id/,
  });
});
