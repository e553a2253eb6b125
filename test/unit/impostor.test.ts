import assert from 'node:assert/strict';
import { cp, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { blobFolder } from '../../src/formats/adapters/blob.ts';
import { fetchFolder } from '../../src/formats/adapters/fetch.ts';
import { readJson } from '../../src/formats/checkpoint.ts';
import { impostorOf } from '../../src/formats/impostor.ts';
import { load, openChatTemplate, openTokenizer } from '../../src/node.ts';

const pointer = `version https://git-lfs.github.com/spec/v1\noid sha256:${'0'.repeat(64)}\nsize 988097824\n`;
const config = JSON.stringify({
  model_type: 'llama',
  vocab_size: 32,
  hidden_size: 16,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  num_hidden_layers: 1,
  intermediate_size: 16,
  max_position_embeddings: 128,
  rms_norm_eps: 1e-6,
});

async function folder(t: TestContext, files: Readonly<Record<string, string>>): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'lanewise-impostor-'));
  t.after(() => rm(path, { recursive: true, force: true }));
  for (const [name, text] of Object.entries(files)) {
    await mkdir(join(path, name, '..'), { recursive: true });
    await writeFile(join(path, name), text);
  }
  return path;
}

const forms: readonly (readonly [string, RegExp | undefined])[] = [
  [pointer, /^a Git LFS pointer \(the file has 988097824 bytes\)$/],
  [pointer.replaceAll('\n', '\r\n'), /^a Git LFS pointer \(the file has 988097824 bytes\)$/],
  [`\u00ef\u00bb\u00bf${pointer}`, /Git LFS/],
  ['version https://hawser.github.com/spec/v1\noid sha256:0\nsize 1\n', /Git LFS/],
  ['version https://git-lfs.github.com/spec/v1\next-0-foo sha256:0\n', /^a Git LFS pointer$/],
  ["# xet version 0\nfilesize = 12\nhash = 'ab'\n", /Git Xet/],
  ['\n<!DOCTYPE html>\n<html>', /HTML/],
  ['<HTML lang="en">', /HTML/],
  ['<!-- Copyright -->\n<!DOCTYPE html>', /HTML/],
  [`<!-- ${'a long licence '.repeat(50)} --><html>`, /HTML/],
  ['<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN">', /HTML/],
  ['<head><title>app</title></head>', /HTML/],
  ['Entry not found', /"Entry not found"/],
  ['Invalid username or password.', /message/],
  ['{"version": "https://git-lfs.github.com"}', undefined],
  ['#version: 0.2\na b\n', undefined],
  ['<html-like-token> {{ bos_token }}', undefined],
  ['<|im_start|>{{ messages }}', undefined],
  ['<s>{{ messages }}', undefined],
  ['<?xml version="1.0"?><data/>', undefined],
  ['{%- if messages %}', undefined],
  ['GGUF', undefined],
  ['', undefined],
];
for (const [text, what] of forms) {
  test(`the start ${JSON.stringify(text.slice(0, 40))} is ${what === undefined ? 'a file' : 'none'}`, () => {
    const found = impostorOf(Buffer.from(text, 'latin1'));
    if (what === undefined) assert.equal(found, undefined);
    else assert.match(found!.what, what);
  });
}

const said = (file: string) => ({
  code: 'NotTheFile',
  message: new RegExp(`${file.replaceAll('.', '\\.')}: .*Git LFS pointer.*988097824.*git lfs pull`),
});
for (const file of ['config.json', 'model.safetensors', 'model.safetensors.index.json'])
  test(`load: a Git LFS pointer in place of ${file} is called that, with the command that mends it`, async (t) => {
    const path = await folder(t, { 'config.json': config, [file]: pointer });
    await assert.rejects(load(path, { inline: true }), said(file));
  });

for (const file of ['generation_config.json', 'tokenizer.json', 'tokenizer_config.json'])
  test(`load: beside right weights, a Git LFS pointer in place of ${file}`, async (t) => {
    const path = await folder(t, {});
    await cp(new URL('../../models/lanewise-stories', import.meta.url), path, { recursive: true });
    await writeFile(join(path, file), pointer);
    await assert.rejects(load(path, { inline: true }), said(file));
  });

test('load: a Git LFS pointer in place of a .gguf file, named or found', async (t) => {
  const path = await folder(t, { 'm.gguf': pointer });
  await assert.rejects(load(path, { inline: true }), said('m.gguf'));
  await assert.rejects(load(join(path, 'm.gguf'), { inline: true }), said('m.gguf'));
});

for (const file of ['tokenizer.json', 'tokenizer.model'])
  test(`openTokenizer: a Git LFS pointer in place of ${file}`, async (t) => {
    const path = await folder(t, { 'config.json': config, [file]: pointer });
    await assert.rejects(openTokenizer(path), said(file));
    await assert.rejects(openTokenizer(join(path, file)), said(file));
  });

for (const file of ['chat_template.jinja', 'tokenizer_config.json'])
  test(`openChatTemplate: a Git LFS pointer in place of ${file}`, async (t) => {
    const path = await folder(t, { 'config.json': config, [file]: pointer });
    await assert.rejects(openChatTemplate(path), said(file));
    if (file.endsWith('.jinja')) await assert.rejects(openChatTemplate(join(path, file)), said(file));
  });

test('chosen files: a Git LFS pointer', async () => {
  const chosen = blobFolder('chosen', [new File([pointer], 'config.json')]);
  await assert.rejects(readJson(chosen, 'config.json'), said('config.json'));
});

test('fetch: hosts that answer 200 or 206 and a page for a missing file do not have it; a pointer is named', async (t) => {
  const page = '<!doctype html>\n<html><body>app</body></html>';
  const server = createServer((request, response) => {
    const text = request.url === '/config.json' ? config : request.url === '/w.safetensors' ? pointer : page;
    const ranges = request.url !== '/no-ranges.json';
    if (!ranges) return void response.writeHead(200, { 'content-type': 'text/html' }).end(text);
    const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '')!;
    const part = text.slice(Number(from), Number(to) + 1);
    const range = `bytes ${from}-${Number(from) + part.length - 1}/${text.length}`;
    response.writeHead(206, { 'content-range': range }).end(part);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => server.close());
  const model = fetchFolder(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  assert.equal(await model.open('generation_config.json'), undefined);
  assert.equal(await model.open('no-ranges.json'), undefined);
  assert.deepEqual(await readJson(model, 'config.json'), JSON.parse(config));
  await assert.rejects(model.open('w.safetensors'), said('w.safetensors'));
});
