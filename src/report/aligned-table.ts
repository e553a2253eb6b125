/** Renders Markdown tables with aligned columns, readable in a terminal. */

export interface Column {
  readonly title: string;
  /** Default left; numbers are aligned right. */
  readonly align?: 'left' | 'right';
}

/** Every line ends with a line feed. Missing cells of a row are empty. */
export function renderTable(columns: readonly Column[], rows: readonly (readonly string[])[]): string {
  const cells = [columns.map(({ title }) => title), ...rows.map((row) => columns.map((_, c) => row[c] ?? ''))].map(
    (row) => row.map((cell) => cell.replaceAll('|', '\\|')),
  );
  const widths = columns.map((_, c) => Math.max(3, ...cells.map((row) => characters(row[c]!))));
  const line = (row: readonly string[]): string => `| ${row.join(' | ')} |\n`;
  const [header, ...body] = cells.map((row) => line(row.map((cell, c) => pad(cell, widths[c]!, columns[c]!.align))));
  const rule = columns.map(({ align }, c) =>
    align === 'right' ? `${'-'.repeat(widths[c]! - 1)}:` : '-'.repeat(widths[c]!),
  );
  return [header, line(rule), ...body].join('');
}

const characters = (text: string): number => [...text].length;

function pad(text: string, width: number, align: Column['align']): string {
  const space = ' '.repeat(width - characters(text));
  return align === 'right' ? space + text : text + space;
}
