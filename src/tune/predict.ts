/**
 * Predicts what a unit's storage costs the model from a few measurements. Near the original weights the divergence of the
 * logits grows with the square of a change, so of one unit loss = sensitivity * relative squared error of its output. The
 * sensitivity is measured for some units; between layers of the same kind it is interpolated, in its logarithm.
 */
import type { Storage } from '../quant/storage.ts';
import type { Unit } from './unit.ts';

/** The loss of the model with one unit alone in another storage. */
export interface Sample {
  /** Index of the unit. */
  readonly unit: number;
  readonly type: Storage;
  /** Relative squared error of the unit's output, or of its weights. */
  readonly error: number;
  readonly loss: number;
}

export interface Prediction {
  loss(unit: number, error: number): number;
  /** Typical factor between prediction and measurement, of each sample predicted from the others; undefined below 3. */
  readonly typicalFactor: number | undefined;
  /** Number of samples. */
  readonly samples: number;
}

/** Below this a sample says nothing: the noise of sums in f32. */
const LEAST_LOSS = 1e-9;

export function predictLosses(units: readonly Unit[], samples: readonly Sample[]): Prediction {
  const used = samples.filter(({ error, loss }) => error > 0 && loss > LEAST_LOSS && Number.isFinite(error + loss));
  const logs = used.map(({ unit, error, loss }) => ({ unit, log: Math.log(loss / error) }));
  const misses = logs.map(({ unit, log }, i) => Math.abs(log - sensitivity(units, logs.toSpliced(i, 1), unit)));
  const known = new Map<number, number>();
  return {
    loss(unit, error) {
      if (error === 0) return 0;
      const log = known.get(unit) ?? sensitivity(units, logs, unit);
      known.set(unit, log);
      return Math.exp(log) * error;
    },
    typicalFactor: used.length < 3 ? undefined : Math.exp(Math.sqrt(mean(misses.map((miss) => miss ** 2)))),
    samples: used.length,
  };
}

interface LogSample {
  readonly unit: number;
  /** Logarithm of the sensitivity. */
  readonly log: number;
}

/** Logarithm of a unit's sensitivity: of its kind by layer, else of its role, else of all; 0 without samples. */
function sensitivity(units: readonly Unit[], samples: readonly LogSample[], unit: number): number {
  const { kind, layer, matrices } = units[unit]!;
  const alike = samples.filter((sample) => units[sample.unit]!.kind === kind);
  if (alike.length > 0 && layer !== undefined) return interpolated(byLayer(units, alike), layer);
  if (alike.length > 0) return mean(alike.map(({ log }) => log));
  const role = (at: number): string => units[at]!.matrices[0]!.role;
  const related = samples.filter((sample) => role(sample.unit) === matrices[0]!.role);
  const some = related.length > 0 ? related : samples;
  return some.length > 0 ? mean(some.map(({ log }) => log)) : 0;
}

/** Mean of the samples of each layer, by rising layer. */
function byLayer(units: readonly Unit[], samples: readonly LogSample[]): (readonly [number, number])[] {
  const layers = new Map<number, number[]>();
  for (const { unit, log } of samples) {
    const { layer = 0 } = units[unit]!;
    layers.set(layer, [...(layers.get(layer) ?? []), log]);
  }
  return [...layers].map(([layer, logs]) => [layer, mean(logs)] as const).sort(([a], [b]) => a - b);
}

function interpolated(points: readonly (readonly [number, number])[], at: number): number {
  const after = points.findIndex(([layer]) => layer >= at);
  if (after === 0) return points[0]![1];
  if (after < 0) return points.at(-1)![1];
  const [[x0, y0], [x1, y1]] = [points[after - 1]!, points[after]!];
  return y0 + ((y1 - y0) * (at - x0)) / (x1 - x0);
}

const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;

/**
 * The units whose loss is measured: of each kind the first layer, the last and some between, kinds with most values first,
 * until there are `count`.
 */
export function sampledUnits(units: readonly Unit[], count: number): number[] {
  const kinds = new Map<string, number[]>();
  for (const [index, { kind }] of units.entries()) kinds.set(kind, [...(kinds.get(kind) ?? []), index]);
  const values = (index: number): number =>
    units[index]!.matrices.reduce((sum, { shape: [out, inputs] }) => sum + out * inputs, 0);
  const groups = [...kinds.values()].sort((a, b) => values(b[0]!) * b.length - values(a[0]!) * a.length);
  const chosen: number[] = [];
  for (let round = 0; chosen.length < Math.min(count, units.length); round++)
    for (const group of groups) {
      const place = placeOf(round, group.length);
      if (place !== undefined && chosen.length < count) chosen.push(group[place]!);
    }
  return chosen;
}

/** The position of turn `round` among `length`: middle, first, last, then the middles of what is between. */
function placeOf(round: number, length: number): number | undefined {
  return order(length)[round];
}

const orders = new Map<number, readonly number[]>();

function order(length: number): readonly number[] {
  const known = orders.get(length);
  if (known) return known;
  const taken: number[] = [];
  const add = (place: number): void => void (taken.includes(place) || taken.push(place));
  add((length - 1) >> 1);
  add(0);
  add(length - 1);
  while (taken.length < length) {
    const sorted = [...taken].sort((a, b) => a - b);
    let [widest, at] = [0, 0];
    for (let i = 0; i + 1 < sorted.length; i++) {
      const gap = sorted[i + 1]! - sorted[i]!;
      if (gap > widest) [widest, at] = [gap, sorted[i]! + (gap >> 1)];
    }
    add(at);
  }
  orders.set(length, taken);
  return taken;
}
