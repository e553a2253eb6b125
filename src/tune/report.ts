/** A tuned plan as a report: the table of plans and policies, and what loss costs in size and time. */
import type { Cell, Chart, Report, Series, Table } from '../report/report.ts';
import type { CurvePoint, Totals, Tuned } from './tune.ts';
import { pickedOf } from './unit.ts';

export interface TuneReport {
  readonly tuned: Tuned;
  readonly model: string;
  readonly budget: string;
  readonly lossName: string;
  /** Where the tokens come from. */
  readonly text: string;
  readonly command: string;
  readonly machine: Report['machine'];
}

export function tuneReport(input: TuneReport): Report {
  const { tuned, model, budget, lossName, text, command, machine } = input;
  const timed = tuned.bySpeed.length > 0;
  const figures = [tuned.plan, ...tuned.policies];
  return {
    title: `Storage of ${model} for ${budget}`,
    command,
    machine,
    sections: [
      { title: 'The plan beside fixed policies', text: checkText(input), table: totalsTable(figures, lossName, timed) },
      { title: 'Loss and size', chart: curveChart(input, 'bytes') },
      ...(timed ? [{ title: 'Loss and speed', chart: curveChart(input, 'rowMs') }] : []),
      {
        title: 'Layers',
        text: `Loss: ${lossName} on ${text}, with this layer alone stored so.`,
        table: layersTable(tuned, lossName),
      },
    ],
  };
}

function checkText({ tuned, lossName, text }: TuneReport): string {
  const { plan, prediction, solver } = tuned;
  const typical =
    prediction.typicalFactor === undefined
      ? ''
      : ` Each of them predicted from the others is off by a factor of ${prediction.typicalFactor.toFixed(2)}, typically.`;
  const measured =
    plan.measuredLoss === undefined
      ? ''
      : ` Measured with all layers together: ${plan.measuredLoss.toPrecision(3)}, ${(plan.predictedLoss / plan.measuredLoss).toFixed(2)} of which was predicted.`;
  return [
    `The loss is the ${lossName} on ${text} against the model as its file has it. Sum of the parts of all layers: ${plan.predictedLoss.toPrecision(3)}, predicted from ${prediction.samples} layers that were measured alone.${typical}${measured}`,
    `Found by: ${solver}.`,
  ].join('\n\n');
}

function totalsTable(all: readonly Totals[], lossName: string, timed: boolean): Table {
  const right = (name: string, unit?: string) => ({ name, align: 'right' as const, ...(unit && { unit }) });
  return {
    columns: [
      { name: 'Storage' },
      right('File', 'MB'),
      ...(timed ? [right('One row', 'ms'), right('A row of a chunk', 'ms')] : []),
      right(`${lossName}, predicted`),
      right('measured'),
    ],
    rows: all.map(({ name, bytes, rowMs, chunkRowMs, predictedLoss, measuredLoss }): Cell[] => [
      name,
      bytes / 1e6,
      ...(timed ? [rowMs, chunkRowMs] : []),
      predictedLoss,
      measuredLoss ?? null,
    ]),
  };
}

function curveChart({ tuned, lossName }: TuneReport, axis: 'bytes' | 'rowMs'): Chart {
  const scale = axis === 'bytes' ? 1e-6 : 1;
  const at = (point: CurvePoint): number => point[axis] * scale;
  const curve = axis === 'bytes' ? tuned.bySize : tuned.bySpeed;
  const policy = (totals: Totals): Series['points'][number] => ({
    x: at({ ...totals, loss: totals.predictedLoss }),
    y: totals.predictedLoss,
    label: totals.name,
  });
  return {
    kind: 'scatter',
    title: axis === 'bytes' ? `${lossName} by size of the file` : `${lossName} by time of one row`,
    x: axis === 'bytes' ? { name: 'File', unit: 'MB' } : { name: 'Products of one row', unit: 'ms' },
    y: { name: `${lossName}, predicted`, scale: 'log' },
    series: [
      { name: 'Least loss', points: curve.map((point) => ({ x: at(point), y: point.loss })) },
      { name: 'Fixed policies', points: tuned.policies.map(policy) },
      { name: 'The plan', points: [policy(tuned.plan)] },
    ],
  };
}

function layersTable({ choices, picks }: Tuned, lossName: string): Table {
  const picked = pickedOf(choices, picks);
  return {
    columns: [
      { name: 'Layer' },
      { name: 'Stored as' },
      { name: 'Size', unit: 'MB', align: 'right' },
      { name: 'One row', unit: 'ms', align: 'right' },
      { name: 'Error of the weights', align: 'right' },
      { name: 'Error of the output', align: 'right' },
      { name: lossName, align: 'right' },
      { name: 'Known by' },
    ],
    rows: choices.map(({ unit }, i): Cell[] => {
      const { type, bytes, rowMs, weightError, outputError, loss, measured } = picked[i]!;
      return [
        unit.name,
        type,
        bytes / 1e6,
        rowMs ?? null,
        weightError,
        outputError ?? null,
        loss,
        measured ? 'measurement' : 'prediction',
      ];
    }),
  };
}
