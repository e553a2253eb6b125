/** `lanewise tune` and `lanewise plan --explain`: budgets, refusals, tables. */
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { parseBudget } from '../../src/cli/tune.ts';
import { golden, lanewise } from './run.ts';

async function temporary(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'lanewise-tune-'));
  t.after(() => rm(folder, { recursive: true }));
  return folder;
}

test('budgets are read in every spelling', () => {
  assert.deepEqual(parseBudget('size=157.5MB'), { kind: 'size', bytes: 157_500_000, roundsTo: 157_549_999 });
  assert.deepEqual(parseBudget('size=1GiB'), { kind: 'size', bytes: 2 ** 30, roundsTo: 2 ** 30 + 2 ** 29 - 1 });
  // A number of bytes is exact.
  assert.deepEqual(parseBudget('SIZE=4000000'), { kind: 'size', bytes: 4_000_000, roundsTo: undefined });
  assert.deepEqual(parseBudget('kl=0.05'), { kind: 'loss', loss: 0.05 });
  assert.deepEqual(parseBudget('distance=1e-3'), { kind: 'loss', loss: 0.001 });
  assert.deepEqual(parseBudget('speed'), { kind: 'speed' });
  assert.deepEqual(parseBudget('speed, kl=0.05'), { kind: 'speed', loss: 0.05 });
  assert.deepEqual(parseBudget('speed,size=4kB'), { kind: 'speed', bytes: 4000, roundsTo: 4499 });
  for (const bad of [
    '',
    'size',
    'size=',
    'size=-1MB',
    'size=4 parsecs',
    'kl=0',
    'kl=x',
    'kl=-1',
    'fast',
    'kl=1,size=4MB',
    'speed,speed',
    'speed,kl=1,size=4MB',
    'kl=0.1,speed',
  ])
    assert.throws(() => parseBudget(bad), { code: 'InvalidOption' }, bad);
});

test('what cannot be tuned is refused in one line before anything is measured', async (t) => {
  const folder = await temporary(t);
  const output = join(folder, 'plan.json');
  const there = join(folder, 'there.json');
  await writeFile(there, '{}');
  for (const [args, message] of [
    [['--budget', 'small', '--output', output], /^error: --budget must be size=157\.5MB, kl=0\.05, .*, got "small"$/],
    [['--output', there], /^error: \S+there\.json already exists: give another name, or --force to replace it$/],
    [['--output', join(folder, 'none', 'plan.json')], /^error: --output \S+ cannot be written: ENOENT$/],
    [['--samples', '-1', '--output', output], /^error: --samples must be an integer of at least 0, got -1$/],
    [
      ['--quantized', 'model.bin', '--output', output],
      /^error: --quantized must be a name that ends in \.gguf, got "model\.bin"$/,
    ],
    [[], /^error: required option '--output <file>' not specified$/],
  ] as const) {
    const { code, out, err } = await lanewise(['tune', golden('models/gemma3'), ...args]);
    assert.equal(code, 1);
    assert.equal(out, '');
    assert.match(err.trim(), message);
  }
});

test('plan --explain says for each matrix why, with the numbers of a tuned plan', async (t) => {
  const folder = await temporary(t);
  const plan = join(folder, 'plan.json');
  const reason = 'adds 0.0020; q8_0 would take 1.5 kB more to save 0.0019';
  await writeFile(
    plan,
    JSON.stringify({
      version: 1,
      weights: { 'layers.0.ffn.up': 'q4_0' },
      explain: { 'layers.0.ffn.up': { reason, bytes: 6912, loss: 0.002, loss_from: 'measured alone', row_ms: 0.0123 } },
      tuned: {
        budget: 'size=1MB',
        solver: 'a solver',
        loss: 'KL divergence',
        text: '64 tokens of a text',
        machine: 'a machine',
        plan: { predicted_loss: 0.002, measured_loss: 0.0021, row_ms: 1 },
      },
    }),
  );
  const { code, out, err } = await lanewise(['plan', golden('models/gemma3'), '--plan', plan, '--explain']);
  assert.equal(code, 0);
  const row = out.split('\n').find((line) => line.includes('layers.0.ffn.up'))!;
  for (const text of ['q4_0', '0.00200', 'measured alone', '0.0123', reason]) assert.ok(row.includes(text), row);
  assert.match(out, /layers\.1\.ffn\.up .*not in the plan/);
  assert.match(
    err,
    /tuned for size=1MB \(a solver\) on 64 tokens of a text; KL divergence predicted 0\.002, measured 0\.0021/,
  );
  const json = JSON.parse(
    (await lanewise(['plan', golden('models/gemma3'), '--plan', plan, '--explain', '--json'])).out,
  );
  const found = json.weights.find(({ name }: { name: string }) => name === 'layers.0.ffn.up');
  assert.deepEqual(found.figures, { bytes: 6912, loss: 0.002, loss_from: 'measured alone', row_ms: 0.0123 });
  assert.equal(json.tuned.budget, 'size=1MB');
  // Of a policy, its reasons.
  const { out: policy } = await lanewise([
    'plan',
    golden('models/gemma3'),
    '--quantize',
    'q8_0,output=none',
    '--explain',
  ]);
  assert.match(policy, /output=none/);
  assert.match(policy, /policy q8_0/);
});
