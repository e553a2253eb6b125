/**
 * Storage plans: the storage of each weight by its name, as `lanewise tune` writes them and people edit them.
 *
 *   { "version": 1, "model": { "type": "gpt2", "layers": 12, "dim": 768, "vocab": 50257 },
 *     "weights": { "layers.0.attention.q": "q8_0", "output": "q4_k" } }
 *
 * Weights that a plan does not name stay as the file has them.
 */
import { FormatError, OptionError } from '../errors.ts';
import type { PlannedWeight } from '../plan/step.ts';
import { type Storage, storageLayout } from '../quant/storage.ts';

const VERSION = 1;

/** The model that a plan was made for. */
export interface PlannedModel {
  readonly type: string;
  readonly layers: number;
  readonly dim: number;
  readonly vocab: number;
}

export interface StoragePlan {
  readonly version: typeof VERSION;
  /** Checked when the plan is used; without it only the names are. */
  readonly model?: PlannedModel;
  /** Storage of matrices, by the names that `lanewise plan --json` lists. */
  readonly weights: Readonly<Record<string, Storage>>;
  /** Why each weight is stored so: a sentence, and numbers by name. */
  readonly explain?: Readonly<Record<string, PlanReason>>;
  /** How the plan was found: budget, predicted and measured losses, machine. For people and programs; not used. */
  readonly tuned?: Readonly<Record<string, unknown>>;
  /** The plan's name in messages and tables. Default: `plan`. */
  readonly name?: string;
}

export interface PlanReason {
  readonly reason: string;
  readonly [figure: string]: string | number;
}

/** How weights are stored: the text of a policy (see policy.ts) or a plan. */
export type Quantize = string | StoragePlan;

/** Name of a policy or plan in tables and messages. */
export const quantizeText = (quantize: Quantize): string =>
  typeof quantize === 'string' ? quantize : (quantize.name ?? 'plan');

/** @throws OptionError for an object that is not a plan */
export function checkStoragePlan(value: unknown, option = 'quantize'): StoragePlan {
  const problem = problemOf(value);
  if (problem !== undefined)
    throw new OptionError(option, `a storage policy or a plan, ${problem.expected}`, problem.found);
  return value as StoragePlan;
}

/** @throws OptionError for a plan that names other weights than the model's matrices */
export function checkNames({ weights }: StoragePlan, planned: readonly PlannedWeight[]): void {
  const matrices = new Set(planned.flatMap(({ name, shape }) => (shape.length === 2 ? [name] : [])));
  const unknown = Object.keys(weights).filter((name) => !matrices.has(name));
  if (unknown.length === 0) return;
  const some = [...matrices].slice(0, 3).join(', ');
  const what = `a plan whose names are matrices of this model (${some}, ...; docs/plans.md says how to list them)`;
  throw new OptionError('quantize', what, unknown.slice(0, 5).join(', ').slice(0, 200));
}

/** Reads the text of a plan file. @throws FormatError */
export function parseStoragePlan(text: string, file: string): StoragePlan {
  const bad = (what: string): FormatError => new FormatError('InvalidPlan', file, what);
  const expected = 'expected a storage plan {"version": 1, "model": ..., "weights": {NAME: STORAGE}}';
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw bad(`${expected}, found no JSON: ${(error as Error).message}`);
  }
  const { version } = (json ?? {}) as { version?: unknown };
  if (typeof version === 'number' && version !== VERSION)
    throw new FormatError('UnknownVersion', file, `expected version ${VERSION}, found ${version}: make the plan anew`);
  const problem = problemOf(json);
  if (problem !== undefined)
    throw bad(`expected a plan ${problem.expected}, found ${JSON.stringify(problem.found)?.slice(0, 80)}`);
  return { ...(json as StoragePlan), name: file };
}

/** The text of a plan file. */
export function formatStoragePlan({ name: _, ...plan }: StoragePlan): string {
  return `${JSON.stringify(plan, null, 2)}\n`;
}

interface Problem {
  readonly expected: string;
  readonly found: unknown;
}

function problemOf(value: unknown): Problem | undefined {
  if (!isRecord(value)) return { expected: 'an object', found: value };
  const { version, model, weights, explain, tuned, name } = value;
  if (version !== VERSION) return { expected: `with version ${VERSION}`, found: version };
  if (!isRecord(weights)) return { expected: 'with an object weights', found: weights };
  for (const [weight, storage] of Object.entries(weights)) {
    if (typeof storage !== 'string' || !Object.hasOwn(storageLayout, storage)) {
      const known = Object.keys(storageLayout).join(', ');
      return { expected: `whose weights["${weight.slice(0, 80)}"] is one of ${known}`, found: storage };
    }
  }
  if (model !== undefined) {
    if (!isRecord(model)) return { expected: 'whose model is an object', found: model };
    if (typeof model.type !== 'string') return { expected: 'whose model.type is a string', found: model.type };
    for (const key of ['layers', 'dim', 'vocab'])
      if (!Number.isSafeInteger(model[key])) return { expected: `whose model.${key} is an integer`, found: model[key] };
  }
  if (explain !== undefined) {
    if (!isRecord(explain)) return { expected: 'whose explain is an object', found: explain };
    for (const [weight, reason] of Object.entries(explain))
      if (!isRecord(reason) || typeof reason.reason !== 'string')
        return { expected: `whose explain["${weight.slice(0, 80)}"] has a text reason`, found: reason };
  }
  if (tuned !== undefined && !isRecord(tuned)) return { expected: 'whose tuned is an object', found: tuned };
  if (name !== undefined && typeof name !== 'string') return { expected: 'whose name is a string', found: name };
  return undefined;
}

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
