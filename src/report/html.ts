/** Renders a report as one HTML page with its charts, which works without a network. */
import { readFileSync } from 'node:fs';
import { alignmentOf, cellText, chartTable, paragraphsOf, plain, titleOf } from './cells.ts';
import { chartSettings } from './chart-settings.ts';
import { escapeHtml, htmlPage } from './html-page.ts';
import { drawCharts } from './page-script.ts';
import type { Chart, Report, Section, Table } from './report.ts';

/** The build puts chart.js beside this file; in a checkout it is a development dependency. */
const chartLibrary = (): URL =>
  new URL('./chart.umd.min.js', import.meta.url.endsWith('.ts') ? import.meta.resolve('chart.js') : import.meta.url);

export function renderHtml(report: Report): string {
  const charts: Chart[] = [];
  const { title, machine, command, sections } = report;
  const body = [
    `<h1>${text(title)}</h1>`,
    ...(machine.length > 0
      ? [tableHtml({ columns: [{ name: 'Machine' }, { name: 'Value' }], rows: machine }, 'Machine')]
      : []),
    ...(command === '' ? [] : [`<pre tabindex="0" aria-label="Command"><code>${preformatted(command)}</code></pre>`]),
    ...sections.map((section) => sectionHtml(section, title, charts)),
  ].join('\n');
  if (charts.length === 0) return htmlPage({ title, body });
  const library = readFileSync(chartLibrary(), 'utf8').replace(/^\/\/# sourceMappingURL=.*$/m, '');
  return htmlPage({
    title,
    body,
    scripts: [library, `(${drawCharts.toString()})();`],
    data: { charts: charts.map(chartSettings) },
  });
}

const text = (value: string): string => escapeHtml(plain(value));
const preformatted = (value: string): string => value.split('\n').map(text).join('\n');

function sectionHtml({ title, text: words, table, chart }: Section, within: string, charts: Chart[]): string {
  const parts: string[] = [];
  if (title !== undefined) parts.push(`<h2>${text(title)}</h2>`);
  for (const { list, lines } of paragraphsOf(words ?? ''))
    parts.push(
      list
        ? `<ul>${lines.map((line) => `<li>${escapeHtml(line)}</li>`).join('')}</ul>`
        : `<p>${escapeHtml(lines.join(' '))}</p>`,
    );
  if (table !== undefined) parts.push(tableHtml(table, table.caption ?? title ?? within));
  if (chart !== undefined) {
    parts.push(chartHtml(chart, charts.length));
    charts.push(chart);
  }
  return `<section>\n${parts.join('\n')}\n</section>`;
}

/** @param name says what the table is, for screen readers */
export function tableHtml(table: Table, name: string): string {
  const sides = table.columns.map((_, index) => (alignmentOf(table, index) === 'right' ? ' class="right"' : ''));
  const head = table.columns.map((column, i) => `<th scope="col"${sides[i]}>${text(titleOf(column))}</th>`);
  const rows = table.rows.map((row) => {
    const cells = table.columns.map((_, i) => {
      const content = escapeHtml(cellText(row[i]));
      return i === 0 ? `<th scope="row"${sides[i]}>${content}</th>` : `<td${sides[i]}>${content}</td>`;
    });
    return `<tr>${cells.join('')}</tr>`;
  });
  const caption = table.caption === undefined ? '' : `<caption>${text(table.caption)}</caption>`;
  return `<div class="scroll" tabindex="0" role="region" aria-label="${text(name)}"><table>${caption}
<thead><tr>${head.join('')}</tr></thead>
<tbody>
${rows.join('\n')}
</tbody></table></div>`;
}

function chartHtml(chart: Chart, index: number): string {
  const name = text(chart.title);
  const keys = 'Arrow keys go from point to point.';
  return `<figure>
<div class="canvas"><canvas id="chart-${index}" data-chart="${index}" tabindex="0" role="img" aria-label="${name}. ${keys}"></canvas></div>
<div id="chart-${index}-spoken" class="hidden" aria-live="polite"></div>
<details><summary>The numbers of this chart</summary>
${tableHtml(chartTable(chart), chart.title)}
</details>
</figure>`;
}
