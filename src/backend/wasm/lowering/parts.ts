/**
 * Cuts a plan into parts, each with its own memory: 32-bit addresses reach 4 GiB, and many models are larger.
 *
 * Whole layers stay together, so that little more than the residual rows is copied from one memory to the next. A segment is
 * a run of steps of one part. Before a segment, rows that another part wrote last are copied in.
 */
import { OutOfMemoryError } from '../../../errors.ts';
import { buffersOf, weightsOf } from '../../../plan/memory.ts';
import type { BufferId, CacheId, Plan, Step, WeightId } from '../../../plan/step.ts';

export interface PlanPart {
  readonly steps: readonly Step[];
  readonly weights: ReadonlySet<WeightId>;
  readonly caches: ReadonlySet<CacheId>;
  /** Buffers that other parts use too: their memory is not shared with other buffers. */
  readonly crossing: ReadonlySet<BufferId>;
}

export interface Segment {
  readonly part: number;
  /** Steps of the plan: the first, and the one behind the last. */
  readonly from: number;
  readonly to: number;
  /** Buffers whose rows are copied in before, and the part that has the latest content. */
  readonly copies: readonly { readonly buffer: BufferId; readonly part: number }[];
}

/** A plan cut for a cache of `pages` pages. */
export interface CacheSplit {
  readonly parts: PlanPart[];
  readonly segments: Segment[];
  readonly pages: number;
}

/**
 * Cuts a plan for at least `pages.least` pages of each cache, and as many more up to `pages.most` as need no further memory.
 * @throws OutOfMemoryError when the weights of one step, or one cache, exceed the capacity
 */
export function splitWithCache(
  plan: Plan,
  { pageBytes, ...sizes }: Omit<PartSizes, 'cacheBytes'> & { readonly pageBytes: (id: CacheId) => number },
  pages: { readonly least: number; readonly most: number },
): CacheSplit {
  const sizesOf = (count: number): PartSizes => ({ ...sizes, cacheBytes: (id) => count * pageBytes(id) });
  const memories = assignSteps(plan, sizesOf(pages.least)).parts.length;
  const fits = (count: number): boolean =>
    plan.caches.every((_, id) => count * pageBytes(id) <= sizes.capacity) &&
    assignSteps(plan, sizesOf(count)).parts.length <= memories;
  const sum = (counts: readonly number[]): number => counts.reduce((all, bytes) => all + bytes, 0);
  const weights = sum(plan.weights.map(({ shares }, id) => (shares === undefined ? sizes.weightBytes(id) : 0)));
  const perPage = Math.max(1, sum(plan.caches.map((_, id) => pageBytes(id))));
  // No memory can be fuller than full.
  const most = Math.min(pages.most, Math.floor((memories * sizes.capacity - weights) / perPage));
  let [low, high] = [pages.least, Math.max(pages.least, most)];
  if (low < high && fits(high)) low = high;
  // An exact answer is not worth the time: every step of the search cuts the plan again.
  while (high - low > Math.max(1, low / 16)) {
    const middle = (low + high) >> 1;
    if (fits(middle)) low = middle;
    else high = middle;
  }
  return { ...splitPlan(plan, sizesOf(low)), pages: low };
}

export interface PartSizes {
  /** Bytes of weights and cache that one memory may hold. */
  readonly capacity: number;
  readonly weightBytes: (id: WeightId) => number;
  readonly cacheBytes: (id: CacheId) => number;
}

interface Draft {
  readonly weights: Set<WeightId>;
  readonly caches: Set<CacheId>;
  bytes: number;
}

/** @throws OutOfMemoryError when the weights of one step exceed the capacity */
export function splitPlan(plan: Plan, sizes: PartSizes): { parts: PlanPart[]; segments: Segment[] } {
  const partOf = assignSteps(plan, sizes);
  const segments = segmentsOf(plan, partOf.steps);
  const usedBy = new Map<BufferId, Set<number>>();
  for (const [index, step] of plan.steps.entries()) {
    for (const buffer of buffersOf(step)) {
      const users = usedBy.get(buffer) ?? new Set();
      usedBy.set(buffer, users.add(partOf.steps[index]!));
    }
  }
  const crossing = [...usedBy].filter(([, users]) => users.size > 1).map(([buffer]) => buffer);
  const parts = partOf.parts.map(({ weights, caches }, part) => ({
    steps: plan.steps.filter((_, index) => partOf.steps[index] === part),
    weights,
    caches,
    crossing: new Set(crossing.filter((buffer) => usedBy.get(buffer)!.has(part))),
  }));
  return { parts, segments };
}

