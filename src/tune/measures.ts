/** What tuning measures, and where results are kept between runs. Tests replace the measurements. */
import type { Storage } from '../quant/storage.ts';
import type { Unit } from './unit.ts';

/** Times of one matrix in milliseconds per row: alone, and in a chunk of rows. */
export interface MatrixTimes {
  readonly rowMs: number;
  readonly chunkRowMs: number;
}

export interface ShapeRequest {
  /** [out, in] */
  readonly shape: readonly [number, number];
  readonly types: readonly Storage[];
}

export interface UnitErrors {
  /** Squared error of the weights, relative to their squares. */
  readonly weights: number;
  /** Squared error of the output on the text, relative to its squares; includes the quantization of its inputs. */
  readonly output?: number | undefined;
}

export interface Measures {
  /** Errors of a unit for each type. Infinity for a type that cannot hold the values. */
  errors(unit: Unit, types: readonly Storage[]): Promise<readonly UnitErrors[]>;
  /** Times by type. */
  times(request: ShapeRequest): Promise<readonly MatrixTimes[]>;
  /** Loss of the model with these weights in these storages and all others as in the file. */
  loss(weights: Readonly<Record<string, Storage>>): Promise<number>;
  /** Loss of the model as a plan stores it, all units together. */
  planLoss(weights: Readonly<Record<string, Storage>>): Promise<number>;
  /** Output error after calibration by the error after rounding, by unit, then by type; undefined: weights are rounded. */
  readonly calibratedRatios?: (units: readonly Unit[]) => Promise<readonly (readonly number[])[]>;
  /** Milliseconds of a decode step with the weights of each plan, run in turns: by plan, then by turn. */
  race(plans: readonly Readonly<Record<string, Storage>>[]): Promise<readonly (readonly number[])[]>;
}

/** Results of earlier runs by name. */
export interface Store {
  get(key: string): number | undefined;
  /** Names that are not equal to an earlier one are added. */
  set(key: string, value: number): void;
}

/** Remembers results for one run. */
export function memoryStore(): Store {
  const known = new Map<string, number>();
  return { get: (key) => known.get(key), set: (key, value) => void known.set(key, value) };
}

/** Numbers by name, computed together if one of them is not known yet. */
export async function remembered(
  store: Store,
  keys: readonly string[],
  compute: () => Promise<readonly number[]>,
): Promise<readonly number[]> {
  const known = keys.map((key) => store.get(key));
  if (known.every((value) => value !== undefined)) return known as number[];
  const values = await compute();
  for (const [i, key] of keys.entries()) store.set(key, values[i]!);
  return values;
}
