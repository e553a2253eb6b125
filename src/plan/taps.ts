/** Adds taps to a finished plan: copies of rows, kept until the next forward for inspection, calibration and comparison. */
import { LanewiseError, OptionError } from '../errors.ts';
import { buffersOf } from './memory.ts';
import type { BufferId, LinearInput, Plan, RowBuffer, Step, StepOf, WeightId } from './step.ts';

export interface TapPoint {
  /** Name by which `Results.tap` finds the copy. */
  readonly name: string;
  /** Index of the step before or after which the buffer is copied. */
  readonly step: number;
  readonly when: 'before' | 'after';
  readonly buffer: BufferId;
}

/**
 * The rows of each forward that a loaded model keeps: `hidden` the hidden states of the layers, `inputs` the inputs of all
 * linear layers, `steps` the results of the steps in a scope (`layer[1]`; empty: of all steps).
 */
export type TapChoice = 'hidden' | 'inputs' | { readonly steps: string };

export function tapped(plan: Plan, choice: TapChoice | undefined): Plan {
  if (choice === undefined) return plan;
  if (choice === 'hidden') return withTaps(plan, hiddenStates(plan));
  if (choice === 'inputs') return withLinearInputs(plan);
  return withTaps(plan, stepResults(plan, choice.steps));
}

/** The plan with a copy of a buffer at every point. @throws OptionError for a name given twice */
export function withTaps(plan: Plan, points: readonly TapPoint[]): Plan {
  const extended = new Extension(plan);
  for (const point of points) extended.tap(point);
  return extended.plan();
}

/**
 * Hidden states [T, dim]: `hidden.0` is read by the first layer, `hidden.L` is the result of the last of L layers. Of a decoder
 * also `final` [W, dim], which the output head reads.
 */
export function hiddenStates({ steps, output }: Plan): TapPoint[] {
  const layers = steps.map(({ scope }) => layerOf(scope) ?? -1);
  const count = layers.reduce((most, layer) => Math.max(most, layer), -1) + 1;
  const before = (name: string, step: number): TapPoint => {
    return { name, step, when: 'before', buffer: mainInput(steps[step]!) };
  };
  const points = Array.from({ length: count }, (_, layer) => before(`hidden.${layer}`, layers.indexOf(layer)));
  const last = layers.lastIndexOf(count - 1);
  const name = `hidden.${count}`;
  if (last + 1 < steps.length) points.push(before(name, last + 1));
  else points.push({ name, step: last, when: 'after', buffer: output });
  const head = steps.findIndex(({ op, scope }) => op === 'matmul' && scope === 'projection');
  if (head >= 0) points.push(before('final', head));
  return points;
}

/** The layer of a scope such as `layer[3].attention`. */
export function layerOf(scope: string): number | undefined {
  const found = /^layer\[(\d+)\]/.exec(scope)?.[1];
  return found === undefined ? undefined : Number(found);
}

/** The buffer of a tap. @throws LanewiseError UnknownTap */
export function tapBuffer({ steps, buffers }: Plan, name: string): RowBuffer {
  const step = steps.find((candidate) => candidate.op === 'tap' && candidate.name === name);
  if (step?.op === 'tap') return buffers[step.out]!;
  throw new LanewiseError('UnknownTap', `the model keeps no rows named ${name}; load it with taps`);
}

/** Whether a step's scope is a scope or one within it; the empty scope holds all. */
export const inScope = (own: string, scope: string): boolean =>
  scope === '' || own === scope || own.startsWith(`${scope}.`);

/** The first buffer that a step reads. */
const mainInput = (step: Step): BufferId => buffersOf(step)[0]!;

/** The results of the steps within a scope: `step.12` is the result of step 12 of this plan. */
export function stepResults({ steps }: Plan, scope = ''): TapPoint[] {
  return steps.flatMap((step, index): TapPoint[] =>
    'out' in step && step.op !== 'tap' && step.op !== 'summarize' && inScope(step.scope, scope)
      ? [{ name: `step.${index}`, step: index, when: 'after', buffer: step.out }]
      : [],
  );
}

/**
 * The plan with taps of the inputs of matrices; its `inputs` give the tap of each, by the weight's name. Matrices that read the
 * same rows share a tap. The inputs of the experts' down matrices are computed for all rows, as a forward computes them only
 * for the rows that chose the expert, and keeps none: with many experts, choose a few at a time.
 */
