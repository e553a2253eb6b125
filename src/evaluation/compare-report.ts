/** A comparison of two models as a report. */
import type { Chart, Report, Section, Table } from '../report/report.ts';
import {
  type Comparison,
  type Growth,
  type LayerDifference,
  type Parting,
  type StepDifference,
  scopeName,
} from './compare.ts';
import type { Difference } from './row-difference.ts';

export interface ComparedSides {
  /** How each side was loaded, in a few words. */
  readonly a: string;
  readonly b: string;
}

export function comparisonReport(
  comparison: Comparison,
  sides: ComparedSides,
  { command, machine }: Pick<Report, 'command' | 'machine'>,
): Report {
  const { layers, steps, parting } = comparison;
  const sections: Section[] = [
    { text: `- A: ${sides.a}\n- B: ${sides.b}\n\n${verdictOf(comparison)}` },
    {
      title: 'Error by layer',
      chart: errorChart(
        'Relative error of the rows after each layer',
        layers.map(nameOf),
        layers,
        comparison.tolerance,
      ),
    },
    { title: 'Cosine by layer', chart: cosineChart(layers) },
    { title: 'Rows after each layer', table: tableOf('rows', layers, nameOf) },
  ];
  if (parting && steps.length > 0) {
    const places = new Set([comparison.origin!, parting].map(({ layer }) => scopeName(layer.scope)));
    const title = `Steps of ${[...places].join(' and ')}`;
    const names = steps.map(({ step, work }) => `${step} ${work.split(' ', 1)[0]}`);
    sections.push(
      { title, chart: errorChart('Relative error of the result of each step', names, steps, comparison.tolerance) },
      { table: { ...tableOf('step', steps, ({ step, work }) => `${step} ${work}`), caption: title } },
    );
  }
  return { title: 'Two models compared layer by layer', command, machine, sections };
}

/** Where two models part, where they differ first, and where the error grows, in sentences. */
export function verdictOf(comparison: Comparison): string {
  const { growth, parting, origin, tolerance } = comparison;
  if (!parting) return [withinText(comparison), ...growthText(growth)].join(' ');
  const { error, worst, cosine } = parting.step ?? parting.layer;
  const numbers = `error ${short(error)}, of the worst row ${short(worst)}, cosine ${cosineText(cosine)}`;
  const sentences = [`They part in ${placeText(parting)}: ${numbers} (tolerance ${tolerance}).`];
  if (origin && origin.layer !== parting.layer)
    sentences.push(
      `The first rows that differ at all: ${placeText(origin)}, error ${short((origin.step ?? origin.layer).error)}.`,
    );
  return [...sentences, ...growthText(growth)].join(' ');
}

function withinText({ tolerance, tokens, layers }: Comparison): string {
  const worst = layers.reduce((most, layer) => Math.max(most, layer.worst), 0);
  const found =
    worst === 0 ? 'They have the same values' : `They stay together: no row differs by more than ${short(worst)}`;
  return `${found} (tolerance ${tolerance}, ${tokens} tokens, ${layers.length - 3} layers and the logits).`;
}

/** `layer 1, step 27 (matmul ...), first at token 3 " was"` */
function placeText({ layer, step, token }: Parting): string {
  const where = step ? `${scopeName(layer.scope)}, step ${step.step} (${step.work})` : scopeName(layer.scope);
  return `${where}, first at token ${token.position} ${token.text === undefined ? token.id : JSON.stringify(token.text)}`;
}

const growthText = (growth: Growth | undefined): string[] =>
  growth
    ? [`The error grows most in ${scopeName(growth.scope)}: from ${short(growth.before)} to ${short(growth.after)}.`]
    : [];

/** The name of rows for people. */
export const nameOf = ({ name, scope }: LayerDifference): string =>
  name === 'logits' || name === 'final' ? name : scopeName(scope);

export const short = (value: number): string =>
  value === 0 || value >= 1e-3 ? `${Number(value.toPrecision(3))}` : value.toExponential(2);

/** As many digits as are 9, and one more. */
export function cosineText(cosine: number): string {
  const apart = 1 - cosine;
  if (!(apart >= 1e-10 && apart < 1)) return short(cosine);
  return cosine.toFixed(Math.max(4, 1 - Math.floor(Math.log10(apart))));
}

function tableOf<D extends Difference>(name: string, rows: readonly D[], nameOf: (row: D) => string): Table {
  return {
    columns: [
      { name },
      { name: 'error', align: 'right' },
      { name: 'worst row', align: 'right' },
      { name: 'cosine', align: 'right' },
      { name: 'first token beyond', align: 'right' },
    ],
    rows: rows.map((row) => [
      nameOf(row),
      short(row.error),
      short(row.worst),
      cosineText(row.cosine),
      row.first === undefined ? null : row.first,
    ]),
  };
}

function errorChart(
  title: string,
  names: readonly string[],
  rows: readonly (LayerDifference | StepDifference)[],
  tolerance: number,
): Chart {
  const series = (name: string, of: (row: Difference) => number) => ({
    name,
    points: rows.map((row, i) => ({ x: names[i]!, y: of(row) })),
  });
  return {
    kind: 'line',
    title,
    x: { name: 'place in the forward' },
    y: { name: 'relative error', scale: 'log' },
    series: [series('all rows', ({ error }) => error), series('worst row', ({ worst }) => worst)],
    ...(tolerance > 0 && { lines: [{ name: 'tolerance', y: tolerance }] }),
  };
}

const cosineChart = (layers: readonly LayerDifference[]): Chart => ({
  kind: 'line',
  title: '1 - cosine of the rows after each layer',
  x: { name: 'place in the forward' },
  y: { name: '1 - cosine', scale: 'log' },
  series: [{ name: '1 - cosine', points: layers.map((row) => ({ x: nameOf(row), y: 1 - row.cosine })) }],
});
