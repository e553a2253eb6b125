/** Reports as pages in a real browser: no errors, no requests, keyboard, dark and light. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { renderHtml } from '../../src/report/html.ts';
import type { Chart, Report } from '../../src/report/report.ts';
import { checkPage, noChromium, openPage, withChromium } from './pages.ts';

const hostile = `</script><script>throw new Error('run')</script><img src=x onerror="throw 1"> "quoted" & 'so' \u202e`;

const bars: Chart = {
  kind: 'bars',
  title: 'Decode by round',
  x: { name: 'Round' },
  y: { name: 'Decode', unit: 'ms' },
  series: [
    {
      name: 'decode',
      points: [
        { x: 'none', y: 16.1, low: 15.9, high: 16.4 },
        { x: 'q8_0', y: 5.7, low: 5.6, high: 5.9 },
      ],
    },
    {
      name: hostile,
      points: [
        { x: 'none', y: 1.9 },
        { x: 'q8_0', y: 1.4 },
      ],
    },
  ],
  lines: [{ name: 'the origin', y: 20 }],
};
const line: Chart = {
  kind: 'line',
  title: 'Time by dimension',
  x: { name: 'Dimension', scale: 'log' },
  y: { name: 'Time', unit: 'ms', scale: 'log' },
  series: ['f32', 'q8_0'].map((name, i) => ({
    name,
    points: [64, 256, 1024, 4096].map((x) => ({
      x,
      y: (x / 1000) ** (2 - i / 2),
      low: 0,
      high: (x / 900) ** (2 - i / 2),
    })),
  })),
  lines: [{ name: 'crossing', x: 1000 }],
};
const scatter: Chart = {
  kind: 'scatter',
  title: 'Roofline',
  x: { name: 'Operations per byte', scale: 'log' },
  y: { name: 'Rate', unit: 'GOP/s', scale: 'log' },
  series: [
    {
      name: 'kernels',
      points: [
        { x: 0.5, y: 10, label: 'matmul' },
        { x: 50, y: 180, label: hostile },
      ],
    },
  ],
  lines: [
    {
      name: 'memory',
      points: [
        { x: 0.1, y: 3.3 },
        { x: 6, y: 200 },
      ],
    },
    { name: 'tile loop', y: 200 },
  ],
};

const report: Report = {
  title: `Rounds of ${hostile}`,
  command: `lanewise bench rounds ${hostile}`,
  machine: [['Processor', hostile]],
  sections: [
    {
      title: hostile,
      text: `${hostile}\n\n- one\n- ${hostile}`,
      table: { columns: [{ name: hostile }], rows: [[hostile]] },
    },
    ...[bars, line, scatter].map((chart) => ({ title: chart.title, chart })),
    { chart: { ...bars, title: 'Nothing measured', series: [], lines: [] } },
  ],
};

test('a report of every kind of chart, with hostile names, is a page that works', { skip: noChromium }, async () => {
  await withChromium(async (browser) => {
    await checkPage(browser, renderHtml(report), process.env.LANEWISE_SCREENSHOTS);
    await openPage(browser, renderHtml(report), async ({ page, problems }) => {
      assert.equal(await page.title(), `Rounds of ${hostile.replace('\u202e', '\ufffd')}`);
      // The numbers are in the page as text too.
      assert.match((await page.locator('details table').first().textContent()) ?? '', /16\.1 \(15\.9 to 16\.4\)/);
      const spoken = page.locator('#chart-0-spoken');
      await page.locator('#chart-0').focus();
      await page.keyboard.press('ArrowRight');
      assert.equal(await spoken.textContent(), 'decode, none: 16.1 (15.9 to 16.4) ms');
      await page.keyboard.press('ArrowRight');
      await page.keyboard.press('ArrowDown');
      assert.match((await spoken.textContent())!, /quoted.*, q8_0: 1\.4 ms$/);
      await page.emulateMedia({ colorScheme: 'dark' });
      await page.locator('#chart-3').focus();
      await page.keyboard.press('ArrowRight');
      assert.deepEqual(problems, []);
    });
  });
});

test('a script that the report did not bring does not run', { skip: noChromium }, async () => {
  const html = renderHtml(report).replace('</main>', '<script>document.title = "run"</script></main>');
  await withChromium((browser) =>
    openPage(browser, html, async ({ page, problems }) => {
      assert.notEqual(await page.title(), 'run');
      assert.match(problems.join('\n'), /Content Security Policy/);
    }),
  );
});

test('a report without charts has no script', () => {
  const html = renderHtml({ ...report, sections: report.sections.slice(0, 1) });
  assert.doesNotMatch(html, /<script/);
  assert.match(html, /script-src 'none'/);
});
