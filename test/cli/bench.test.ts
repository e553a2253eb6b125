/** `lanewise bench --save` and `--against`: the file, the verdicts, the exit code. Nothing here depends on speed. */
import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { shareOfRead } from '../../src/cli/bench.ts';
import { FormatError, LanewiseError } from '../../src/errors.ts';
import { checkComparable, comparePairs, compareSaved } from '../../src/measure/compare.ts';
import { readBench, type SavedBench, writeBench } from '../../src/measure/saved.ts';
import { lanewise } from './run.ts';

async function temporaryFolder(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'lanewise-bench-'));
  t.after(() => rm(folder, { recursive: true }));
  return folder;
}

const TURNS = 12;
const root = join(import.meta.dirname, '..', '..');
/** Milliseconds around `middle`, slightly different in each turn. */
const around = (middle: number): number[] => Array.from({ length: TURNS }, (_, i) => middle * (0.99 + 0.002 * i));

/** A run on a machine with this speed: roofs are faster by this factor, and times shorter. */
function run({ speed = 1, decode = 10, prefill = 400 } = {}): SavedBench {
  return {
    date: '2026-01-01T00:00:00.000Z',
    cpu: 'a processor',
    node: 'v26.0.0',
    threads: 2,
    vector_bits: 256,
    kv_cache: 'f32',
    subject: { model_type: 'gpt2', parameters: 5e6, layers: 6, dim: 256, vocab: 4096 },
    work: { prompt: 512, decode: 64, repeat: TURNS },
    roofs: Array.from({ length: TURNS }, () => ({ read: 30e9 * speed, f32: 190e9 * speed, q8: 270e9 * speed })),
    rows: [{ policy: 'q8_0', prefill_ms: around(prefill / speed), decode_ms: around(decode / speed), tile: 'q8' }],
  };
}

test('a saved run comes back as it was', async (t) => {
  const file = join(await temporaryFolder(t), 'bench.json');
  await writeBench(file, run());
  const { format, version, ...saved } = (await readBench(file)) as SavedBench & { format: string; version: number };
  assert.deepEqual([format, version], ['lanewise-bench', 1]);
  assert.deepEqual(saved, run());
});

const broken: [what: string, text: string, code: string, message: RegExp][] = [
  [
    'no JSON',
    '{"format": "lanewise-bench"',
    'InvalidBench',
    /expected a file that lanewise bench has saved, found no JSON/,
  ],
  ['other JSON', '[1, 2]', 'InvalidBench', /found another JSON file/],
  ['null', 'null', 'InvalidBench', /found another JSON file/],
  ['another version', '{"format": "lanewise-bench", "version": 2}', 'UnknownVersion', /expected version 1, found 2/],
  ['no work', '{"format": "lanewise-bench", "version": 1}', 'InvalidBench', /work or threads are missing/],
  ['no roofs', JSON.stringify({ format: 'lanewise-bench', version: 1, ...run(), roofs: [] }), 'InvalidBench', /roofs/],
  ['no rows', JSON.stringify({ format: 'lanewise-bench', version: 1, ...run(), rows: [{}] }), 'InvalidBench', /rows/],
  [
    'times that are none',
    JSON.stringify({ format: 'lanewise-bench', version: 1, ...run({ decode: -1 }) }),
    'InvalidBench',
    /rows are missing/,
  ],
];
for (const [what, text, code, message] of broken) {
  test(`a file with ${what} is refused in one line`, async (t) => {
    const file = join(await temporaryFolder(t), 'bench.json');
    await writeFile(file, text);
    await assert.rejects(readBench(file), (error: unknown) => {
      assert.ok(error instanceof FormatError, String(error));
      assert.equal(error.code, code);
      assert.match(error.message, message);
      assert.doesNotMatch(error.message, /\n/);
      return true;
    });
  });
}

const others: [what: string, change: Partial<SavedBench>, message: RegExp][] = [
  ['another model', { subject: { ...run().subject, dim: 768 } }, /another model: dim 768, now 256/],
  ['another prompt', { work: { prompt: 128, decode: 64, repeat: 6 } }, /prompt tokens 128, now 512/],
  ['other threads', { threads: 1 }, /threads 1, now 2/],
  ['another cache', { kv_cache: 'f16' }, /cache f16, now f32/],
];
for (const [what, change, message] of others) {
  test(`a run of ${what} cannot be compared`, () => {
    assert.throws(
      () => checkComparable('bench.json', { ...run(), ...change }, run()),
      (error: unknown) =>
        error instanceof LanewiseError && error.code === 'NotComparable' && message.test(error.message),
    );
  });
}

test('a slower machine is no change, a slower program is', () => {
  checkComparable('bench.json', run(), run({ speed: 0.6 }));
  const verdicts = (now: SavedBench): string[] => compareSaved(run(), now, 0.05).map(({ verdict }) => verdict);
  assert.deepEqual(verdicts(run({ speed: 0.6 })), ['no change', 'no change']);
  assert.deepEqual(verdicts(run({ speed: 0.6, decode: 11 })), ['no change', 'slower by more than 5 %']);
  assert.deepEqual(verdicts(run({ speed: 2, prefill: 380, decode: 10.3 })), ['faster', 'slower, within 5 %']);
});

