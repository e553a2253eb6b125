/** The data of a report, which is rendered as Markdown (markdown.ts) or as a page (html.ts). All texts are plain text. */

export interface Report {
  readonly title: string;
  /** The command line that made the report. */
  readonly command: string;
  /** Names and values: `['Processor', 'AMD EPYC 9V74']`. */
  readonly machine: readonly (readonly [name: string, value: string])[];
  readonly sections: readonly Section[];
}

export interface Section {
  readonly title?: string;
  /** Paragraphs are separated by empty lines; in one whose lines all begin with `- `, each line is an item of a list. */
  readonly text?: string;
  readonly table?: Table;
  readonly chart?: Chart;
}

export type Cell = string | number | null;

export interface Column {
  readonly name: string;
  readonly unit?: string;
  /** Default: right if the column has numbers only. */
  readonly align?: 'left' | 'right';
}

export interface Table {
  readonly columns: readonly Column[];
  readonly rows: readonly (readonly Cell[])[];
  readonly caption?: string;
}

export interface Chart {
  readonly kind: 'line' | 'bars' | 'scatter';
  readonly title: string;
  readonly x: Axis;
  readonly y: Axis;
  readonly series: readonly Series[];
  readonly lines?: readonly ReferenceLine[];
}

export interface Axis {
  readonly name: string;
  readonly unit?: string;
  /** Default linear. Values up to 0 are not drawn on a logarithmic axis. */
  readonly scale?: 'linear' | 'log';
}

export interface Series {
  readonly name: string;
  readonly points: readonly Point[];
}

export interface Point {
  /** Texts are categories, in the order of their first appearance. Bars always have categories. */
  readonly x: number | string;
  readonly y: number;
  /** The interval of `y`, drawn as an error bar. */
  readonly low?: number;
  readonly high?: number;
  readonly label?: string;
}

/** A dashed line across the chart, such as a roof: horizontal, vertical, or through given points. */
export type ReferenceLine =
  | { readonly name: string; readonly y: number }
  | { readonly name: string; readonly x: number }
  | { readonly name: string; readonly points: readonly { readonly x: number; readonly y: number }[] };
