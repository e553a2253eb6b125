/** Lowers a plan: everything that is decided before memory is reserved (parts, addresses, tapes, kernels, slabs). */
import { OutOfMemoryError } from '../../errors.ts';
import { activationStride } from '../../kernels/layout.ts';
import { weightsOf } from '../../plan/memory.ts';
import type { Plan } from '../../plan/step.ts';
import { type BackendOptions, cachePages, pageCells } from '../backend.ts';
import { type Choice, formatKey, productFamily } from './choosing/choice.ts';
import { type LoadStep, type LoadTarget, planLoad } from './loading/load-plan.ts';
import { KernelSet } from './lowering/kernel-set.ts';
import { lower, type Tape } from './lowering/lower.ts';
import { type MemoryMap, mapMemory } from './lowering/memory-map.ts';
import { type PlanPart, type Segment, splitWithCache } from './lowering/parts.ts';
import { align, MEMORY_LIMIT } from './memory/memory.ts';
import { cachePageBytes, heldBytes } from './memory/sizes.ts';

/** Part of a memory's 4 GiB that is kept for rows, scratch and staging. */
const ASIDE_BYTES = 512 * 1024 * 1024;

/** What the addresses of a plan depend on. */
export interface PlacePlanOptions extends Pick<BackendOptions, 'plan' | 'maxRows' | 'maxWanted' | 'cache'> {
  readonly threads: number;
  readonly choice: Choice;
  /** Bytes of weights and cache per memory. Default: 4 GiB less the part kept for the rest. */
  readonly memoryBytes?: number;
}

export interface LowerPlanOptions extends BackendOptions, PlacePlanOptions {}

/** Addresses of a plan, in as many memories as it needs. */
export interface PlacedPlan {
  /** One for each memory. */
  readonly targets: readonly LoadTarget[];
  readonly segments: readonly Segment[];
  /** Largest possible number of cache pages. */
  readonly capacity: number;
}

export interface LoweredPlan extends PlacedPlan {
  /** The tape of each segment. */
  readonly tapes: readonly Tape[];
  readonly loadSteps: readonly LoadStep[];
  /** All kernels that tapes and load steps use. */
  readonly kernels: KernelSet;
}

/** @throws as `placePlan` */
export function lowerPlan(options: LowerPlanOptions): LoweredPlan {
  const { plan, choice } = options;
  const placed = placePlan(options);
  const { targets, segments } = placed;
  const kernels = new KernelSet();
  const tapes = segments.map(({ part, from, to }) =>
    lower({ plan: { ...plan, steps: plan.steps.slice(from, to) }, map: targets[part]!.map, choice, kernels }),
  );
  const loadSteps = targets.flatMap((target) => planLoad(options, target, choice, kernels));
  return { ...placed, tapes, loadSteps, kernels };
}

/** @throws OutOfMemoryError where a layer exceeds a memory, or the cache what is left */
export function placePlan(options: PlacePlanOptions): PlacedPlan {
  const { plan } = options;
  const pageBytes = plan.caches.reduce((sum, spec) => sum + cachePageBytes(spec), 0);
  const wanted = cachePages(options.cache, pageBytes);
  const { parts, segments, pages } = splitWithCache(
    plan,
    {
      capacity: options.memoryBytes ?? MEMORY_LIMIT - ASIDE_BYTES,
      weightBytes: (id) => align(heldBytes(plan.weights[id]!)),
      pageBytes: (id) => cachePageBytes(plan.caches[id]!),
    },
    wanted,
  );
  const cells = cellsOf(plan, parts);
  const targets = parts.map((part, index): LoadTarget => {
    const map = mapMemory({ ...options, part, cells, quantizedBytes: quantizedBytes(options, part) });
    return { index, part, map };
  });
  const capacity = targets.reduce((least, { map }) => Math.min(least, roomFor(map)), pages);
  if (capacity < wanted.least)
    throw new OutOfMemoryError('the key/value cache', wanted.least * pageBytes, capacity * pageBytes);
  return { targets, segments, capacity };
}

/** Largest size of a page relative to its content. With few windowed layers in a memory, cells would need much padding. */
const MOST_PADDING = 1.25;

function cellsOf({ caches }: Plan, parts: readonly PlanPart[]): number {
  const sizes = caches.map((spec) => ({ window: spec.window, bytes: cachePageBytes(spec) }));
  const { cells } = pageCells(sizes);
  const sum = (some: readonly (typeof sizes)[number][]): number => some.reduce((total, { bytes }) => total + bytes, 0);
  const padded = parts.some((part) => {
    const own = sizes.filter((_, id) => part.caches.has(id));
    return cells * sum(own.filter(({ window }) => window === undefined)) > MOST_PADDING * sum(own);
  });
  return padded ? 1 : cells;
}

/** Cache pages that fit behind everything else in 4 GiB. */
const roomFor = ({ cache, pageStride }: MemoryMap): number =>
  pageStride === 0 ? Number.POSITIVE_INFINITY : Math.floor((MEMORY_LIMIT - cache) / pageStride);

/** Bytes for quantized rows per activation format: enough for the widest product that uses it. */
function quantizedBytes(
  { plan, choice, maxRows, maxWanted }: PlacePlanOptions,
  { steps }: PlanPart,
): Map<string, number> {
  const most = new Map<string, number>();
  for (const step of steps) {
    if (step.op !== 'matmul' && step.op !== 'experts') continue;
    const rows = plan.buffers[step.x]!.rows === 'wanted' ? maxWanted : maxRows;
    for (const id of weightsOf(step)) {
      const { shape, shares } = plan.weights[id]!;
      const { activation } = productFamily(plan.weights[shares ?? id]!.storage, choice);
      if (!activation || shape.length === 1) continue;
      const bytes = rows * activationStride(activation, shape[1]!);
      most.set(formatKey(activation), Math.max(bytes, most.get(formatKey(activation)) ?? 0));
    }
  }
  return most;
}
