/** `lanewise doctor` and `--explain`: findings and decisions under stable keys, as tables and as JSON. */
import assert from 'node:assert/strict';
import { cp, mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import type { Finding } from '../../src/node.ts';
import { golden, lanewise } from './run.ts';

interface Report {
  readonly faults: number;
  readonly warnings: number;
  readonly machine: readonly Finding[];
  readonly model: readonly Finding[] | null;
}

const model = golden('models/llama-gqa-f16');

test('a machine is checked; a hub that does not answer is a fault, with exit code 1', async () => {
  const env = { HF_ENDPOINT: 'http://127.0.0.1:9', HF_HUB_OFFLINE: '' };
  const { code, out } = await lanewise(['doctor', '--hub'], { env });
  assert.equal(code, 1);
  assert.match(out, /^\| fault +\| hub\.reachable +\| false /m);
  assert.match(out, /\n1 fault, \d+ warnings?\n$/);
  assert.match(out, /^\| ok +\| kernels\.check +\| passed +\| machine +\| f32, f16, .*q6_k/m);
  for (const key of ['node.version', 'wasm.simd', 'threads.possible', 'cores.quota', 'memory.bytes', 'cache.hub'])
    assert.match(out, new RegExp(`^\\| (ok|warning) +\\| ${key.replaceAll('.', '\\.')} +\\|`, 'm'));
});

test('of a model all decisions are listed, in words of flags', async () => {
  const { code, out } = await lanewise(['doctor', model, '--json', '--threads', '1', '--context-length', '64']);
  const { model: findings } = JSON.parse(out) as Report;
  const found = new Map(findings!.map((finding) => [finding.key, finding]));
  assert.equal(code, 0);
  assert.ok(!found.has('hub.reachable'), 'the hub is not asked');
  assert.deepEqual([found.get('threads.count')!.value, found.get('threads.wanted')!.from], [1, '--threads']);
  assert.deepEqual([found.get('context.length')!.value, found.get('context.length')!.from], [64, '--context-length']);
  assert.equal(typeof found.get('model.token')!.value, 'number');
  assert.equal(found.get('memory.total')!.status, 'ok');
  const encoder = JSON.parse((await lanewise(['doctor', golden('encoders/bert'), '--json'])).out) as Report;
  assert.ok(encoder.model!.some(({ key, value }) => key === 'model.embedding' && Number(value) > 0));
});

test('a model with a value that is not finite is a fault', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'lanewise-doctor-'));
  t.after(() => rm(folder, { recursive: true }));
  await cp(model, folder, { recursive: true });
  const file = await open(join(folder, 'model.safetensors'), 'r+');
  const { size } = await file.stat();
  await file.write(new Uint8Array([0, 0x7e]), 0, 2, size - 2);
  await file.close();
  const { code, out } = await lanewise(['doctor', folder, '--json']);
  const { faults, model: findings } = JSON.parse(out) as Report;
  const fault = findings!.find(({ status }) => status === 'fault')!;
  assert.deepEqual([code, faults, fault.key, fault.value], [1, 1, 'model.load', 'NotFinite']);
  await writeFile(join(folder, 'config.json'), '{"model_type": "unheard-of"}');
  const unknown = JSON.parse((await lanewise(['doctor', folder, '--json'])).out) as Report;
  assert.equal(unknown.model!.find(({ status }) => status === 'fault')!.value, 'UnknownModelType');
});

test('--explain lists decisions on stderr and leaves stdout as it is', async () => {
  const generate = [
    'generate',
    model,
    '--token-ids',
    '5,6',
    '--max-tokens',
    '2',
    '--temperature',
    '0',
    '--threads',
    '1',
  ];
  const plain = await lanewise(generate);
  const explained = await lanewise([...generate, '--explain', '--top-k', '3']);
  assert.equal(explained.out, plain.out);
  assert.match(explained.err, /^\| options\.topK +\| 3 +\| --top-k +\|/m);
  assert.match(explained.err, /^\| options\.temperature +\| 0 +\| --temperature +\|/m);
  assert.match(explained.err, /^\| storage\.policy +\| q8_0:min-dim=1024 +\| default +\|/m);
  const { err } = await lanewise([...generate, '--explain', '--json']);
  const { explain } = JSON.parse(err) as { explain: readonly Finding[] };
  assert.ok(explain.some(({ key, value }) => key === 'threads.count' && value === 1));
  const embed = ['embed', golden('encoders/bert'), '--text', 'a', '--explain', '--json', '--threads', '1'];
  const embedded = JSON.parse((await lanewise(embed)).err) as { explain: readonly Finding[] };
  assert.ok(embedded.explain.some(({ key, value }) => key === 'model.kind' && value === 'encoder'));
});
