/** `lanewise eval`: numbers of the library, JSON, exit codes, and errors that name flags. */
import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { after } from 'node:test';
import { fileURLToPath } from 'node:url';
import { checkPage, noChromium, withChromium } from '../browser/pages.ts';
import { lanewise } from './run.ts';

const file = fileURLToPath(new URL('../golden/evaluation/alice.txt', import.meta.url));
const expected = JSON.parse(await readFile(new URL('../golden/evaluation/expected.json', import.meta.url), 'utf8'));
const folder = await mkdtemp(join(tmpdir(), 'lanewise-eval-'));
after(() => rm(folder, { recursive: true }));

test('eval perplexity of a file and of standard input', async () => {
  const [, { perplexity, scored, windows }] = expected.cases;
  const args = ['eval', 'perplexity', '--quantize', 'none', '--stride', '512'];
  const { code, out, err } = await lanewise([...args, '--text', file, '--json']);
  assert.deepEqual([code, err], [0, '']);
  const found = JSON.parse(out);
  assert.ok(Math.abs(found.perplexity / perplexity - 1) < 1e-3);
  assert.deepEqual([found.scored, found.windows, found.context_length, found.stride], [scored, windows, 512, 512]);
  assert.ok(found.standard_error > 0 && found.loss_error > 0 && found.tokens_per_second > 0);
  const shown = await lanewise([...args, '--max-tokens', '100'], { input: await readFile(file) });
  assert.equal(shown.code, 0);
  assert.match(shown.out, /^perplexity +\d+\.\d+ \+- \d+\.\d+\nloss +\d\.\d+ \+- 0\.\d+ nats per token\nfirst choice/);
  assert.match(shown.out, /99 tokens scored, one window of at most 512: /);
});

test('eval kl of a policy and a storage plan, with the worst tokens', async () => {
  const plan = join(folder, 'plan.json');
  await writeFile(plan, JSON.stringify({ version: 1, weights: { 'layers.1.ffn.down': 'q4_0' } }));
  const common = ['eval', 'kl', '--quantize', 'none', '--text', file, '--max-tokens', '150'];
  const { code, out } = await lanewise([...common, '--plan-b', plan, '--worst', '2', '--json']);
  assert.equal(code, 0);
  const found = JSON.parse(out);
  assert.ok(found.kl.mean > 0 && found.kl.mean < 0.02 && found.kl.standard_error > 0);
  assert.ok(found.kl.p50 <= found.kl.p99 && found.kl.p99 <= found.kl.max && found.agreement > 0.8);
  assert.deepEqual([found.a.quantize, found.b.quantize], ['none', plan]);
  assert.equal(found.worst.length, 2);
  assert.equal(found.worst[0].kl, found.kl.max);
  const shown = await lanewise([...common, '--quantize-b', 'q8_0', '--worst', '3']);
  assert.match(shown.out, /\| KL\(A \\\|\\\| B\), mean +\| \d.* \+- .* \|\n/);
  assert.equal(shown.out.match(/^\| +\d+ \|.*%.*%/gm)!.length, 3);
});

test('eval compare says where two policies part, with exit code 1 and a page that works', async () => {
  const html = join(folder, 'compare.html');
  const args = ['eval', 'compare', '--quantize', 'none', '--text', file, '--max-tokens', '12'];
  const parted = await lanewise([...args, '--quantize-b', 'q4_0,embedding=none,output=none', '--json', '--html', html]);
  assert.equal(parted.code, 1);
  const { parting, layers, steps, growth } = JSON.parse(parted.out);
  assert.equal(parting.scope, 'layer[0]');
  assert.ok(steps.some(({ work }: { work: string }) => work === parting.work));
  assert.deepEqual([layers.length, layers[0].error, growth.scope.slice(0, 5)], [9, 0, 'layer']);
  const page = await readFile(html, 'utf8');
  assert.match(page, /They part in layer 0, step/);
  if (!noChromium) await withChromium((browser) => checkPage(browser, page));
  const same = await lanewise([...args, '--threads', '1', '--threads-b', '2']);
  assert.equal(same.code, 0);
  assert.match(
    same.out,
    /^A: .*1 thread\nB: .*2 threads\nThey have the same values \(tolerance 0\.01, 12 tokens, 6 layers/,
  );
});

test('bad texts, options and models are errors in one line that say what to give', async () => {
  const cases: [string[], RegExp, string?][] = [
    [['perplexity'], /^error: --text must be at least two tokens long.*got "1 token"$/, 'a'],
    [['kl', '--text', file, '--quantize-b', 'q8_0', '--plan-b', 'p.json'], /^error: give --quantize-b or --plan-b/],
  ];
  for (const [args, message, input] of cases) {
    const { code, out, err } = await lanewise(['eval', ...args], { input });
    assert.deepEqual([code, out], [1, ''], args.join(' '));
    assert.match(err.trim().split('\n').at(-1)!, message);
  }
});
