import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { commit, HubServer } from '../unit/hub-server.ts';
import { golden, lanewise } from './run.ts';

const id = 'people/gpt2';

async function start(
  t: TestContext,
): Promise<{ hub: HubServer; run: (...args: string[]) => ReturnType<typeof lanewise>; cache: string }> {
  const folder = golden('models/gpt2-tied-f32');
  const files: Record<string, Buffer> = {};
  for (const name of await readdir(folder))
    if (!name.startsWith('expected')) files[name] = await readFile(join(folder, name));
  const hub = await HubServer.start(files);
  t.after(() => hub.stop());
  const cache = await mkdtemp(join(tmpdir(), 'lanewise-hub-'));
  t.after(() => rm(cache, { recursive: true, force: true }));
  const env = { HF_ENDPOINT: hub.origin, HF_HUB_CACHE: cache, HF_HUB_OFFLINE: '', HF_TOKEN: '', HF_HOME: cache };
  return { hub, cache, run: (...args) => lanewise(args, { env }) };
}

test('a command takes an id of the hub: it fetches once, then runs without the network', async (t) => {
  const { hub, run } = await start(t);
  const args = ['generate', id, '--token-ids', '1,2,3', '--max-tokens', '3', '--temperature', '0', '--json'];
  const first = await run(...args);
  assert.equal(first.code, 0, first.err);
  assert.equal(JSON.parse(first.out).token_ids.length, 3);
  hub.seen.length = 0;
  assert.deepEqual(JSON.parse((await run(...args)).out).token_ids, JSON.parse(first.out).token_ids);
  assert.deepEqual(hub.seen, []);
});

test('tokenizers and templates are read at the hub without the weights, and not kept', async (t) => {
  const { hub, cache, run } = await start(t);
  hub.files.set('tokenizer.json', await readFile(golden('tokenizers/llama2/tokenizer.json')));
  hub.files.set('chat_template.jinja', Buffer.from('{{ messages[0].content }}'));
  hub.files.set('additional_chat_templates/rag.jinja', Buffer.from('RAG {{ messages[0].content }}'));
  const encoded = await run('tokenize', 'encode', id, '--text', 'it is');
  assert.deepEqual([encoded.code, encoded.out, encoded.err], [0, '1,286,478,300\n', '']);
  const render = ['template', 'render', id, '--revision', 'main', '--chat-template', 'rag', '--file'];
  const line = join(cache, 'line.json');
  await writeFile(line, '{"messages":[{"role":"user","content":"hi"}]}');
  const rendered = await run(...render, line);
  assert.deepEqual([rendered.code, rendered.out, rendered.err], [0, 'RAG hi', '']);
  assert.ok(hub.seen.some(({ path }) => path.endsWith('/tokenizer.json')));
  assert.deepEqual(
    hub.seen.filter(({ path }) => path.endsWith('.safetensors')),
    [],
  );
  assert.deepEqual(await readdir(cache), ['line.json']);
});

test('download, list, verify and remove', async (t) => {
  const { run, cache } = await start(t);
  const snapshot = join(cache, 'models--people--gpt2', 'snapshots', commit);
  const downloaded = await run('download', id, '--include', '*.json', '--exclude', 'gen*');
  assert.equal(downloaded.out, `${snapshot}\n`);
  assert.match(downloaded.err, /^3 files at commit cccccccccccc, .* downloaded in .*\/s\)\n$/);
  assert.match((await run('list')).out, /\| people\/gpt2 \| main +\| cccccccccccc \| +3 \|/);
  const verified = await run('verify');
  assert.equal(verified.code, 0);
  assert.equal(verified.out.match(/^PASS people\/gpt2\//gm)?.length, 3);
  await writeFile(join(snapshot, 'config.json'), '{}');
  const changed = await run('verify', id);
  assert.equal(changed.code, 1);
  assert.match(changed.out, /^FAIL people\/gpt2\/config.json: expected git sha1 /m);
  assert.match((await run('remove', id)).err, /^removed people\/gpt2: .* freed\n$/);
  assert.match((await run('list')).err, /^no models in /);
  const again = await run('remove', id);
  assert.deepEqual([again.code, again.err.split('\n').length], [1, 2]);
});

test('what cannot be had is one line', async (t) => {
  const { hub, run } = await start(t);
  hub.fault = (_, response) => {
    response.writeHead(401).end();
    return true;
  };
  const { code, out, err } = await run('generate', 'people/private', '--prompt', 'x');
  assert.deepEqual([code, out], [1, '']);
  assert.match(
    err,
    /^error: people\/private: no such file or folder, and not available from the hub: 127\.0\.0\.1:\d+\/api\/models\/people\/private\/revision\/main: no such model, or a private one: .*\n$/,
  );
});
