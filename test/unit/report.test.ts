/** Reports: Markdown, and the numbers of charts as tables. Pages are opened in test/browser/pages.test.ts. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { chartTable, formatNumber } from '../../src/report/cells.ts';
import { chartSettings } from '../../src/report/chart-settings.ts';
import { renderMarkdown } from '../../src/report/markdown.ts';
import type { Chart, Report } from '../../src/report/report.ts';

const chart: Chart = {
  kind: 'line',
  title: 'Time by dimension',
  x: { name: 'Dimension', scale: 'log' },
  y: { name: 'Time', unit: 'ms', scale: 'log' },
  series: [
    {
      name: 'f32',
      points: [
        { x: 1024, y: 4, low: 3.9, high: 4.25 },
        { x: 64, y: 0.01234 },
      ],
    },
    {
      name: 'q8_0',
      points: [
        { x: 1024, y: 1 },
        { x: 0, y: 5 },
      ],
    },
  ],
  lines: [{ name: 'crossing', x: 700 }],
};
const empty: Report = { title: '', command: '', machine: [], sections: [] };

test('a report as Markdown', () => {
  const report: Report = {
    title: 'Rounds of gpt2',
    command: 'lanewise bench rounds gpt2',
    machine: [['Processor', 'a | b']],
    sections: [
      {
        title: 'Comparison',
        text: 'Two lines\nof one paragraph.\n\n- an item\n- another',
        table: {
          columns: [{ name: 'Round' }, { name: 'Decode', unit: 'ms' }],
          rows: [
            ['none', 16.123],
            ['q8_0', null],
          ],
        },
        chart,
      },
      { chart },
    ],
  };
  assert.equal(
    renderMarkdown(report),
    `# Rounds of gpt2

| Machine   |        |
| --------- | ------ |
| Processor | a \\| b |

\`\`\`
lanewise bench rounds gpt2
\`\`\`

## Comparison

Two lines of one paragraph.

- an item
- another

| Round | Decode (ms) |
| ----- | ----------: |
| none  |        16.1 |
| q8_0  |             |

Time by dimension. crossing: 700

| Dimension |         f32 (ms) | q8_0 (ms) |
| --------: | ---------------: | --------: |
|         0 |                  |         5 |
|        64 |           0.0123 |           |
|      1024 | 4 (3.90 to 4.25) |         1 |
`,
  );
});

test('names cannot become markup, in texts, tables and code', () => {
  const name = 'a|b `c` *d* _e_ f_g <img> [x](y) \\ &amp; ~~z~~\n# h\u202e\0';
  const text = renderMarkdown({
    ...empty,
    title: name,
    command: 'run ```\n```` x',
    sections: [{ title: name, text: '# no heading\n\n1. no list', table: { columns: [{ name }], rows: [[name]] } }],
  });
  const escaped = 'a\\|b \\`c\\` \\*d\\* \\_e\\_ f_g &lt;img> \\[x\\](y) \\\\ &amp;amp; \\~\\~z\\~\\~ # h\ufffd\ufffd';
  assert.ok(text.includes(`| ${escaped} |\n`), text);
  assert.ok(text.startsWith(`# ${escaped.replace('\\|', '|')}\n`), text);
  assert.match(text, /^`{5}\nrun ```\n```` x\n`{5}$/m);
  assert.match(text, /^\\# no heading$/m);
  assert.match(text, /^1\\\. no list$/m);
});

test('numbers have about three digits', () => {
  for (const [value, text] of [
    [50257, '50257'],
    [0, '0'],
    [-5.678, '-5.68'],
    [1234.56, '1234.6'],
    [0.00123, '0.00123'],
    [0.0000123, '1.23e-5'],
    [Number.NaN, 'NaN'],
  ] as const)
    assert.equal(formatNumber(value), text);
});

test('a chart whose points have labels or share an x is a table with a row per point', () => {
  const points = [
    { x: 1, y: 2 },
    { x: 1, y: 3 },
  ];
  const table = chartTable({ ...chart, series: [{ name: 's', points }], lines: [] });
  assert.deepEqual(table.rows, [
    ['s', 1, 2],
    ['s', 1, 3],
  ]);
  const labelled = chartTable({
    ...chart,
    kind: 'scatter',
    series: [{ name: 's', points: [{ x: 1, y: 2, label: 'l' }] }],
  });
  assert.deepEqual(labelled.rows, [['s', 1, 2, 'l']]);
});

test('a logarithmic axis leaves out what it cannot show; categories keep their order', () => {
  const { datasets, x, y } = chartSettings(chart);
  assert.equal(x.type, 'logarithmic');
  // The ends of error bars are on the axis.
  assert.deepEqual([y.suggestedMin, y.suggestedMax], [3.9, 4.25]);
  assert.deepEqual(
    datasets[1]!.data.map((point) => point.x),
    [1024],
  );
  const points = ['q8_0', 'none', '7'].map((name) => ({ x: name, y: 1 }));
  const bars = chartSettings({ ...chart, kind: 'bars', series: [{ name: 's', points }] });
  assert.deepEqual([bars.x.type, bars.x.labels], ['category', ['q8_0', 'none', '7']]);
});
