/** Cuts a plan in front of its linear layers, so that each piece can run over all texts before the next begins. */
import { buffersOf } from '../plan/memory.ts';
import type { BufferId, Plan, PlannedWeight, RowBuffer, Step, StepOf, WeightId } from '../plan/step.ts';

/** Linear layers with the same input. */
export interface LayerGroup {
  /** Index of the first of their steps. */
  readonly step: number;
  readonly input: BufferId;
  readonly weights: readonly WeightId[];
  /** Set for a mixture of experts, whose matrices have inputs of their own. */
  readonly experts?: StepOf<'experts'>;
}

/** Steps `from` to `to`; `groups` begin there, the first at `from` (except in front of the first linear layer). */
export interface Segment {
  readonly from: number;
  readonly to: number;
  readonly groups: readonly LayerGroup[];
}

/** The linear layers of a plan, by input, in the order of its steps. */
export function layerGroups({ steps }: Plan): LayerGroup[] {
  const groups: LayerGroup[] = [];
  for (const [index, step] of steps.entries()) {
    if (step.op === 'experts') {
      const weights = [...step.gate, ...step.up, ...step.down];
      groups.push({ step: index, input: step.x, weights, experts: step });
    } else if (step.op === 'matmul') {
      const last = groups.at(-1);
      const joins =
        last !== undefined && !last.experts && last.input === step.x && isUnwritten(steps, step.x, last.step, index);
      if (joins) groups[groups.length - 1] = { ...last, weights: [...last.weights, step.weight] };
      else groups.push({ step: index, input: step.x, weights: [step.weight] });
    }
  }
  return groups;
}

const isUnwritten = (steps: readonly Step[], buffer: BufferId, from: number, to: number): boolean =>
  steps.slice(from, to).every((step) => !writesOf(step).includes(buffer));

/** Segments from the first step to the last group that `wanted` accepts; a cache is never cut. */
export function segmentsOf(plan: Plan, wanted: (group: LayerGroup) => boolean): Segment[] {
  const groups = layerGroups(plan).filter(wanted);
  const cuts = groups.filter(({ step }) => mayCut(plan.steps, step));
  const starts = [0, ...cuts.map(({ step }) => step)].filter((start, i, all) => i === 0 || start > all[i - 1]!);
  const last = groups.at(-1)?.step ?? 0;
  return starts.map((from, i) => {
    const to = starts[i + 1] ?? last;
    const own = groups.filter(({ step }) => step >= from && (step < to || i === starts.length - 1));
    return { from, to, groups: own };
  });
}

/** Whether no cache that is filled before the step is read from it on. */
function mayCut(steps: readonly Step[], at: number): boolean {
  const filled = new Set(steps.slice(0, at).flatMap((step) => (step.op === 'appendKv' ? [step.cache] : [])));
  return steps.slice(at).every((step) => step.op !== 'attention' || !filled.has(step.cache));
}

function writesOf(step: Step): BufferId[] {
  if (step.op === 'experts') return [step.out, ...Object.values(step.work)];
  return 'out' in step ? [step.out] : [];
}

function readsOf(step: Step): BufferId[] {
  const adds =
    step.op === 'scale' || step.op === 'cap' || step.op === 'experts' || ('add' in step && step.add === true);
  if (step.op === 'experts') return [step.x, step.router, step.out];
  const out = 'out' in step ? step.out : undefined;
  const inputs = buffersOf(step).filter((id) => id !== out || adds);
  return 'x' in step && step.x === out ? [...inputs, step.x] : inputs;
}

/** Buffers written before step `at` that it or a later step reads. */
export function liveAt({ steps }: Plan, at: number): BufferId[] {
  const written = new Set(steps.slice(0, at).flatMap(writesOf));
  const live = new Set<BufferId>();
  const over = new Set<BufferId>();
  for (const step of steps.slice(at)) {
    for (const id of readsOf(step)) if (written.has(id) && !over.has(id)) live.add(id);
    for (const id of writesOf(step)) if (!live.has(id)) over.add(id);
  }
  return [...live];
}

