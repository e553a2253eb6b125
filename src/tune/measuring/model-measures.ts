/** Measures a model for tuning: errors of sampled rows, times of shapes, losses over a text. */

import type { Storage } from '../../quant/storage.ts';
import type { Measures, UnitErrors } from '../measures.ts';
import type { Unit } from '../unit.ts';
import { calibratedRatios } from './calibrated-errors.ts';
import { type Comparison, LogitsComparison, VectorComparison } from './divergence.ts';
import { InputRows } from './inputs.ts';
import { type MatrixErrors, matrixErrors, relative } from './matrix-errors.ts';
import { readRows } from './matrix-rows.ts';
import type { OpenedModel } from './open-model.ts';
import { race } from './race.ts';
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
  /** Token ids to calibrate with; undefined: weights are rounded. */
  readonly calibration?: readonly (readonly number[])[] | undefined;
  /** Loss of a whole plan. Default: with rounded weights. */
  readonly planLoss?:
    | ((weights: Readonly<Record<string, Storage>>, learned: Comparison) => Promise<number>)
    | undefined;
}

/** What the exact model computes over the text. */
interface Learned {
  readonly comparison: Comparison;
  readonly inputs: InputRows;
}

export function measuresOf(model: OpenedModel, options: MeasuringOptions): Measures {
  const weights = new Map(model.description.plan.weights.map((weight) => [weight.name, weight]));
  let running: Promise<Learned> | undefined;
  const learn = async (): Promise<Learned> => {
    const { kind, config } = model.description;
    const comparison = kind === 'encoder' ? new VectorComparison() : new LogitsComparison(config.vocab);
    const names = new Set(
      model.units.flatMap((unit) => [...someMatrices(unit).map(({ name }) => name), ...headOf(unit)]),
    );
    const tokens = options.texts.reduce((sum, { length }) => sum + length, 0);
    const inputs = new InputRows(planWith(model, {}), names, { tokens });
    await runTexts(model, inputs.plan, options.texts, options, (rows) => {
      comparison.learn(rows);
      inputs.add(rows);
    });
    return { comparison, inputs };
  };
  const learned = (): Promise<Learned> => (running ??= learn());
  const lossOf = async (comparison: Comparison, storages: Readonly<Record<string, Storage>>): Promise<number> => {
    const { add, loss } = comparison.start();
    await runTexts(model, planWith(model, storages), options.texts, options, add);
    return loss();
  };
  return {
    times: options.times,
    async errors(unit, types) {
      const { inputs } = await learned();
      const found: MatrixErrors[][] = [];
      for (const { name, shape } of someMatrices(unit)) {
        options.signal?.throwIfAborted();
        const weight = weights.get(name)!;
        const count = unit.layer === undefined && shape[0] > shape[1] ? TABLE_ROWS : ROWS;
        const rows = await readRows(weight, model.files.tensor(weight.source.tensor), count);
        const [head = name] = headOf(unit);
        found.push(matrixErrors(rows, types, inputs.of(head)));
      }
      return types.map((_, t): UnitErrors => {
        const own = found.map((errors) => errors[t]!);
        const outputs = own.flatMap(({ output }) => output ?? []);
        return {
          weights: relative(own.map(({ weights }) => weights)),
          output: outputs.length > 0 ? relative(outputs) : undefined,
        };
      });
    },
    async loss(storages: Readonly<Record<string, Storage>>) {
      const { comparison } = await learned();
      return lossOf(comparison, storages);
    },
    planLoss: async (storages) => {
      const { comparison } = await learned();
      return options.planLoss ? options.planLoss(storages, comparison) : lossOf(comparison, storages);
    },
    ...(options.calibration && {
      calibratedRatios: (units: readonly Unit[]) => calibratedRatios(model, units, options.calibration!, options),
    }),
    race: (plans) =>
      race(
        model.description,
        plans.map((storages) => planWith(model, storages)),
        options,
      ),
  };
}

/** The output head that shares the bytes of a unit's table. */
const headOf = ({ weights, matrices }: Unit): string[] =>
  weights.filter((name) => name === 'output' && !matrices.some((matrix) => matrix.name === name));

/** All matrices of a unit, or some spread evenly. */
function someMatrices({ matrices }: Unit): Unit['matrices'] {
  if (matrices.length <= MOST_MATRICES) return matrices;
  return Array.from(
    { length: MOST_MATRICES },
    (_, i) => matrices[Math.floor(((i + 0.5) * matrices.length) / MOST_MATRICES)]!,
  );
}
