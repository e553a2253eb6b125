/** What both renderings have in common: texts of cells, and the numbers of a chart as a table. */
import type { Axis, Cell, Chart, Column, Point, Series, Table } from './report.ts';

/** `50257`, `0.0312`, `5.67`: integers in full, other numbers with about three significant digits. */
export function formatNumber(value: number): string {
  if (!Number.isFinite(value)) return `${value}`;
  if (Number.isInteger(value) && Math.abs(value) < 1e15) return `${value}`;
  const size = Math.abs(value);
  if (size >= 1e15 || size < 1e-4) return value.toExponential(2);
  return size >= 100 ? value.toFixed(1) : value.toPrecision(3);
}

/** Line breaks and tabs become spaces; other control characters and those that reverse the direction of text become visible. */
export const plain = (text: string): string =>
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is replaced.
  text.replace(/[\t\r\n]+/g, ' ').replace(/[\0-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/g, '\ufffd');

export const cellText = (cell: Cell | undefined): string =>
  typeof cell === 'number' ? formatNumber(cell) : plain(cell ?? '');

/** `Decode (ms)` */
export const titleOf = ({ name, unit }: Column | Axis): string => plain(unit ? `${name} (${unit})` : name);

export function alignmentOf({ columns, rows }: Table, column: number): 'left' | 'right' {
  const cells = rows.map((row) => row[column] ?? null).filter((cell) => cell !== null);
  const numeric = cells.length > 0 && cells.every((cell) => typeof cell === 'number');
  return columns[column]!.align ?? (numeric ? 'right' : 'left');
}

/** `5.67 (5.61 to 5.7)` */
const shownValue = ({ y, low, high }: Point): Cell =>
  low === undefined || high === undefined ? y : `${formatNumber(y)} (${formatNumber(low)} to ${formatNumber(high)})`;

/** The numbers of a chart: a column per series if each x occurs once in it, otherwise a row per point. */
export function chartTable(chart: Chart): Table {
  const { x, y, series } = chart;
  const labels = series.some(({ points }) => points.some(({ label }) => label !== undefined));
  const repeats = ({ points }: Series): boolean => new Set(points.map((point) => point.x)).size < points.length;
  const right = (name: string, unit: string | undefined): Column => ({ name, unit, align: 'right' });
  const lines = (chart.lines ?? []).map((line): string => {
    if ('y' in line) return `${line.name}: ${formatNumber(line.y)}${unitOf(y)}`;
    if ('x' in line) return `${line.name}: ${formatNumber(line.x)}${unitOf(x)}`;
    return `${line.name}: ${line.points.map((at) => `${formatNumber(at.x)}, ${formatNumber(at.y)}`).join(' to ')}`;
  });
  const caption = [chart.title, ...lines].join('. ');
  if (chart.kind === 'scatter' || labels || series.some(repeats)) {
    const columns: Column[] = [{ name: 'Series' }, { name: x.name, unit: x.unit }, right(y.name, y.unit)];
    const rows = series.flatMap(({ name, points }) =>
      points.map((point): Cell[] => [name, point.x, shownValue(point), ...(labels ? [point.label ?? null] : [])]),
    );
    return { columns: labels ? [...columns, { name: 'Label' }] : columns, rows, caption };
  }
  const places = [...new Set(series.flatMap(({ points }) => points.map((point) => point.x)))];
  if (places.every((place) => typeof place === 'number')) places.sort((a, b) => Number(a) - Number(b));
  return {
    columns: [{ name: x.name, unit: x.unit }, ...series.map(({ name }) => right(name, y.unit))],
    rows: places.map((place) => [
      place,
      ...series.map(({ points }): Cell => {
        const point = points.find((one) => one.x === place);
        return point ? shownValue(point) : null;
      }),
    ]),
    caption,
  };
}

const unitOf = ({ unit }: Axis): string => (unit ? ` ${unit}` : '');

/** The paragraphs and lists of a section's text. */
export function paragraphsOf(text: string): { readonly list: boolean; readonly lines: readonly string[] }[] {
  return text
    .split(/\n\s*\n/)
    .map((part) => part.split('\n').flatMap((line) => line.trim() || []))
    .filter((lines) => lines.length > 0)
    .map((lines) =>
      lines.every((line) => line.startsWith('- '))
        ? { list: true, lines: lines.map((line) => plain(line.slice(2))) }
        : { list: false, lines: [plain(lines.join(' '))] },
    );
}
