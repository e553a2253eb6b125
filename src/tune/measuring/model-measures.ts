/** Measures a model for tuning: errors of sampled rows, times of shapes, losses over a text. */

import type { Storage } from '../../quant/storage.ts';
import type { Measures, UnitErrors } from '../measures.ts';
import type { Unit } from '../unit.ts';
import { type Comparison, LogitsComparison, VectorComparison } from './divergence.ts';
import { type MatrixErrors, matrixErrors, relative } from './matrix-errors.ts';
import { readRows } from './matrix-rows.ts';
import type { OpenedModel } from './open-model.ts';
import { planWith, type RunSettings, runTexts } from './runs.ts';

/** Rows of each matrix whose errors are measured, and of a table or output head. */
const ROWS = 64;
const TABLE_ROWS = 512;
/** Matrices of a unit whose errors are measured, where it has more: experts. */
const MOST_MATRICES = 4;

export interface MeasuringOptions extends RunSettings {
  /** Token ids. */
  readonly texts: readonly (readonly number[])[];
  readonly times: Measures['times'];
}

/** What is computed once, when it is first needed. */
export function measuresOf(model: OpenedModel, options: MeasuringOptions): Measures {
  const weights = new Map(model.description.plan.weights.map((weight) => [weight.name, weight]));
  let comparison: Promise<Comparison> | undefined;
  const learned = async (): Promise<Comparison> => {
    const { kind, config } = model.description;
    const made = kind === 'encoder' ? new VectorComparison() : new LogitsComparison(config.vocab);
    await runTexts(model, planWith(model, {}), options.texts, options, (rows) => made.learn(rows));
    return made;
  };
  return {
    times: options.times,
    async errors(unit, types) {
      const found: MatrixErrors[][] = [];
      for (const { name, shape } of someMatrices(unit)) {
        options.signal?.throwIfAborted();
        const weight = weights.get(name)!;
        const count = unit.layer === undefined && shape[0] > shape[1] ? TABLE_ROWS : ROWS;
        const rows = await readRows(weight, model.files.tensor(weight.source.tensor), count);
        found.push(matrixErrors(rows, types, undefined));
      }
      return types.map((type, t): UnitErrors => {
        const own = found.map((errors) => errors[t]!);
        const exact = type === unit.stored;
        const outputs = own.flatMap(({ output }) => output ?? []);
        return {
          weights: exact ? 0 : relative(own.map(({ weights }) => weights)),
          output: outputs.length === own.length ? relative(outputs) : undefined,
        };
      });
    },
    async loss(storages: Readonly<Record<string, Storage>>) {
      comparison ??= learned();
      const { add, loss } = (await comparison).start();
      await runTexts(model, planWith(model, storages), options.texts, options, add);
      return loss();
    },
  };
}

/** All matrices of a unit, or some spread evenly. */
function someMatrices({ matrices }: Unit): Unit['matrices'] {
  if (matrices.length <= MOST_MATRICES) return matrices;
  return Array.from(
    { length: MOST_MATRICES },
    (_, i) => matrices[Math.floor(((i + 0.5) * matrices.length) / MOST_MATRICES)]!,
  );
}