test('pairs fail when they are slower surely, and by more than the threshold', () => {
  const times = (scale: number) => ({ prefill: around(400 * scale), decode: around(10 * scale) });
  const failures = (scale: number, threshold: number): boolean[] =>
    comparePairs('q8_0', times(1), times(scale), threshold).map(({ failed }) => failed);
  assert.deepEqual(failures(1.06, 0.05), [true, true]);
  assert.deepEqual(failures(1.06, 0.1), [false, false]);
  assert.deepEqual(failures(0.5, 0), [false, false]);
  // One turn of twelve is ten times slower.
  const noisy = { prefill: around(400), decode: around(10).with(0, 100) };
  assert.deepEqual(
    comparePairs('q8_0', times(1), noisy, 0).map(({ failed }) => failed),
    [false, false],
  );
});

const work = ['--prompt-tokens', '8', '--decode-tokens', '8', '--repeat', '6', '--threads', '1'];
const short = [...work, '--policies', 'q8_0'];

test('--save, then --against the file: exit code 1 only where it is slower', async (t) => {
  const file = join(await temporaryFolder(t), 'bench.json');
  const both = [...work, '--policies', 'q8_0,f16'];
  const saved = await lanewise(['bench', ...both, '--save', file]);
  assert.equal(saved.code, 0, saved.err);
  assert.match(saved.out, /1 threads, median \(quartiles\): memory read/);
  const bench = await readBench(file);
  assert.equal(bench.rows[0]!.decode_ms.length, 6);
  assert.equal(bench.roofs.length, 6);
  // One policy a thousand times as fast as it was, the other as slow.
  const rows = bench.rows.map((row, i) => {
    const scaled = (values: readonly number[]): number[] => values.map((ms) => ms * [1e-3, 1e3][i]!);
    return { ...row, prefill_ms: scaled(row.prefill_ms), decode_ms: scaled(row.decode_ms) };
  });
  await writeBench(file, { ...bench, rows });
  const against = await lanewise(['bench', ...both, '--against', file, '--json']);
  assert.equal(against.code, 1, against.err);
  const found = JSON.parse(against.out) as { rows: { policy: string; verdict: string }[] };
  const slower = 'q8_0: slower by more than 5 %';
  assert.deepEqual(
    found.rows.map(({ policy, verdict }) => `${policy}: ${verdict}`),
    [slower, slower, 'f16: faster', 'f16: faster'],
  );
});

test('--against a folder runs the Lanewise that is there', async (t) => {
  // A threshold that noise does not reach.
  const { code, out, err } = await lanewise(['bench', ...short, '--against', root, '--threshold', '10000']);
  assert.equal(code, 0, err);
  assert.match(out, /\| q8_0 +\| prefill/);
  assert.match(out, /\| q8_0 +\| decode/);
  const other = await temporaryFolder(t);
  const none = await lanewise(['bench', ...short, '--against', other]);
  assert.equal(none.code, 1);
  assert.match(none.err, /error: --against must be a file of saved times, or a folder of Lanewise/);
});

test('what the options cannot be is said in one line', async (t) => {
  const file = join(await temporaryFolder(t), 'bench.json');
  await writeFile(file, JSON.stringify({ format: 'lanewise-bench', version: 1, ...run() }));
  const cases: [args: string[], message: RegExp][] = [
    [['--save', file, '--repeat', '5'], /--repeat must be at least 6 with --save or --against, got 5/],
    [['--against', `${file}.none`], /no such file/],
    [['--against', file, '--threshold', '-1'], /--threshold must be a percentage from 0, got -1/],
    [['--against', file, '--policies', 'q4_0'], /--policies must be among those of .*, got "q4_0"/],
    [['--against', root, '--save', file], /--save must be left out when --against names a folder/],
    [['--against', file, '--kernels'], /--kernels must be left out with --against/],
    [['--against', file], /measured with another model: /],
  ];
  for (const [args, message] of cases) {
    const { code, err } = await lanewise(['bench', '--threads', '1', ...args]);
    assert.equal(code, 1);
    assert.match(err, message);
    assert.equal(err.trim().split('\n').length, 1, err);
  }
  assert.match(await readFile(file, 'utf8'), /a processor/);
});

test('help names both tests and shows examples', async () => {
  const { out } = await lanewise(['bench', '--help']);
  for (const words of [/--save before\.json/, /--against before\.json/, /git worktree add/, /sign\s+test/, /Whitney/])
    assert.match(out, words);
});