/** A segment as a plan of its own. */
export interface SegmentPlan {
  readonly plan: Plan;
  /** Names of taps by buffers of the whole plan. */
  readonly taps: ReadonlyMap<BufferId, string>;
}

/** Name of the tensor that holds a buffer's rows. */
export const inputTensor = (id: BufferId): string => `input.${id}`;

export interface SegmentPlanOptions {
  /** Rows of a table: all rows of the texts. */
  readonly rows: number;
  /** The weight as it is to be stored. */
  weight(id: WeightId): PlannedWeight;
}

/**
 * Steps `from` to `to` as a plan: buffers that earlier steps wrote come from tables, by the rows' type ids; `outputs` are kept
 * as taps.
 */
export function segmentPlan(
  whole: Plan,
  { from, to }: Pick<Segment, 'from' | 'to'>,
  outputs: readonly BufferId[],
  { rows, weight }: SegmentPlanOptions,
): SegmentPlan {
  const own = whole.steps.slice(from, to);
  const buffers: RowBuffer[] = [];
  const weights: PlannedWeight[] = [];
  const caches: number[] = [];
  const numbers = new Map<BufferId, BufferId>();
  const weightNumbers = new Map<WeightId, WeightId>();
  const number = (id: BufferId): BufferId => {
    const known = numbers.get(id) ?? buffers.push(whole.buffers[id]!) - 1;
    numbers.set(id, known);
    return known;
  };
  const weightNumber = (id: WeightId): WeightId => {
    const known = weightNumbers.get(id) ?? weights.push({ ...weight(id), shares: undefined }) - 1;
    weightNumbers.set(id, known);
    return known;
  };
  const inputs = liveAt(whole, from).filter(
    (id) => outputs.includes(id) || own.some((step) => readsOf(step).includes(id)),
  );
  const steps: Step[] = inputs.map((id) => {
    const { width } = whole.buffers[id]!;
    const table = weights.push(tableOf(inputTensor(id), rows, width)) - 1;
    return { op: 'embed', scope: 'input', table, index: 'type', scale: 1, add: false, out: number(id) };
  });
  for (const step of own) {
    const moved = movedStep(step, number, weightNumber);
    if (moved.op !== 'appendKv' && moved.op !== 'attention') steps.push(moved);
    else {
      if (!caches.includes(moved.cache)) caches.push(moved.cache);
      steps.push({ ...moved, cache: caches.indexOf(moved.cache) });
    }
  }
  const taps = new Map<BufferId, string>();
  let output = buffers.length - 1;
  for (const id of outputs) {
    const name = `output.${id}`;
    output = buffers.push({ ...whole.buffers[id]!, name }) - 1;
    steps.push({ op: 'tap', scope: 'output', name, x: number(id), out: output });
    taps.set(id, name);
  }
  const plan: Plan = {
    ...whole,
    buffers,
    weights,
    caches: caches.map((id) => whole.caches[id]!),
    steps,
    output,
    summary: undefined,
  };
  return { plan, taps };
}

const tableOf = (name: string, rows: number, width: number): PlannedWeight => ({
  name,
  role: 'embedding',
  shape: [rows, width],
  source: { tensor: name, transposed: false, first: 0, plus: 0 },
  storage: 'f32',
  linear: false,
  reason: 'rows computed before',
  bytes: 4 * rows * width,
});

function movedStep(step: Step, buffer: (id: BufferId) => BufferId, weight: (id: WeightId) => WeightId): Step {
  const bufferKeys = ['x', 'out', 'up', 'base', 'k', 'v', 'q', 'router'];
  const weightKeys = ['table', 'weight', 'bias', 'factors'];
  const moved: Record<string, unknown> = { ...step };
  for (const [key, value] of Object.entries(step)) {
    if (typeof value === 'number' && weightKeys.includes(key) && step.op !== 'rope') moved[key] = weight(value);
    else if (typeof value === 'number' && bufferKeys.includes(key)) moved[key] = buffer(value);
  }
  if (step.op === 'experts') {
    for (const key of ['gate', 'up', 'down'] as const) moved[key] = step[key].map(weight);
    moved.work = Object.fromEntries(Object.entries(step.work).map(([key, id]) => [key, buffer(id)]));
  }
  return moved as unknown as Step;
}