/** For instance `layer[3]`: steps that should stay in one part. */
const outermost = ({ scope }: Step): string => scope.split('.', 1)[0]!;

function assignSteps(
  plan: Plan,
  { capacity, weightBytes, cacheBytes }: PartSizes,
): { parts: Draft[]; steps: number[] } {
  const parts: Draft[] = [];
  const homeOfWeight = new Map<WeightId, number>();
  const homeOfCache = new Map<CacheId, number>();
  const held = (id: WeightId): WeightId => plan.weights[id]!.shares ?? id;
  const weightsIn = (steps: readonly Step[]): WeightId[] => [
    ...new Set(
      steps
        .flatMap(weightsOf)
        .map(held)
        .filter((id) => !homeOfWeight.has(id)),
    ),
  ];
  const cachesIn = (steps: readonly Step[]): CacheId[] => [
    ...new Set(steps.flatMap((step) => ('cache' in step && !homeOfCache.has(step.cache) ? [step.cache] : []))),
  ];
  const bytesOf = (steps: readonly Step[]): number =>
    weightsIn(steps).reduce((sum, id) => sum + weightBytes(id), 0) +
    cachesIn(steps).reduce((sum, id) => sum + cacheBytes(id), 0);
  const open = (): Draft => {
    const draft: Draft = { weights: new Set(), caches: new Set(), bytes: 0 };
    parts.push(draft);
    return draft;
  };
  let current = open();
  /** The part that has room for what `steps` bring. */
  const place = (steps: readonly Step[]): void => {
    const bytes = bytesOf(steps);
    if (bytes > capacity) {
      const [weight] = weightsIn(steps);
      throw new OutOfMemoryError(weight === undefined ? 'a cache' : plan.weights[weight]!.name, bytes, capacity);
    }
    if (current.bytes > 0 && current.bytes + bytes > capacity) current = open();
    current.bytes += bytes;
    for (const step of steps) {
      const ids = weightsOf(step).map(held);
      // A bias goes into the part of its matrix, even if that was placed earlier (a tied head).
      const part = homeOfWeight.get(ids[0]!) ?? parts.length - 1;
      for (const id of ids.filter((id) => !homeOfWeight.has(id))) {
        homeOfWeight.set(id, part);
        parts[part]!.weights.add(id);
      }
      for (const id of cachesIn([step])) {
        homeOfCache.set(id, parts.length - 1);
        current.caches.add(id);
      }
    }
  };
  const steps: number[] = [];
  const home = (step: Step): number => {
    const [weight] = weightsOf(step);
    if (weight !== undefined) return homeOfWeight.get(held(weight))!;
    if ('cache' in step) return homeOfCache.get(step.cache)!;
    return steps.at(-1) ?? 0;
  };
  for (const group of groupsOf(plan.steps)) {
    if (bytesOf(group) <= capacity) place(group);
    else for (const step of group) place([step]);
    for (const step of group) steps.push(home(step));
  }
  return { parts, steps };
}

/** Neighbouring steps with one outermost scope. */
function groupsOf(steps: readonly Step[]): Step[][] {
  const groups: Step[][] = [];
  for (const [index, step] of steps.entries()) {
    if (index > 0 && outermost(step) === outermost(steps[index - 1]!)) groups.at(-1)!.push(step);
    else groups.push([step]);
  }
  return groups;
}

function segmentsOf(plan: Plan, partOf: readonly number[]): Segment[] {
  const starts = partOf.flatMap((part, index) => (part === partOf[index - 1] ? [] : [index]));
  /** Parts that have the latest content of a buffer. */
  const current = new Map<BufferId, Set<number>>();
  return starts.map((from, n) => {
    const to = starts[n + 1] ?? partOf.length;
    const part = partOf[from]!;
    const steps = plan.steps.slice(from, to);
    const touched = new Set(steps.flatMap(buffersOf));
    const copies = [...touched].flatMap((buffer) => {
      const owners = current.get(buffer);
      return owners && !owners.has(part) ? [{ buffer, part: [...owners][0]! }] : [];
    });
    for (const { buffer } of copies) current.get(buffer)!.add(part);
    for (const step of steps) if ('out' in step) current.set(step.out, new Set([part]));
    return { part, from, to, copies };
  });
}
