/** Chooses the storage of every unit of a model: measures, predicts, solves for the budget, checks the result. */
import { OptionError } from '../errors.ts';
import type { Storage } from '../quant/storage.ts';
import { type Budget, type Solved, solve, speedCost } from './budget.ts';
import { type Measures, remembered, type ShapeRequest, type Store, type UnitErrors } from './measures.ts';
import { fixedPolicies, policyPicks } from './policies.ts';
import { type Prediction, predictLosses, type Sample, sampledUnits } from './predict.ts';
import { type Rival, type Settled, settle } from './settle.ts';
import { Frontier } from './solve.ts';
import { type Candidate, type Choices, type Picks, pickedOf, type Unit, unitBytes, weightsOf } from './unit.ts';

export interface TuneInput {
  readonly units: readonly Unit[];
  /** Bytes of the file besides the units. */
  readonly fixedBytes: number;
  readonly alignment: number;
  readonly measures: Measures;
  readonly store: Store;
  readonly budget: Budget;
  /** Units whose loss is measured alone. */
  readonly samples: number;
  /** Whether times are measured. Default true. */
  readonly timed?: boolean | undefined;
  readonly onProgress?: ((stage: Stage, done: number, total: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

export type Stage = 'errors' | 'times' | 'samples' | 'calibration' | 'check' | 'race';

/** Sums of a plan or a fixed policy. */
export interface Totals {
  readonly name: string;
  /** Of the file. */
  readonly bytes: number;
  /** Products of one row with all matrices, and per row of a chunk, in milliseconds. */
  readonly rowMs: number;
  readonly chunkRowMs: number;
  readonly predictedLoss: number;
  /** Measured with all units in these storages; undefined: not measured. */
  readonly measuredLoss?: number | undefined;
}

export interface CurvePoint {
  readonly bytes: number;
  readonly rowMs: number;
  readonly loss: number;
}

export interface Tuned {
  readonly choices: readonly Choices[];
  readonly picks: Picks;
  readonly weights: Record<string, Storage>;
  readonly plan: Totals;
  readonly solver: string;
  readonly prediction: Prediction;
  /** Fixed policies that ran in turns with the plan; of the budget speed only. */
  readonly rivals: readonly Rival[];
  /** The policy that was taken instead, because the plan was not faster. */
  readonly instead: string | undefined;
  readonly policies: readonly Totals[];
  /** Least losses by size and by time of a row. */
  readonly bySize: readonly CurvePoint[];
  readonly bySpeed: readonly CurvePoint[];
}

/** Plans tried for a limit of the loss: the measured loss of one corrects the prediction for the next. */
const MOST_TRIES = 20;
/** Where each try calibrates the whole model. */
const MOST_CALIBRATED_TRIES = 3;
const CURVE_POINTS = 24;

/** @throws OptionError for a budget that cannot be kept */
export async function tune(input: TuneInput): Promise<Tuned> {
  const { units, fixedBytes } = input;
  const errors = await measureErrors(input);
  const times = await measureTimes(input, errors);
  const samples = await measureSamples(input, errors);
  const prediction = predictLosses(units, samples);
  const ratios = await measureRatios(input);
  const choices = makeChoices(input, errors, times, prediction, samples, ratios);
  const checked = await solveAndCheck(input, choices);
  const { picks, rivals, instead } = await settled(input, choices, checked.solved.picks);
  const measuredLoss = instead === undefined ? checked.measuredLoss : await measureLoss(input, choices, picks);
  const totals = (name: string, picks: Picks): Totals => totalsOf(name, choices, picks, fixedBytes);
  const policies = fixedPolicies.flatMap((policy) => {
    const picks = policyPicks(policy, choices);
    return picks ? [totals(policy, picks)] : [];
  });
  return {
    choices,
    picks,
    weights: weightsOf(choices, picks),
    plan: { ...totals('plan', picks), measuredLoss },
    solver: instead === undefined ? checked.solved.solver : `the policy ${instead}, than which no plan was faster`,
    rivals,
    instead,
    prediction,
    policies,
    bySize: curveOf(choices, fixedBytes, ({ bytes }) => bytes),
    bySpeed: choices.some(({ candidates }) => candidates[0]!.rowMs !== undefined)
      ? curveOf(choices, fixedBytes, speedCost)
      : [],
  };
}

/** Runs the fastest plan in turns with the fastest fixed policies. */
async function settled(input: TuneInput, choices: readonly Choices[], picks: Picks): Promise<Settled> {
  const { budget, fixedBytes, measures, signal, onProgress } = input;
  if (budget.kind !== 'speed') return { picks, rivals: [] };
  signal?.throwIfAborted();
  onProgress?.('race', 0, 1);
  return settle(picks, choices, fixedPolicies, budget, fixedBytes, (plans) =>
    measures.race(plans.map((plan) => weightsOf(choices, plan))),
  );
}

/** Loss with all units together; undefined if losses are not measured. */
async function measureLoss(
  { samples, store, measures }: Pick<TuneInput, 'samples' | 'store' | 'measures'>,
  choices: readonly Choices[],
  picks: Picks,
): Promise<number | undefined> {
  if (samples === 0) return undefined;
  const types = pickedOf(choices, picks).map(({ type }) => type);
  const compute = async (): Promise<number[]> => [await measures.planLoss(weightsOf(choices, picks))];
  return (await remembered(store, [`plan ${types.join(' ')}`], compute))[0];
}

/** Errors of each unit by type. */
async function measureErrors({ units, measures, store, onProgress, signal }: TuneInput): Promise<UnitErrors[][]> {
  const errors: UnitErrors[][] = [];
  for (const [index, unit] of units.entries()) {
    signal?.throwIfAborted();
    const keys = unit.types.flatMap((type) => [`weights ${unit.name} ${type}`, `output ${unit.name} ${type}`]);
    const values = await remembered(store, keys, async () => {
      const found = await measures.errors(unit, unit.types);
      return found.flatMap(({ weights, output = -1 }) => [weights, output]);
    });
    errors.push(
      unit.types.map((_, i) => {
        const [weights, output] = [values[2 * i]!, values[2 * i + 1]!];
        return { weights, output: output < 0 ? undefined : output };
      }),
    );
    onProgress?.('errors', index + 1, units.length);
  }
  return errors;
}

/** What calibration leaves of the output error, by unit and type; 1 without calibration. One unit of each kind is measured. */
async function measureRatios({ units, measures, store, onProgress }: TuneInput): Promise<number[][]> {
  const { calibratedRatios } = measures;
  if (calibratedRatios === undefined) return units.map(({ types }) => types.map(() => 1));
  const kinds = new Set(units.map(({ kind }) => kind));
  const typical = sampledUnits(units, kinds.size).map((index) => units[index]!);
  const keys = typical.flatMap(({ kind, types }) => types.map((type) => `calibrated ${kind} ${type}`));
  onProgress?.('calibration', 0, 1);
  const values = await remembered(store, keys, async () => (await calibratedRatios(typical)).flat());
  const byKey = new Map(keys.map((key, i) => [key, values[i]!]));
  return units.map(({ kind, types }) => types.map((type) => byKey.get(`calibrated ${kind} ${type}`) ?? 1));
}

/** Milliseconds of each unit by type: alone and per row of a chunk. */
async function measureTimes(
  { units, measures, store, timed = true, onProgress, signal }: TuneInput,
  errors: readonly (readonly UnitErrors[])[],
): Promise<(readonly [number, number] | undefined)[][]> {
  if (!timed) return units.map(({ types }) => types.map(() => undefined));
  const requests = new Map<string, { shape: readonly [number, number]; types: Set<Storage> }>();
  for (const [u, unit] of units.entries())
    for (const { shape, uses } of unit.matrices) {
      if (uses === 0) continue;
      const key = shape.join('x');
      const request = requests.get(key) ?? { shape, types: new Set() };
      for (const [i, type] of unit.types.entries())
        if (Number.isFinite(errors[u]![i]!.weights)) request.types.add(type);
      requests.set(key, request);
    }
  const list = [...requests.values()].map(({ shape, types }): ShapeRequest => ({ shape, types: [...types] }));
  const byKey = new Map<string, number>();
  for (const [done, request] of list.entries()) {
    signal?.throwIfAborted();
    onProgress?.('times', done, list.length);
    const { shape, types } = request;
    const keys = types.flatMap((type) => [`row ${shape.join('x')} ${type}`, `chunk ${shape.join('x')} ${type}`]);
    const values = await remembered(store, keys, async () =>
      (await measures.times(request)).flatMap(({ rowMs, chunkRowMs }) => [rowMs, chunkRowMs]),
    );
    for (const [i, key] of keys.entries()) byKey.set(key, values[i]!);
  }
  onProgress?.('times', list.length, list.length);
  const sum = (unit: Unit, type: Storage, how: string): number =>
    unit.matrices.reduce(
      (total, { shape, uses }) =>
        total + (uses === 0 ? 0 : uses * (byKey.get(`${how} ${shape.join('x')} ${type}`) ?? 0)),
      0,
    );
  return units.map((unit) => unit.types.map((type) => [sum(unit, type, 'row'), sum(unit, type, 'chunk')] as const));
}

/** The type that units are sampled with: coarse enough to be felt, quick to make. */
const sampleTypes: readonly Storage[] = ['q4_0', 'q4_k', 'q8_0', 'bf16', 'f16'];

async function measureSamples(
  { units, measures, store, samples: count, onProgress, signal }: TuneInput,
  errors: readonly (readonly UnitErrors[])[],
): Promise<Sample[]> {
  const chosen = sampledUnits(units, count);
  const samples: Sample[] = [];
  for (const [done, index] of chosen.entries()) {
    signal?.throwIfAborted();
    onProgress?.('samples', done, chosen.length);
    const unit = units[index]!;
    const type = sampleTypes.find((candidate) => {
      const at = unit.types.indexOf(candidate);
      return at >= 0 && candidate !== unit.stored && Number.isFinite(errors[index]![at]!.weights);
    });
    if (type === undefined) continue;
    const { weights, output } = errors[index]![unit.types.indexOf(type)]!;
    const storages = Object.fromEntries(unit.weights.map((name): [string, Storage] => [name, type]));
    const [loss] = await remembered(store, [`loss ${unit.name} ${type}`], async () => [await measures.loss(storages)]);
    samples.push({ unit: index, type, error: output ?? weights, loss: loss! });
  }
  onProgress?.('samples', chosen.length, chosen.length);
  return samples;
}

function makeChoices(
  { units, alignment }: TuneInput,
  errors: readonly (readonly UnitErrors[])[],
  times: readonly (readonly (readonly [number, number] | undefined)[])[],
  prediction: Prediction,
  samples: readonly Sample[],
  ratios: readonly (readonly number[])[],
): Choices[] {
  return units.map((unit, u) => {
    const candidates = unit.types.flatMap((type, t): Candidate[] => {
      const { weights: weightError, output } = errors[u]![t]!;
      const ratio = ratios[u]![t]!;
      const outputError = output === undefined ? undefined : output * ratio;
      if (!Number.isFinite(weightError)) return [];
      const measured = ratio === 1 ? samples.find((sample) => sample.unit === u && sample.type === type) : undefined;
      const [rowMs, chunkRowMs] = times[u]![t] ?? [];
      const loss = measured?.loss ?? prediction.loss(u, outputError ?? weightError);
      return [
        {
          type,
          bytes: unitBytes(unit, type, alignment),
          weightError,
          outputError,
          rowMs,
          chunkRowMs,
          loss: Math.max(0, loss),
          measured: measured !== undefined,
        },
      ];
    });
    return { unit, candidates };
  });
}

/** Solves, measures the plan, and where the loss is limited corrects the prediction until the limit is kept. */
async function solveAndCheck(
  input: TuneInput,
  choices: readonly Choices[],
): Promise<{ solved: Solved; measuredLoss: number | undefined }> {
  const { fixedBytes, budget, onProgress, signal } = input;
  const limit = budget.kind === 'size' ? undefined : budget.loss;
  const tries = input.measures.calibratedRatios ? MOST_CALIBRATED_TRIES : MOST_TRIES;
  let factor = 1;
  for (let attempt = 0; ; attempt++) {
    signal?.throwIfAborted();
    onProgress?.('check', attempt, attempt + 1);
    const asked = limit === undefined ? budget : { ...budget, loss: limit / factor };
    const solved = solve(choices, fixedBytes, asked as Budget);
    if ('least' in solved) throw unsolvable(budget, solved.least * (limit === undefined ? 1 : factor));
    const measuredLoss = await measureLoss(input, choices, solved.picks);
    onProgress?.('check', attempt + 1, attempt + 1);
    if (limit === undefined || measuredLoss === undefined || measuredLoss <= limit || attempt + 1 === tries)
      return { solved, measuredLoss };
    const predicted = pickedOf(choices, solved.picks).reduce((sum, { loss }) => sum + loss, 0);
    factor = Math.max(measuredLoss / Math.max(predicted, Number.MIN_VALUE), factor * (attempt < 5 ? 1.1 : 4));
  }
}

function unsolvable(budget: Budget, least: number): OptionError {
  if (budget.kind === 'loss' || budget.bytes === undefined) {
    const what = `at least ${least.toPrecision(3)}, the loss that is predicted with the largest storages`;
    return new OptionError('budget', what, budget.kind === 'size' ? budget.bytes : budget.loss);
  }
  return new OptionError(
    'budget',
    `at least ${(Math.ceil(least / 1e4) / 100).toFixed(2)} MB, the smallest file that Lanewise can write`,
    `${(budget.bytes / 1e6).toFixed(2)} MB`,
  );
}

function totalsOf(name: string, choices: readonly Choices[], picks: Picks, fixedBytes: number): Totals {
  const picked = pickedOf(choices, picks);
  const sum = (of: (candidate: Candidate) => number): number =>
    picked.reduce((total, candidate) => total + of(candidate), 0);
  return {
    name,
    bytes: fixedBytes + sum(({ bytes }) => bytes),
    rowMs: sum(({ rowMs = 0 }) => rowMs),
    chunkRowMs: sum(({ chunkRowMs = 0 }) => chunkRowMs),
    predictedLoss: sum(({ loss }) => loss),
  };
}

function curveOf(
  choices: readonly Choices[],
  fixedBytes: number,
  weight: (candidate: Candidate) => number,
): CurvePoint[] {
  const options = choices.map(({ candidates }) =>
    candidates.map((candidate) => ({ cost: candidate.loss, weight: weight(candidate) })),
  );
  return new Frontier(options).curve(CURVE_POINTS).map(({ picks }) => {
    const { bytes, rowMs, predictedLoss } = totalsOf('', choices, picks, fixedBytes);
    return { bytes, rowMs, loss: predictedLoss };
  });
}
