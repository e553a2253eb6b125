import assert from 'node:assert/strict';
import { cp, mkdtemp, open, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { nodeFolder } from '../../src/formats/adapters/node.ts';
import { openCheckpoint } from '../../src/formats/checkpoint.ts';
import { HubServer } from '../unit/hub-server.ts';
import { golden, lanewise } from './run.ts';

const model = golden('models/llama-gqa-f16');

async function copyOf(t: TestContext, name = 'llama-gqa-f16'): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'lanewise-inspect-'));
  t.after(() => rm(path, { recursive: true }));
  await cp(golden(`models/${name}`), path, { recursive: true });
  return path;
}

test('a model introduces itself: sizes for each policy and context', async () => {
  const { code, out } = await lanewise(['inspect', model]);
  assert.equal(code, 0);
  assert.match(
    out,
    /^llama: .* parameters, .*\nSafeTensors, 1 file, .*: \d+ F16\ntokenizer: BPE, ids below \d+, \d+ special\nchat template: none\n/,
  );
  const { memory, parameters, config, free_bytes, tensors } = JSON.parse(
    (await lanewise(['inspect', model, '--json', '--context-length', '70', '--quantize', 'q8_0,output=none'])).out,
  );
  assert.deepEqual(
    memory.map(({ policy }: { policy: string }) => policy),
    ['none', 'q8_0:min-dim=1024', 'q8_0', 'q6_k', 'q4_k', 'iq4_nl', 'q4_0', 'q8_0,output=none'],
  );
  const [none, , q8] = memory;
  assert.ok(none.weight_bytes >= 2 * parameters && q8.weight_bytes < none.weight_bytes && tensors > 0);
  // Positions are held in pages of 64: keys and values as F32.
  const { layers, kvHeads, headDim } = config;
  assert.deepEqual(none.contexts, [
    {
      positions: 70,
      cache_bytes: 2 * 64 * layers * kvHeads * (headDim + Math.ceil(headDim / 16) * 16) * 4,
      fits: true,
    },
  ]);
  assert.ok(free_bytes > 0);
  assert.match(
    (await lanewise(['inspect', model, '--context-length', '1000000'])).err,
    /^error: --context-length must be at most \d+, got 1000000\n$/,
  );
});

test('tensors are listed, filtered and measured', async () => {
  const all = JSON.parse((await lanewise(['inspect', model, '--tensors', '--json'])).out);
  const some = JSON.parse((await lanewise(['inspect', model, '--filter', 'layers.0.mlp', '--stats', '--json'])).out);
  assert.equal(some.length, 3);
  assert.ok(all.length > 3 && all.every((tensor: object) => !('stats' in tensor)));
  const checkpoint = await openCheckpoint(nodeFolder(model));
  const tensor = checkpoint.tensors.get(some[0].name)!;
  const bytes = new Uint8Array(tensor.byteLength);
  await tensor.readInto(0, bytes);
  await checkpoint.close();
  const values = [...new Float16Array(bytes.buffer)];
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  assert.equal(some[0].stats.count, values.length);
  assert.equal(some[0].stats.max, Math.max(...values));
  assert.ok(Math.abs(some[0].stats.mean - mean) < 1e-9);
  assert.match(
    (await lanewise(['inspect', model, '--filter', 'embed'])).out,
    /\| model\.embed_tokens\.weight \| F16 +\|/,
  );
});

test('tensors are found by either name; a filter that finds none says so', async () => {
  const file = golden('gguf/llama-f32.gguf');
  const chosen = async (filter: string): Promise<string[]> => {
    const { out } = await lanewise(['inspect', file, '--filter', filter, '--json']);
    return JSON.parse(out).map(({ name }: { name: string }) => name);
  };
  const first = await chosen('blk.0.');
  assert.ok(first.includes('model.layers.0.mlp.up_proj.weight'));
  assert.deepEqual(first, await chosen('model.layers.0.'));
  for (const more of [[], ['--json'], ['--stats']]) {
    const { code, out, err } = await lanewise(['inspect', file, '--filter', 'blk.77', ...more]);
    assert.deepEqual([code, out], [1, '']);
    assert.match(
      err,
      /^error: .*llama-f32\.gguf: --filter blk\.77 matches none of its \d+ tensors; --tensors lists them\n$/,
    );
  }
});