export function withLinearInputs(plan: Plan, chosen: (weight: string) => boolean = () => true): Plan {
  const extended = new Extension(plan);
  const inputs = new Map<string, LinearInput>();
  const nameOf = (id: WeightId): string => plan.weights[id]!.name;
  /** Times each buffer has been written so far. */
  const versions = new Map<BufferId, number>();
  /** Names of taps by buffer and version. */
  const taps = new Map<string, string>();
  const inputAt = (step: number, buffer: BufferId, name: string): Omit<LinearInput, 'expert'> => {
    const key = `${buffer} ${versions.get(buffer) ?? 0}`;
    const tap = taps.get(key) ?? name;
    if (!taps.has(key)) extended.tap({ name, step, when: 'before', buffer });
    taps.set(key, tap);
    const { width, rows } = plan.buffers[buffer]!;
    return { tap, width, rows };
  };
  const addExperts = (step: StepOf<'experts'>, at: number): void => {
    for (const index of step.gate.keys()) {
      const ids = [step.gate[index]!, step.up[index]!, step.down[index]!];
      const [gate, up, down] = ids.map(nameOf) as [string, string, string];
      const wanted = [gate, up].filter(chosen);
      if (wanted.length === 0 && !chosen(down)) continue;
      const router = inputAt(at, step.router, `${step.scope}.router`).tap;
      const expert = { index, of: step.gate.length, top: step.top, router };
      for (const name of wanted) inputs.set(name, { ...inputAt(at, step.x, name), expert });
      if (chosen(down)) inputs.set(down, { ...extended.expert(step, at, index, down), expert });
    }
  };
  for (const [at, step] of plan.steps.entries()) {
    if (step.op === 'experts') addExperts(step, at);
    if (step.op === 'matmul' && chosen(nameOf(step.weight))) {
      const name = nameOf(step.weight);
      if (!inputs.has(name)) inputs.set(name, inputAt(at, step.x, name));
    }
    if ('out' in step) versions.set(step.out, (versions.get(step.out) ?? 0) + 1);
  }
  return { ...extended.plan(), inputs };
}

/**
 * The rows of a tap that are inputs of an expert: those whose router logits put it among the `top` largest, of equal ones the
 * lowest numbers.
 * @param router the tap of the router's logits. [T, of]
 */
export function rowsOfExpert(router: Float32Array, { index, of, top }: NonNullable<LinearInput['expert']>): number[] {
  return Array.from({ length: router.length / of }, (_, row) => row).filter((row) => {
    const logits = router.subarray(row * of, (row + 1) * of);
    const own = logits[index]!;
    let ahead = 0;
    for (const [other, logit] of logits.entries()) if (logit > own || (logit === own && other < index)) ahead++;
    return ahead < top;
  });
}

/** A plan to which steps and buffers are added. Steps are counted as in the plan as it was. */
class Extension {
  readonly #base: Plan;
  readonly #buffers: RowBuffer[];
  readonly #before = new Map<number, Step[]>();
  readonly #after = new Map<number, Step[]>();
  readonly #names: Set<string>;
  /** Buffers that all experts of a step work in. */
  readonly #work = new Map<number, readonly [gate: BufferId, up: BufferId, inner: BufferId]>();

  constructor(plan: Plan) {
    this.#base = plan;
    this.#buffers = [...plan.buffers];
    this.#names = new Set(plan.steps.flatMap((step) => (step.op === 'tap' ? [step.name] : [])));
  }

  tap({ name, step, when, buffer }: TapPoint): void {
    this.#add(step, when, this.#copy(name, step, buffer));
  }

  /** Computes and taps the input of an expert's down matrix for all rows. */
  expert(step: StepOf<'experts'>, at: number, index: number, name: string): Omit<LinearInput, 'expert'> {
    const { scope, kind, x } = step;
    const { rows } = this.#base.buffers[x]!;
    const [gate, up] = [step.gate[index]!, step.up[index]!];
    const { width } = this.#base.buffers[step.work.activated]!;
    const work = this.#work.get(at) ?? [
      this.#buffer(name, width, rows),
      this.#buffer(name, width, rows),
      this.#buffer(name, width, rows),
    ];
    this.#work.set(at, work);
    const [gated, upper, inner] = work;
    this.#add(at, 'before', { op: 'matmul', scope, x, weight: gate, add: false, out: gated });
    this.#add(at, 'before', { op: 'matmul', scope, x, weight: up, add: false, out: upper });
    this.#add(at, 'before', { op: 'activate', scope, kind, x: gated, up: upper, out: inner });
    this.#add(at, 'before', this.#copy(name, at, inner));
    return { tap: name, width, rows };
  }

  plan(): Plan {
    const steps = this.#base.steps.flatMap((step, at) => [
      ...(this.#before.get(at) ?? []),
      step,
      ...(this.#after.get(at) ?? []),
    ]);
    return { ...this.#base, buffers: this.#buffers, steps };
  }

  /** @throws OptionError for a name given twice */
  #copy(name: string, step: number, buffer: BufferId): Step {
    if (this.#names.has(name)) throw new OptionError('taps', 'of different names', name);
    this.#names.add(name);
    const { width, rows } = this.#buffers[buffer]!;
    const { scope } = this.#base.steps[step]!;
    return { op: 'tap', scope, name, x: buffer, out: this.#buffer(name, width, rows) };
  }

  #buffer(name: string, width: number, rows: RowBuffer['rows']): BufferId {
    return this.#buffers.push({ name, width, rows }) - 1;
  }

  #add(step: number, when: TapPoint['when'], added: Step): void {
    const lists = when === 'before' ? this.#before : this.#after;
    lists.set(step, [...(lists.get(step) ?? []), added]);
  }
}
