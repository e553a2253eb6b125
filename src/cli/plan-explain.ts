/** `lanewise plan --explain`: why each matrix is stored as it is, with the numbers that a tuned plan has. */
import type { ModelDescription, Quantize } from '../node.ts';
import { formatBytes } from '../profile/units.ts';
import { renderTable } from './table.ts';

/** A matrix with the figures of its plan. */
export interface ExplainedWeight {
  readonly name: string;
  readonly in: number;
  readonly out: number;
  readonly stored: string;
  /** 0 if it shares another weight's storage. */
  readonly bytes: number;
  readonly reason: string;
  /** Of the plan, by name: `loss`, `row_ms`, ... */
  readonly figures: Readonly<Record<string, string | number>>;
}

export function explainedWeights({ plan }: ModelDescription, quantize: Quantize | undefined): ExplainedWeight[] {
  const explain = typeof quantize === 'object' ? (quantize.explain ?? {}) : {};
  return plan.weights.flatMap(({ name, shape, storage, bytes, reason }): ExplainedWeight[] => {
    const [out, width] = shape as [number, number?];
    if (width === undefined) return [];
    const { reason: why = reason, ...figures } = Object.hasOwn(explain, name) ? explain[name]! : {};
    return [{ name, in: width, out, stored: storage, bytes, reason: why, figures }];
  });
}

/** Columns of figures, as far as a plan has any. */
const columns: readonly (readonly [figure: string, title: string, text: (value: number) => string])[] = [
  ['loss', 'Loss', (value) => value.toPrecision(3)],
  ['loss_from', 'From', String],
  ['weight_error', 'Weight error', (value) => value.toExponential(2)],
  ['output_error', 'Output error', (value) => value.toExponential(2)],
  ['row_ms', 'Row ms', (value) => value.toFixed(4)],
  ['chunk_row_ms', 'Chunk row ms', (value) => value.toFixed(4)],
];

export function renderExplained(weights: readonly ExplainedWeight[]): string {
  const shown = columns.filter(([figure]) => weights.some(({ figures }) => figures[figure] !== undefined));
  const right = (title: string) => ({ title, align: 'right' as const });
  return renderTable(
    [
      { title: 'Weight' },
      right('Dimensions'),
      { title: 'Stored as' },
      right('Bytes'),
      ...shown.map(([figure, title]) => (figure === 'loss_from' ? { title } : right(title))),
      { title: 'Reason' },
    ],
    weights.map(({ name, in: width, out, stored, bytes, reason, figures }) => [
      name,
      `${width} → ${out}`,
      stored,
      bytes === 0 ? 'shared' : formatBytes(bytes),
      ...shown.map(([figure, , text]) => {
        const value = figures[figure];
        return value === undefined ? '' : typeof value === 'number' ? text(value) : value;
      }),
      reason,
    ]),
  );
}

/** What a tuned plan says of itself. */
export function tunedLine(quantize: Quantize | undefined): string | undefined {
  if (typeof quantize !== 'object' || quantize.tuned === undefined) return undefined;
  const { budget, solver, loss, text, machine, plan } = quantize.tuned as Record<string, unknown>;
  const { predicted_loss: predicted, measured_loss: measured, row_ms: timed } = (plan ?? {}) as Record<string, unknown>;
  const measuredText = measured === undefined ? '' : `, measured ${measured}`;
  return `tuned for ${budget} (${solver}) on ${text}; ${loss} predicted ${predicted}${measuredText}${timed === undefined ? '' : `; times of ${machine}`}`;
}
