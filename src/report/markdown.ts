/** Renders a report as Markdown that is also readable in a terminal. */
import { type Column, renderTable } from './aligned-table.ts';
import { alignmentOf, cellText, chartTable, paragraphsOf, plain, titleOf } from './cells.ts';
import type { Report, Section, Table } from './report.ts';

export function renderMarkdown(report: Report): string {
  const blocks = [`# ${escaped(plain(report.title))}`];
  if (report.machine.length > 0)
    blocks.push(markdownTable({ columns: [{ name: 'Machine' }, { name: '' }], rows: report.machine }));
  if (report.command !== '') blocks.push(codeBlock(report.command));
  return `${[...blocks, ...report.sections.flatMap(sectionBlocks)].join('\n\n')}\n`;
}

function sectionBlocks({ title, text, table, chart }: Section): string[] {
  const blocks: string[] = [];
  if (title !== undefined) blocks.push(`## ${escaped(plain(title))}`);
  for (const { list, lines } of paragraphsOf(text ?? ''))
    blocks.push(lines.map((line) => (list ? `- ${escaped(line)}` : escapedStart(escaped(line)))).join('\n'));
  if (table !== undefined) blocks.push(...captioned(table));
  // Beside a table that shows the same, a chart would only repeat it.
  else if (chart !== undefined) blocks.push(...captioned(chartTable(chart)));
  return blocks;
}

const captioned = (table: Table): string[] => [
  ...(table.caption === undefined ? [] : [escapedStart(escaped(plain(table.caption)))]),
  markdownTable(table),
];

function markdownTable(table: Table): string {
  const columns = table.columns.map(
    (column, index): Column => ({ title: escaped(titleOf(column)), align: alignmentOf(table, index) }),
  );
  return renderTable(
    columns,
    table.rows.map((row) => columns.map((_, index) => escaped(cellText(row[index])))),
  ).trimEnd();
}

/** Escapes what Markdown or HTML would read as markup. Underscores within words are none. */
const escaped = (text: string): string =>
  text
    .replace(/[\\`*[\]~]/g, '\\$&')
    .replace(/&(?=#|\w+;)/g, '&amp;')
    .replace(/<(?=[a-z/!?])/gi, '&lt;')
    .replace(/(?<![\p{L}\p{N}])_|_(?![\p{L}\p{N}])/gu, '\\_');

/** Escapes what is markup at the start of a line only: headings, quotations, lists, rules. */
const escapedStart = (text: string): string => text.replace(/^[#>+=-]/, '\\$&').replace(/^(\d+)([.)])/, '$1\\$2');

function codeBlock(text: string): string {
  const longest = Math.max(0, ...[...text.matchAll(/`+/g)].map(([ticks]) => ticks.length));
  const fence = '`'.repeat(Math.max(3, longest + 1));
  return `${fence}\n${text.split('\n').map(plain).join('\n')}\n${fence}`;
}
