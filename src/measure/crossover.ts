/** Measures which storage type is fastest by the dimension of a layer, and what that means for the layers of models. */
import type { ModelDescription } from '../node.ts';
import type { Storage } from '../quant/storage.ts';
import { findCrossings, type PairCrossing } from './crossing.ts';
import type { Shape, ShapeOptions, ShapeTimes, TimeShapes, WeightPlace } from './shapes.ts';
import { median } from './statistics.ts';

/** Layers of one shape and kind in a model. */
export interface ModelLayers {
  readonly model: string;
  /** `attention q/k/v/o`, `output` */
  readonly name: string;
  readonly shape: Shape;
  /** How often a forward multiplies by such a layer; a fraction of the experts that a row does not choose. */
  readonly count: number;
  /** Computed for one row of a prompt. */
  readonly output: boolean;
}

export interface CrossoverOptions extends Omit<ShapeOptions, 'shapes'> {
  /** Dimensions of square layers. */
  readonly dims: readonly number[];
  /** Further shapes. */
  readonly shapes: readonly Shape[];
  readonly models: readonly ModelLayers[];
}

/** One row count and place of the weights. */
export interface Circumstances {
  readonly rows: number;
  readonly from: WeightPlace;
}

export interface ComparedTypes extends Circumstances {
  readonly base: Storage;
  readonly other: Storage;
  /** Over square layers. */
  readonly result: PairCrossing;
}

export interface Crossover {
  readonly options: Pick<CrossoverOptions, 'types' | 'dims' | 'shapes' | 'models' | 'rows' | 'from'>;
  readonly turns: number;
  readonly times: readonly ShapeTimes[];
  /** Every two types, the earlier one of the list as base, in all circumstances. */
  readonly pairs: readonly ComparedTypes[];
}

export async function measureCrossover(options: CrossoverOptions, time: TimeShapes): Promise<Crossover> {
  const { types, dims, shapes, models, rows, from } = options;
  const all = [...dims.map((dim): Shape => [dim, dim]), ...shapes, ...models.map(({ shape }) => shape)];
  const times = await time({ ...options, shapes: all });
  const pairs = circumstancesOf(options).flatMap((circumstances) =>
    types.flatMap((base, index) =>
      types.slice(index + 1).flatMap((other): ComparedTypes[] => {
        const result = compareTypes(times, dims, base, other, circumstances);
        return result ? [{ ...circumstances, base, other, result }] : [];
      }),
    ),
  );
  return { options: { types, dims, shapes, models, rows, from }, turns: times[0]?.ms.length ?? 0, times, pairs };
}

export const circumstancesOf = ({ rows, from }: Pick<CrossoverOptions, 'rows' | 'from'>): Circumstances[] =>
  from.flatMap((place) => rows.map((count) => ({ rows: count, from: place })));

export function timesOf(
  times: readonly ShapeTimes[],
  type: Storage,
  [out, inputs]: Shape,
  { rows, from }: Circumstances,
): ShapeTimes | undefined {
  return times.find(
    (one) =>
      one.type === type && one.rows === rows && one.from === from && one.shape[0] === out && one.shape[1] === inputs,
  );
}

/** Undefined if no dimension has both types. */
function compareTypes(
  times: readonly ShapeTimes[],
  dims: readonly number[],
  base: Storage,
  other: Storage,
  circumstances: Circumstances,
): PairCrossing | undefined {
  const pairs = dims.flatMap((dim) => {
    const [a, b] = [base, other].map((type) => timesOf(times, type, [dim, dim], circumstances));
    return a && b ? [{ dim, base: a.ms, other: b.ms }] : [];
  });
  return pairs.length > 0 ? findCrossings(pairs) : undefined;
}

/** The type with the smallest median time of a shape. */
export function fastestOf(
  times: readonly ShapeTimes[],
  types: readonly Storage[],
  shape: Shape,
  circumstances: Circumstances,
): ShapeTimes | undefined {
  const found = types.flatMap((type) => timesOf(times, type, shape, circumstances) ?? []);
  return found.toSorted((a, b) => median(a.ms) - median(b.ms))[0];
}

/** Chooses the type of a layer, as a storage policy does. */
export interface Rule {
  readonly name: string;
  typeOf(shape: Shape, circumstances: Circumstances): Storage;
}

/** `other` from max(in, out) = `minDim` on, `base` below. */
export const thresholdRule = (name: string, base: Storage, other: Storage, minDim: number): Rule => ({
  name,
  typeOf: (shape) => (Math.max(...shape) >= minDim ? other : base),
});

export interface RuleTime {
  readonly rule: string;
  /** Milliseconds that the linear layers of one forward take; null if a layer was not measured. */
  readonly ms: number | null;
  readonly bytes: number;
  /** Layers that are not stored as `base`. */
  readonly converted: number;
}

/** What the layers of one model take under a rule. Layers that cannot have the type keep `base`. */
export function ruleTime(
  { times }: Pick<Crossover, 'times'>,
  layers: readonly ModelLayers[],
  rule: Rule,
  base: Storage,
  circumstances: Circumstances,
): RuleTime {
  let [ms, bytes, converted]: [number | null, number, number] = [0, 0, 0];
  for (const { shape, count, output } of layers) {
    const where = output ? { ...circumstances, rows: 1 } : circumstances;
    const wanted = timesOf(times, rule.typeOf(shape, where), shape, where);
    const found = wanted ?? timesOf(times, base, shape, where);
    ms = found === undefined || ms === null ? null : ms + count * median(found.ms);
    bytes += count * (found?.bytes ?? 0);
    if (found && found.type !== base) converted += count;
  }
  return { rule: rule.name, ms, bytes, converted };
}

/** The linear layers of a model, those of equal role and shape together. */
export function layersOf(model: string, { plan }: ModelDescription): ModelLayers[] {
  const uses = new Map<number, number>();
  const use = (id: number, count: number): void => void uses.set(id, (uses.get(id) ?? 0) + count);
  for (const step of plan.steps) {
    if (step.op === 'matmul') use(step.weight, 1);
    if (step.op !== 'experts') continue;
    for (const id of [...step.gate, ...step.up, ...step.down]) use(id, step.top / step.gate.length);
  }
  const groups = new Map<string, { shape: Shape; role: string; members: Set<string>; count: number }>();
  for (const [id, { name, role, shape, linear }] of plan.weights.entries()) {
    const count = uses.get(id);
    if (!linear || count === undefined) continue;
    const key = `${role} ${shape.join('x')}`;
    const group = groups.get(key) ?? { shape: shape as unknown as Shape, role, members: new Set(), count: 0 };
    const member = name.slice(name.lastIndexOf('.') + 1);
    if (member !== role) group.members.add(member);
    group.count += count;
    groups.set(key, group);
  }
  return [...groups.values()].map(({ shape, role, members, count }) => ({
    model,
    name: [role, [...members].join('/')].join(' ').trim(),
    shape,
    count,
    output: role === 'output',
  }));
}
