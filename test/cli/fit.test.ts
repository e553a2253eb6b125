/** `lanewise fit`: sizes of local models and of models at the hub, whose weights are not fetched. */
import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { estimateMemory } from '../../src/node.ts';
import { HubServer } from '../unit/hub-server.ts';
import { golden, lanewise } from './run.ts';

const model = golden('models/llama-gqa-f16');

interface Row {
  readonly policy: string;
  readonly context: number;
  readonly kv_cache: string;
  readonly weight_bytes: number;
  readonly fits: string;
}

test('a table of policies, contexts and storages of keys and values, and the same as JSON', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'lanewise-fit-'));
  t.after(() => rm(folder, { recursive: true }));
  const plan = join(folder, 'mine.json');
  await writeFile(plan, '{"version": 1, "weights": {"output": "q8_0"}}');
  const flags = ['--context', '64,128', '--kv-cache', 'f32,q8_0', '--policies', `none;q8_0,output=none;${plan}`];
  const { code, out } = await lanewise(['fit', model, ...flags, '--json']);
  assert.equal(code, 0);
  const { rows, threads, default_policy, default_context } = JSON.parse(out) as {
    rows: Row[];
    threads: number;
    default_policy: string;
    default_context: number;
  };
  assert.deepEqual([default_policy, default_context, threads > 0], ['q8_0:min-dim=1024', 128, true]);
  assert.deepEqual(
    rows.map(({ policy, context, kv_cache }) => [policy, context, kv_cache]),
    ['none', 'q8_0,output=none', plan].flatMap((policy) =>
      ['f32', 'q8_0'].flatMap((kv) => [64, 128].map((context) => [policy, context, kv])),
    ),
  );
  const estimate = await estimateMemory(model, { policies: ['none'], contexts: [64] });
  assert.equal(rows[0]!.weight_bytes, estimate.rows[0]!.memory!.weights);
  // Heads of 16 values are no whole blocks.
  assert.deepEqual(
    rows.slice(0, 4).map(({ fits }) => fits),
    ['fits', 'fits', 'unsupported', 'unsupported'],
  );
  const table = await lanewise(['fit', model, ...flags]);
  assert.match(table.out, /^\| none +\| +64 \| f32 +\| +[\d.]+ kB \| +[\d.]+ MB \|.*\| 1, 0 % full +\| yes +\|$/m);
  assert.match(table.err, /^refused: kvCache must be f32 or f16 \(q8_0 takes head dimensions/);
});

test('a run takes what was told, in bytes', async () => {
  const shared = ['--kv-cache', 'f16', '--threads', '2', '--json'];
  const fit = await lanewise(['fit', model, '--policies', 'q8_0', '--context', '128', ...shared]);
  const [row] = JSON.parse(fit.out).rows;
  const ids = Array.from({ length: 100 }, (_, n) => n).join(',');
  const sampled = ['--token-ids', ids, '--max-tokens', '28', '--ignore-eos', '--context-length', '128'];
  const run = await lanewise(['generate', model, '--quantize', 'q8_0', ...sampled, ...shared]);
  const { weight_bytes, activation_bytes, cache_bytes } = JSON.parse(run.out).model;
  assert.deepEqual(
    [weight_bytes, activation_bytes, cache_bytes],
    [row.weight_bytes, row.activation_bytes, row.cache_bytes],
  );
});

test('of a model at the hub, only headers and settings are fetched', async (t) => {
  const files: Record<string, Buffer> = {};
  for (const name of await readdir(model))
    if (!name.startsWith('expected')) files[name] = await readFile(join(model, name));
  const hub = await HubServer.start(files);
  t.after(() => hub.stop());
  const cache = await mkdtemp(join(tmpdir(), 'lanewise-hub-'));
  t.after(() => rm(cache, { recursive: true, force: true }));
  const env = { HF_ENDPOINT: hub.origin, HF_HUB_CACHE: cache, HF_HUB_OFFLINE: '', HF_TOKEN: '', HF_HOME: cache };
  const remote = await lanewise(['fit', 'people/model', '--context', '128', '--json'], { env });
  assert.deepEqual([remote.code, remote.err], [0, '']);
  const bytes = hub.gets('model.safetensors').map(({ range }) => {
    const [, from, to] = /(\d+)-(\d+)$/.exec(range!)!;
    return Number(to) + 1 - Number(from);
  });
  assert.ok(bytes.length > 0);
  assert.ok(bytes.reduce((sum, count) => sum + count, 0) < files['model.safetensors']!.length / 2);
  assert.deepEqual(await readdir(cache), []);
  const sizes = (text: string): unknown =>
    JSON.parse(text).rows.map((row: Row) => [row.policy, row.weight_bytes, row.fits]);
  const local = await lanewise(['fit', model, '--context', '128', '--json']);
  assert.deepEqual(sizes(remote.out), sizes(local.out));
});

test('bad lists are refused in words of flags', async () => {
  for (const [flags, message] of [
    [['--context', '2x'], /^error: --context must be numbers of tokens such as 512,2k,128k, got "2x"\n$/],
    [['--context', '1k'], /^error: contextLength must be at most 128, the model's limit, got 1024\n$/],
    [['--policies', 'q9'], /^error: --policies must be none, q8_0/],
    [['--kv-cache', 'f8'], /^error: --kv-cache must be f32, f16 or q8_0, got "f8"\n$/],
  ] as const) {
    const { code, out, err } = await lanewise(['fit', model, ...flags]);
    assert.deepEqual([code, out], [1, '']);
    assert.match(err, message);
  }
});