test('weights that caches hold are no share of what memory reads', () => {
  assert.equal(shareOfRead(0.914, 132e6), '91 %');
  assert.equal(shareOfRead(1.02, 132e6), '102 %');
  assert.equal(shareOfRead(1.11, 12.34e6), '12.3 MB from caches');
  // A busy machine: the rate varies from turn to turn.
  assert.equal(shareOfRead(1.11, 500e6, 32e6), '111 %');
});

interface KernelRow {
  readonly work: string;
  readonly kernel: string;
  readonly ms: number;
  readonly share: number;
  readonly rate: number | null;
  readonly bytes: number;
  readonly operations: number | null;
  readonly gigabytes_per_second: number;
  readonly giga_operations_per_second: number | null;
}

test('--kernels says where the time of a prompt and of a step goes, as a table and a page', async (t) => {
  const work = ['--prompt-tokens', '40', '--decode-tokens', '3', '--repeat', '1', '--policies', 'q8_0:min-dim=512'];
  const { code, out, err } = await lanewise(['bench', ...work, '--kernels', '--json']);
  assert.equal(code, 0, err);
  const [{ kernels }] = JSON.parse(out) as [{ kernels: KernelRow[] }];
  for (const name of ['prefill', 'decode']) {
    const rows = kernels.filter((row) => row.work === name);
    const share = rows.reduce((sum, row) => sum + row.share, 0);
    assert.ok(Math.abs(share - 1) < 1e-9, `${share}`);
    // Some matrices are below the threshold.
    for (const kernel of ['matmul q8_0', 'matmul f16', 'attention'])
      assert.ok(rows.some((row) => row.kernel === kernel && row.rate !== null && row.rate > 0));
    assert.equal(rows.find(({ kernel }) => kernel === 'norm')?.rate, null);
    for (const { ms, bytes, operations, ...row } of rows) {
      assert.ok(Math.abs(row.gigabytes_per_second - bytes / ms / 1e6) <= 1e-9 * row.gigabytes_per_second);
      assert.equal(row.giga_operations_per_second === null, !operations);
    }
  }
  const page = join(await temporaryFolder(t), 'kernels.html');
  const table = await lanewise(['bench', ...work, '--kernels', '--html', page]);
  assert.match(
    table.out,
    /\| decode +\| matmul q8_0 +\| +[\d.]+ \| +\d+ % \| +[\d.]+ \| +[\d.]+ \| (memory|arithmetic) +\| +\d+ % \|/,
  );
  assert.match(await readFile(page, 'utf8'), /Roofline of q8_0:min-dim=512/);
  const alone = await lanewise(['bench', '--html', page]);
  assert.deepEqual([alone.code, alone.out], [1, '']);
  assert.match(alone.err, /^error: --html must be given with --kernels/);
});

interface CrossoverOutput {
  readonly turns: number;
  readonly times: readonly { type: string; rows: number; from: string; ms: number[] }[];
  readonly pairs: readonly { base: string; other: string; result: { rule: { kind: string } } }[];
  readonly report: { readonly sections: readonly { title?: string }[] };
}

test('crossover measures what it is asked for, as JSON, Markdown and a page', async (t) => {
  const page = join(await temporaryFolder(t), 'crossover.html');
  const asked = ['--types', 'f32,q8_0', '--dims', '64,96', '--rows', '1,3', '--from', 'cache', '--repeat', '2'];
  const one = ['--threads', '1'];
  const model = join(root, 'models/lanewise-stories');
  const json = await lanewise(['bench', 'crossover', model, ...asked, ...one, '--json']);
  assert.equal(json.code, 0, json.err);
  const { turns, times, pairs, report } = JSON.parse(json.out) as CrossoverOutput;
  assert.equal(turns, 2);
  // Two dimensions and four shapes of the model.
  assert.equal(times.length, 2 * 6 * 2);
  for (const { from, ms } of times) assert.ok(from === 'cache' && ms.length === 2 && ms.every((value) => value > 0));
  assert.deepEqual(
    pairs.map(({ base, other }) => [base, other]),
    [
      ['f32', 'q8_0'],
      ['f32', 'q8_0'],
    ],
  );
  assert.ok(report.sections.some(({ title }) => title === 'Layers of lanewise-stories: one row, from cache'));
  const text = await lanewise(['bench', 'crossover', model, ...asked.with(3, '64'), ...one, '--html', page]);
  assert.equal(text.code, 0, text.err);
  assert.match(text.out, /^# Which storage type is fastest, by dimension\n/);
  assert.match(text.out, /\n\| Dimension range +\| Q8_0 vs F32 +\| Examples +\|\n/);
  assert.match(await readFile(page, 'utf8'), /Time relative to F32, one row, from cache/);
  for (const [flags, message] of [
    [['--dims', '9..4'], /^error: --dims must be dimensions/],
    [['--html', join(page, 'x', 'y.html')], /^error: --html .* cannot be written/],
  ] as const) {
    const { code, out, err } = await lanewise(['bench', 'crossover', ...flags]);
    assert.deepEqual([code, out], [1, '']);
    assert.match(err, message);
  }
});
