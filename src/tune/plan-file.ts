/** Makes the plan file of a tuned model: storages, and for each weight why, with numbers. */
import type { PlannedModel, PlanReason, StoragePlan } from '../models/storage-plan.ts';
import { type Budget, speedCost } from './budget.ts';
import type { Totals, Tuned } from './tune.ts';
import type { Candidate, Choices } from './unit.ts';

export interface PlanContext {
  readonly model: PlannedModel;
  readonly budget: Budget;
  /** The budget as it was given. */
  readonly budgetText: string;
  /** What the loss is: `KL divergence` or `cosine distance`. */
  readonly lossName: string;
  /** Where the tokens come from, and their hash. */
  readonly text: string;
  readonly textHash: string;
  /** Whether the errors are those of calibrated weights, so that the plan is meant for `quantize --calibrate`. */
  readonly calibrated: boolean;
  readonly machine: string;
}

export function planOf(tuned: Tuned, context: PlanContext): StoragePlan {
  const { budget, model } = context;
  const explain: Record<string, PlanReason> = {};
  for (const [i, choices] of tuned.choices.entries()) {
    const picked = choices.candidates[tuned.picks[i]!]!;
    for (const name of choices.unit.weights)
      explain[name] =
        name === choices.unit.name
          ? { reason: reasonOf(choices, picked, budget), ...figuresOf(picked) }
          : { reason: `in one tensor with ${choices.unit.name}` };
  }
  return {
    version: 1,
    model,
    weights: tuned.weights,
    explain,
    tuned: {
      budget: context.budgetText,
      solver: tuned.solver,
      loss: context.lossName,
      text: context.text,
      text_sha256: context.textHash,
      calibrated: context.calibrated,
      machine: context.machine,
      ...summaryOf(tuned),
    },
  };
}

/** Of a plan and the fixed policies, for JSON. */
export function summaryOf(tuned: Tuned): Record<string, unknown> {
  const { plan, prediction, policies } = tuned;
  return {
    plan: totalsJson(plan),
    ...(plan.measuredLoss !== undefined && {
      predicted_to_measured: figure(plan.predictedLoss / Math.max(plan.measuredLoss, Number.MIN_VALUE)),
    }),
    samples: prediction.samples,
    ...(prediction.typicalFactor !== undefined && { typical_factor_of_samples: figure(prediction.typicalFactor) }),
    policies: policies.map(totalsJson),
  };
}

const totalsJson = ({ name, bytes, rowMs, chunkRowMs, predictedLoss, measuredLoss }: Totals): object => ({
  name,
  bytes,
  ...(rowMs > 0 && { row_ms: figure(rowMs), chunk_row_ms: figure(chunkRowMs) }),
  predicted_loss: figure(predictedLoss),
  ...(measuredLoss !== undefined && { measured_loss: figure(measuredLoss) }),
});

/** Four significant digits: enough to read, and few enough to compare files. */
const figure = (value: number): number => Number(value.toPrecision(4));

function figuresOf(picked: Candidate): Record<string, string | number> {
  const { bytes, weightError, outputError, rowMs, chunkRowMs, loss, measured } = picked;
  return {
    bytes,
    weight_error: figure(weightError),
    ...(outputError !== undefined && { output_error: figure(outputError) }),
    ...(rowMs !== undefined && { row_ms: figure(rowMs) }),
    ...(chunkRowMs !== undefined && { chunk_row_ms: figure(chunkRowMs) }),
    loss: figure(loss),
    loss_from: measured ? 'measured alone' : 'predicted',
  };
}

/** What the neighbouring choices would cost. */
function reasonOf({ candidates }: Choices, picked: Candidate, { kind }: Budget): string {
  const cost = kind === 'speed' ? speedCost : ({ bytes }: Candidate): number => bytes;
  const better = least(
    candidates.filter((other) => other.loss < picked.loss && cost(other) > cost(picked)),
    cost,
  );
  const cheaper = least(
    candidates.filter((other) => cost(other) < cost(picked) && other.loss >= picked.loss),
    ({ loss }) => loss,
  );
  const difference = (other: Candidate): string =>
    kind === 'speed'
      ? `${Math.abs(speedCost(other) - speedCost(picked)).toPrecision(2)} ms`
      : sizeText(Math.abs(other.bytes - picked.bytes));
  const loss = (value: number): string => value.toPrecision(2);
  const parts = [
    ...(better
      ? [`${better.type} would take ${difference(better)} more to save ${loss(picked.loss - better.loss)}`]
      : []),
    ...(cheaper
      ? [`${cheaper.type} would save ${difference(cheaper)} for ${loss(cheaper.loss - picked.loss)} more`]
      : []),
  ];
  return `adds ${loss(picked.loss)}${parts.length > 0 ? `; ${parts.join('; ')}` : ''}`;
}

const sizeText = (bytes: number): string =>
  bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(2)} MB`;

const least = (some: readonly Candidate[], of: (candidate: Candidate) => number): Candidate | undefined =>
  some.reduce<Candidate | undefined>((best, one) => (best === undefined || of(one) < of(best) ? one : best), undefined);
