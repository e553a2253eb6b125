/** Assigns memory to row buffers: buffers whose lifetimes do not overlap share bytes. */
import { kvBytes } from '../quant/kv-cache.ts';
import { storageBytes } from '../quant/storage.ts';
import type { BufferId, Plan, Step, WeightId } from './step.ts';

const ALIGN = 64;

export interface BufferLayout {
  /** Byte offset of each buffer, a multiple of 64. */
  readonly offsets: readonly number[];
  readonly byteLength: number;
}

/** Bytes from row to row: the width padded to 16 f32 values. */
export const rowBytes = (width: number): number => Math.ceil(width / 16) * 64;

/** Buffers that a step reads, and the one it writes. */
export function buffersOf(step: Step): BufferId[] {
  switch (step.op) {
    case 'embed':
    case 'scale':
    case 'cap':
      return [step.out];
    case 'appendKv':
      return [step.k, step.v];
    case 'attention':
      return [step.q, step.out];
    case 'experts':
      return [step.x, step.router, ...Object.values(step.work), step.out];
    case 'add':
      return [step.base, step.x, step.out];
    case 'activate':
      return step.up === undefined ? [step.x, step.out] : [step.x, step.up, step.out];
    default:
      return [step.x, step.out];
  }
}

/** Weights that a step reads, the main one first. */
export function weightsOf(step: Step): WeightId[] {
  if (step.op === 'experts')
    return [...step.gate, ...step.up, ...step.down, ...(step.factors === undefined ? [] : [step.factors])];
  const weights = step.op === 'embed' ? [step.table] : [];
  if ('weight' in step && step.weight !== undefined) weights.push(step.weight);
  if ('bias' in step && step.bias !== undefined) weights.push(step.bias);
  return weights;
}

/** Bytes of matrices and cached keys and values that a forward of one row at `position`, or some steps of it, reads. */
export function decodeBytes(plan: Plan, position: number, steps: readonly Step[] = plan.steps): number {
  const matrixBytes = (id: WeightId): number => {
    const [outputs, inputs] = plan.weights[id]!.shape as [number, number];
    return outputs * storageBytes(plan.weights[plan.weights[id]!.shares ?? id]!.storage, inputs);
  };
  return steps.reduce((sum, step) => {
    if (step.op === 'matmul') return sum + matrixBytes(step.weight);
    if (step.op === 'experts') {
      // Experts of one layer have equal sizes.
      const matrices = [...step.gate, ...step.up, ...step.down];
      return matrices.reduce((all, id) => all + matrixBytes(id), 0) * (step.top / step.gate.length) + sum;
    }
    if (step.op !== 'attention') return sum;
    const { kvHeads, headDim, window = position, storage } = plan.caches[step.cache]!;
    return sum + Math.min(window, position) * kvHeads * 2 * kvBytes(storage, headDim);
  }, 0);
}

interface Interval {
  readonly id: BufferId;
  readonly bytes: number;
  readonly first: number;
  last: number;
}

const none: ReadonlySet<BufferId> = new Set();

/**
 * Last step before the next barrier after `index`: until then a slower thread may still read this buffer, so its bytes
 * must not be reused. A barrier stands before a step that reads a divided result, except before an activation.
 */
function settled(steps: readonly Step[], index: number): number {
  const divided = new Set<BufferId>();
  for (let later = index; later < steps.length; later++) {
    const step = steps[later]!;
    const meets = step.op !== 'activate' && buffersOf(step).some((id) => divided.has(id));
    if (meets && later > index) return later - 1;
    if (step.op === 'matmul' || step.op === 'attention' || step.op === 'activate') divided.add(step.out);
  }
  return steps.length - 1;
}

/** First fit, in order of first use. Output and taps live until the last step, `lasting` buffers from first to last. */
export function layoutBuffers(plan: Plan, maxRows: number, maxWanted: number, lasting = none): BufferLayout {
  const intervals = new Map<BufferId, Interval>();
  for (const [index, step] of plan.steps.entries()) {
    for (const id of buffersOf(step)) {
      const buffer = plan.buffers[id]!;
      const bytes = rowBytes(buffer.width) * (buffer.rows === 'wanted' ? maxWanted : maxRows);
      const whole = lasting.has(id);
      const first = whole ? 0 : index;
      const interval = intervals.get(id) ?? { id, bytes: Math.ceil(bytes / ALIGN) * ALIGN, first, last: index };
      const kept = whole || id === plan.output || id === plan.summary || (step.op === 'tap' && step.out === id);
      interval.last = kept ? plan.steps.length : index;
      intervals.set(id, interval);
    }
  }
  for (const interval of intervals.values()) interval.last = settled(plan.steps, interval.last);
  const offsets = plan.buffers.map(() => 0);
  const placed: { readonly interval: Interval; readonly start: number }[] = [];
  let byteLength = 0;
  for (const interval of intervals.values()) {
    const busy = placed
      .filter(({ interval: other }) => other.first <= interval.last && interval.first <= other.last)
      .sort((a, b) => a.start - b.start);
    let start = 0;
    for (const other of busy) {
      if (other.start - start >= interval.bytes) break;
      start = Math.max(start, other.start + other.interval.bytes);
    }
    placed.push({ interval, start });
    offsets[interval.id] = start;
    byteLength = Math.max(byteLength, start + interval.bytes);
  }
  return { offsets, byteLength };
}
