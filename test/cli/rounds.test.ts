/** `lanewise bench rounds` as a process: outputs, files, exit codes. Nothing here depends on speed. */
import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { type RoundsFlags, roundsCommand } from '../../src/cli/rounds.ts';
import { readBench, writeBench } from '../../src/measure/saved.ts';
import { checkPage, noChromium, withChromium } from '../browser/pages.ts';
import { lanewise } from './run.ts';

const short = ['bench', 'rounds', '--threads', '1', '--prompt-tokens', '8', '--decode-tokens', '6', '--repeat', '6'];

async function temporaryFolder(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'lanewise-rounds-'));
  t.after(() => rm(folder, { recursive: true }));
  return folder;
}

interface Output {
  readonly rounds: readonly {
    readonly policy: string;
    readonly quantized: number;
    readonly steps: readonly object[];
    readonly decode: { readonly turns_ms: readonly number[]; readonly verdict?: string };
  }[];
  readonly against?: { readonly rows: readonly { readonly verdict: string }[] };
}

test('Markdown, JSON, a page, saved times, a plan as a round, and an earlier run that was faster', async (t) => {
  const folder = await temporaryFolder(t);
  const [saved, html, markdown, plan] = ['saved.json', 'rounds.html', 'rounds.md', 'plan.json'].map((name) =>
    join(folder, name),
  ) as [string, string, string, string];
  await writeFile(plan, JSON.stringify({ version: 1, weights: { 'layers.0.ffn.up': 'q4_0', output: 'q8_0' } }));
  const policies = ['--policies', `q8_0,${plan}`];
  const files = ['--save', saved, '--html', html, '--output', markdown, '--steps', '2'];
  const first = await lanewise([...short, ...policies, ...files]);
  assert.equal(first.code, 0, first.err);
  assert.equal(first.out, '');
  const text = await readFile(markdown, 'utf8');
  assert.match(text, /^# Rounds of the embedded model$/m);
  assert.match(text, /^lanewise bench rounds --threads 1 --prompt-tokens 8 /m);
  assert.match(text, /^\| ffn up +\| +1 \| +256 → 1024 \| yes +\| q4_0/m);
  const page = await readFile(html, 'utf8');
  if (noChromium === false) await withChromium((browser) => checkPage(browser, page));

  // Both rounds a thousand times as fast as they were.
  const bench = await readBench(saved);
  const faster = (values: readonly number[]): number[] => values.map((ms) => ms / 1000);
  const rows = bench.rows.map((row) => ({
    ...row,
    prefill_ms: faster(row.prefill_ms),
    decode_ms: faster(row.decode_ms),
  }));
  await writeBench(saved, { ...bench, rows });
  const second = await lanewise([...short, ...policies, '--against', saved, '--json']);
  assert.equal(second.code, 1, second.err);
  const { rounds, against } = JSON.parse(second.out) as Output;
  assert.deepEqual(
    rounds.map(({ quantized, steps, decode }) => [quantized, steps.length, decode.turns_ms.length]),
    [
      [37, 4, 6],
      [2, 4, 6],
    ],
  );
  assert.equal(rounds[0]!.decode.verdict, undefined);
  assert.ok(['regression', 'gain', 'noise'].includes(rounds[1]!.decode.verdict!));
  assert.deepEqual(
    against!.rows.map(({ verdict }) => verdict),
    Array(4).fill('slower by more than 5 %'),
  );
});

test('what the options cannot be is said before anything is measured', async (t) => {
  const folder = await temporaryFolder(t);
  const cases: [flags: RoundsFlags, message: RegExp][] = [
    [{ repeat: '5' }, /^--repeat must be at least 6, got 5$/],
    [{ decodeTokens: '2' }, /^--decode-tokens must be at least 3, got 2$/],
    [{ decodeTokens: '8', steps: '7' }, /^--steps must be at most --decode-tokens - 2 \(6\), got 7$/],
    [{ policies: 'q9' }, /^--(policies|quantize) must be none, q8_0/],
    [{ html: folder }, /^--html .* cannot be written: it is a folder$/],
    [{ threshold: '-1' }, /^--threshold must be a percentage from 0, got -1$/],
    [{ against: join(folder, 'none.json') }, /none\.json/],
  ];
  for (const [flags, message] of cases) await assert.rejects(roundsCommand(undefined, flags), { message });
});