test('metadata and single values', async () => {
  assert.equal((await lanewise(['inspect', model, '--key', 'model_type'])).out, 'llama\n');
  assert.match((await lanewise(['inspect', model, '--metadata'])).out, /^architectures: \["LlamaForCausalLM"\]$/m);
  const missing = await lanewise(['inspect', model, '--key', 'colour']);
  assert.match(
    missing.err,
    /^error: .*: expected the key colour, which is not among the \d+ of the file; --metadata lists them\n$/,
  );
  const [gguf] = (await readdir(golden('gguf'))).filter((name) => name.endsWith('.gguf'));
  const { out } = await lanewise(['inspect', golden(`gguf/${gguf}`), '--metadata']);
  assert.match(out, /^tokenizer\.ggml\.tokens: \[.*, \.\.\.\] \(\d+ items\)$/m);
  assert.match(out, /^general\.architecture: "/m);
});

test('--verify passes what is sound', async () => {
  const { code, out } = await lanewise(['inspect', model, '--verify']);
  assert.equal(code, 0);
  assert.deepEqual(out.match(/^\w+ [\w ]+:/gm), [
    'PASS headers:',
    'PASS model:',
    'PASS tokenizer:',
    'WARN chat template:',
    'PASS values:',
  ]);
});

test('--verify fails values that are not finite, a tokenizer that is too large, a template that cannot be read', async (t) => {
  const path = await copyOf(t);
  const checkpoint = await openCheckpoint(nodeFolder(path));
  const [name, { offset }] = [...checkpoint.tensors][3]!;
  await checkpoint.close();
  const file = await open(join(path, 'model.safetensors'), 'r+');
  await file.write(Uint8Array.of(0, 0x7c, 0, 0xfe), 0, 4, offset);
  await file.close();
  const tokenizer = JSON.parse(await readFile(join(path, 'tokenizer.json'), 'utf8'));
  const { vocab_size: vocab } = JSON.parse(await readFile(join(path, 'config.json'), 'utf8'));
  const used = Math.max(
    ...Object.values<number>(tokenizer.model.vocab),
    ...tokenizer.added_tokens.map(({ id }: { id: number }) => id),
  );
  for (let id = used + 1; id <= vocab; id++) tokenizer.added_tokens.push({ id, content: `<new-${id}>`, special: true });
  await writeFile(join(path, 'tokenizer.json'), JSON.stringify(tokenizer));
  await writeFile(join(path, 'chat_template.jinja'), '{% if %}');
  const { code, out } = await lanewise(['inspect', path, '--verify']);
  assert.equal(code, 1);
  assert.match(out, new RegExp(`^FAIL tokenizer: ids below ${vocab + 1}, the model has ${vocab}$`, 'm'));
  assert.match(out, /^FAIL chat template: chat template, line 1, column 7: /m);
  assert.ok(out.includes(`FAIL values: not finite: ${name} has 2\n`), out);
});

test('--verify tells what does not make a model', async (t) => {
  const path = await copyOf(t);
  const config = JSON.parse(await readFile(join(path, 'config.json'), 'utf8'));
  await writeFile(
    join(path, 'config.json'),
    JSON.stringify({ ...config, num_hidden_layers: config.num_hidden_layers + 1 }),
  );
  const { code, out } = await lanewise(['inspect', path, '--verify', '--json']);
  assert.equal(code, 1);
  assert.ok(
    JSON.parse(out).some(
      ({ status, what }: { status: string; what: string }) => status === 'FAIL' && what.startsWith('model: '),
    ),
  );
  await writeFile(join(path, 'model.safetensors'), 'nonsense');
  const broken = await lanewise(['inspect', path, '--verify']);
  assert.deepEqual([broken.code, broken.err.split('\n').length], [1, 2]);
});

test('a model at the hub is inspected by its headers and kept nowhere', async (t) => {
  const files: Record<string, Buffer> = {};
  for (const name of await readdir(model))
    if (!name.startsWith('expected')) files[name] = await readFile(join(model, name));
  const [gguf] = (await readdir(golden('gguf'))).filter((name) => name.endsWith('.gguf'));
  files[`sub/${gguf}`] = await readFile(golden(`gguf/${gguf}`));
  const hub = await HubServer.start(files);
  t.after(() => hub.stop());
  const cache = await mkdtemp(join(tmpdir(), 'lanewise-hub-'));
  t.after(() => rm(cache, { recursive: true, force: true }));
  const env = { HF_ENDPOINT: hub.origin, HF_HUB_CACHE: cache, HF_HUB_OFFLINE: '', HF_TOKEN: 'secret', HF_HOME: cache };
  const remote = await lanewise(['inspect', 'people/model', '--verify'], { env });
  assert.deepEqual([remote.code, remote.err], [0, '']);
  assert.match(remote.out, /^WARN values: not read, as they are not on this machine$/m);
  const [read] = hub
    .gets('model.safetensors')
    .map(({ range }) => /-(\d+)$/.exec(range!)![1])
    .sort((a, b) => Number(b) - Number(a));
  assert.ok(Number(read) < files['model.safetensors']!.length / 2);
  assert.match((await lanewise(['inspect', `people/model:sub/${gguf}`], { env })).out, /^GGUF, 1 file/m);
  assert.deepEqual(await readdir(cache), []);
  const offline = await lanewise(['inspect', 'people/model'], { env: { ...env, HF_HUB_OFFLINE: '1' } });
  assert.match(offline.err, /HF_HUB_OFFLINE is set/);
});
