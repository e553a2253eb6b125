/** The page written by bench:performance: goals by machine, failures, plots, hand-written text. */
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import type { PeerRow } from '../../bench/peers/comparison.ts';
import { goalRows } from '../../bench/performance/goals.ts';
import { drawPlot } from '../../bench/performance/plot.ts';
import { readReport, writePage } from '../../bench/performance/report.ts';
import type { Report } from '../../bench/performance/report-format.ts';

const flat = (median: number) => ({ median, low: median * 0.9, high: median * 1.1 });

function row(phase: PeerRow['phase'], way: PeerRow['way'], ours: number, theirs: number): PeerRow {
  return {
    shape: 'gpt2',
    storage: 'q8_0',
    phase,
    way,
    lanewise: flat(ours),
    peer: flat(theirs),
    ratio: theirs / ours,
    engine_ratio: theirs / ours,
    of_roof: phase === 'batch' ? null : 0.8,
    of_one: phase === 'batch' ? 4.5 : null,
    rate: phase === 'batch' ? null : 24e9,
  };
}

function report({ vnni = false } = {}): Report {
  const rows = [
    row('prefill', 'evaluate', 1, 2),
    row('decode', 'evaluate', 4, 16),
    row('decode', 'generate', 5, 10),
    row('batch', 'evaluate', 8, 16),
    row('batch', 'generate', 10, 16),
  ];
  return {
    format: 'lanewise-performance',
    version: 1,
    name: 'a-machine',
    date: '2026-01-02T00:00:00.000Z',
    quick: false,
    machine: {
      cpu: 'a processor',
      cores: 2,
      caches: '',
      memory_bytes: 2 ** 34,
      node: 'v26.0.0',
      v8: '14',
      vnni,
      wide: true,
      commit: '',
    },
    parts: {
      'peers gpt2 q8_0': { seconds: 1, result: { settings: {}, comparisons: [{ rows }], failures: [] } },
      'peers gpt2 q4_0': { seconds: 1, result: { settings: {}, comparisons: [], failures: ['gpt2 q4_0: no memory'] } },
      context: { seconds: 1, error: 'bench/context.ts is not there' },
      load: { seconds: 1, result: { other: 'JSON' } },
    },
  };
}

test('the way that is less kind decides; parts that failed say why; others have no row', () => {
  const rows = goalRows(report()).map(({ work, measured, met }) => `${work}: ${measured}: ${met}`);
  const found = (pattern: RegExp): void =>
    assert.ok(
      rows.some((line) => pattern.test(line)),
      `${pattern}\n${rows.join('\n')}`,
    );
  found(/^decode, gpt2 Q8_0: 2\.00x \(evaluate 4\.00x, generate 2\.00x; .*: false$/);
  found(/^batch of 8 sequences, gpt2 Q8_0: 4\.50x .*: true$/);
  found(/^batch of 8 sequences, gpt2 Q8_0: 1\.60x .*: true$/);
  found(/^decode, gpt2 Q4_0: failed: .*no memory: undefined$/);
  found(/^decode in a long context: failed: bench\/context\.ts is not there: undefined$/);
  found(/^load as Q8_0: failed: its result cannot be read: /);
  assert.ok(!rows.some((line) => /tinyllama|first token|narrow/.test(line)));
});

test('goals of prompts depend on what the probe of the machine found', () => {
  const prefill = (vnni: boolean) => goalRows(report({ vnni })).find(({ work }) => work === 'prefill, gpt2 Q8_0')!;
  assert.deepEqual([prefill(false).goal, prefill(false).met], ['1.30x', true]);
  assert.deepEqual([prefill(true).goal, prefill(true).met], ['2.50x', false]);
});

test('plots have a bar and a roof per row, and text that is no markup', () => {
  const bar = { group: 'a<b', value: 20, low: 19, high: 21, roof: 30 };
  const svg = drawPlot({
    title: 'A & "B"',
    caption: '',
    unit: 'GB/s',
    bars: [
      { ...bar, label: 'Q8_0' },
      { ...bar, label: 'F32', value: 31 },
    ],
  });
  assert.doesNotMatch(svg, /NaN|undefined|a<b/);
  assert.match(svg, /A &#38; &#34;B&#34;/);
  assert.match(svg, /20\.0 of 30\.0 GB\/s, 67 %/);
  assert.match(svg, /31\.0 of 30\.0 GB\/s, 103 %/);
});

test('sections of all stored reports stand between the markers; the rest of the page stays', async (t) => {
  const docs = await mkdtemp(join(tmpdir(), 'lanewise-docs-'));
  t.after(() => rm(docs, { recursive: true }));
  await mkdir(join(docs, 'performance'));
  const store = (name: string): Promise<void> =>
    writeFile(join(docs, 'performance', `${name}.json`), JSON.stringify({ ...report(), name }));
  await store('b');
  writePage(docs);
  const page = join(docs, 'performance.md');
  await writeFile(page, `${(await readFile(page, 'utf8')).replace('# Performance', '# Ours')}\nBy hand.\n`);
  await store('a');
  writePage(docs);
  const text = await readFile(page, 'utf8');
  assert.match(text, /^# Ours\n/);
  assert.match(text, /\nBy hand\.\n$/);
  assert.deepEqual(text.match(/^## .*$/gm), ['## a', '## b']);
  assert.match(text, /!\[.*\]\(performance\/a-decode\.svg\)/);
  assert.match(await readFile(join(docs, 'performance', 'b-prefill.svg'), 'utf8'), /^<svg /);
  writePage(docs);
  assert.equal(await readFile(page, 'utf8'), text);
  await writeFile(page, 'no markers');
  assert.throws(() => writePage(docs), /expected the lines/);
  const other = join(docs, 'other.json');
  await writeFile(other, '{}');
  assert.throws(() => readReport(other), /expected a report of bench:performance, version 1/);
});
