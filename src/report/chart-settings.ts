/** Turns a chart into settings of chart.js, as plain data; page-script.ts adds colours and what needs functions. */
import { titleOf } from './cells.ts';
import type { Axis, Chart, Point, ReferenceLine } from './report.ts';

export interface Dataset {
  readonly label: string;
  readonly type: 'line' | 'bar' | 'scatter';
  readonly data: readonly (Omit<Point, 'label'> & { readonly note?: string })[];
  readonly showLine: boolean;
  /** A reference line; it has no points to select. */
  readonly reference?: ReferenceLine;
}

export interface Scale {
  readonly type: 'category' | 'linear' | 'logarithmic';
  readonly title: { readonly display: true; readonly text: string };
  readonly labels?: readonly string[];
  readonly beginAtZero?: boolean;
  readonly grace?: string;
  /** The axis reaches at least so far, for the ends of error bars. */
  readonly suggestedMin?: number;
  readonly suggestedMax?: number;
}

export interface ChartSettings {
  readonly type: Dataset['type'];
  readonly title: string;
  readonly unit: string;
  readonly x: Scale;
  readonly y: Scale;
  readonly datasets: readonly Dataset[];
}

const kinds = { line: 'line', bars: 'bar', scatter: 'scatter' } as const;

export function chartSettings({ kind, title, x, y, series, lines = [] }: Chart): ChartSettings {
  const places = series.flatMap(({ points }) => points.map((point) => point.x));
  const categories = kind === 'bars' || places.some((place) => typeof place === 'string');
  const labels = [...new Set(places.map(String))];
  const xLog = !categories && x.scale === 'log';
  const drawable = (point: { readonly x: number | string; readonly y: number }): boolean =>
    (y.scale !== 'log' || point.y > 0) && (!xLog || Number(point.x) > 0);
  const type = kinds[kind];
  const own = series.map(({ name, points }): Dataset => {
    const data = points
      .filter(drawable)
      .map(({ label, ...point }) => ({ ...point, x: categories ? `${point.x}` : point.x, note: label }));
    return { label: name, type, data, showLine: kind === 'line' };
  });
  // The points of a straight line only widen the axis, so that the line can be seen; it is drawn from edge to edge.
  const middle = own.flatMap(({ data }) => data)[0];
  const references = lines.map((line): Dataset => {
    const points = 'points' in line ? line.points : [{ x: middle?.x ?? 1, y: middle?.y ?? 1, ...coordinate(line) }];
    return {
      label: line.name,
      type: categories ? 'line' : 'scatter',
      data: points.filter(drawable),
      showLine: 'points' in line,
      reference: line,
    };
  });
  const ends = own
    .flatMap(({ data }) => data.flatMap(({ low, high }) => [low, high]))
    .filter((end) => end !== undefined && (y.scale !== 'log' || end > 0)) as number[];
  return {
    type,
    title,
    unit: y.unit ?? '',
    x: { ...scaleOf(x, categories), ...(categories ? { labels } : {}) },
    y: {
      ...scaleOf(y, false),
      ...(y.scale === 'log' ? {} : { beginAtZero: kind === 'bars', grace: '5%' }),
      ...(ends.length > 0 ? { suggestedMin: Math.min(...ends), suggestedMax: Math.max(...ends) } : {}),
    },
    datasets: [...own, ...references],
  };
}

const coordinate = (line: ReferenceLine): { x?: number; y?: number } =>
  'y' in line ? { y: line.y } : 'x' in line ? { x: line.x } : {};

const scaleOf = (axis: Axis, categories: boolean): Scale => ({
  type: categories ? 'category' : axis.scale === 'log' ? 'logarithmic' : 'linear',
  title: { display: true, text: titleOf(axis) },
});
