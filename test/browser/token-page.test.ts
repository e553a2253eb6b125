/** The page of `generate --inspect` in a real browser. */
import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'node:test';
import { renderTokens } from '../../src/report/token-page.ts';
import type { PageToken, TokenPage } from '../../src/report/tokens.ts';
import { lanewise } from '../cli/run.ts';
import { checkPage, noChromium, openPage, withChromium } from './pages.ts';

const hostile = `</script><script>throw new Error('run')</script><img src=x onerror="throw 1"> "a" & 'b'`;

const token = (text: string, probability: number): PageToken => ({
  text,
  label: text,
  id: 7,
  probability,
  rank: 1,
  entropy: 2.5,
  entropyAfter: 1,
  ms: 3.25,
  alternatives: [
    { label: text, id: 7, before: probability, after: 1, removedBy: '' },
    { label: hostile, id: 8, before: 0.1, after: 0, removedBy: 'top-p' },
  ],
  stages: [{ name: 'top-p', left: 1, removed: 1, removedProbability: 0.1, changed: 0 }],
});

const page: TokenPage = {
  title: hostile,
  command: `lanewise ${hostile}`,
  facts: [['Model', hostile]],
  prompt: hostile,
  times: { columns: [{ name: 'Phase' }], rows: [[hostile]] },
  tokens: [token('One', 0.9), token(hostile, 0.3), token('', 0.1), token('\n two', 0.02), token('x', 0.001)],
};

test('a page of tokens with hostile texts works', { skip: noChromium }, async () => {
  await withChromium(async (browser) => {
    await checkPage(browser, renderTokens(page));
    await openPage(browser, renderTokens({ ...page, tokens: [] }), async ({ problems }) =>
      assert.deepEqual(problems, []),
    );
  });
});

test('generate --inspect writes a page on which the keyboard goes through the tokens', {
  skip: noChromium,
}, async () => {
  const folder = await mkdtemp(path.join(tmpdir(), 'lanewise-tokens-'));
  try {
    const file = path.join(folder, 'tokens.html');
    const args = ['--prompt', 'One day', '--max-tokens', '6', '--seed', '3', '--top-p', '0.9', '--json'];
    const { code, out } = await lanewise(['generate', ...args, '--inspect', file]);
    assert.equal(code, 0);
    const { token_ids, text } = JSON.parse(out) as { token_ids: number[]; text: string };
    await withChromium(async (browser) => {
      await openPage(browser, await readFile(file, 'utf8'), async ({ page, problems }) => {
        const buttons = page.locator('button[data-token]');
        assert.equal(await buttons.count(), token_ids.length);
        assert.equal((await buttons.allTextContents()).join('').replaceAll('↵', ''), text);
        const panel = page.locator('#token');
        assert.match((await panel.textContent())!, new RegExp(`Token 1 of 6: id ${token_ids[0]},`));
        await buttons.first().focus();
        for (const id of token_ids.slice(1)) {
          await page.keyboard.press('ArrowRight');
          assert.match((await panel.textContent())!, new RegExp(`: id ${id},`));
          assert.equal(await panel.locator('.chosen').count(), 1);
        }
        assert.match((await panel.textContent())!, /top-p/);
        assert.deepEqual(problems, []);
      });
    });
  } finally {
    await rm(folder, { recursive: true });
  }
});

test('--inspect is refused where it cannot show one text', async () => {
  const batch = await lanewise(['generate', '--batch-file', 'none.txt', '--inspect', 'x.html']);
  assert.match(batch.err, /none\.txt|--inspect shows one text/);
  const nowhere = await lanewise([
    'generate',
    '--prompt',
    'x',
    '--inspect',
    path.join(tmpdir(), 'no-such-folder', 'x.html'),
  ]);
  assert.equal(nowhere.code, 1);
  assert.match(nowhere.err, /no-such-folder/);
});
