/** Where row buffers lie: buffers whose lifetimes do not overlap share bytes. */
import type { BufferId, Plan, Step } from './step.ts';

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
      return [step.out];
    case 'appendKv':
      return [step.k, step.v];
    case 'attention':
      return [step.q, step.out];
    case 'activate':
      return step.up === undefined ? [step.x, step.out] : [step.x, step.up, step.out];
    default:
      return [step.x, step.out];
  }
}

interface Interval {
  readonly id: BufferId;
  readonly bytes: number;
  readonly first: number;
  last: number;
}

/** First fit in the order of first use. Logits and taps live to the end. */
export function layoutBuffers(plan: Plan, maxRows: number, maxWanted: number): BufferLayout {
  const intervals = new Map<BufferId, Interval>();
  for (const [index, step] of plan.steps.entries()) {
    for (const id of buffersOf(step)) {
      const buffer = plan.buffers[id]!;
      const bytes = rowBytes(buffer.width) * (buffer.rows === 'wanted' ? maxWanted : maxRows);
      const interval = intervals.get(id) ?? { id, bytes: Math.ceil(bytes / ALIGN) * ALIGN, first: index, last: index };
      interval.last = id === plan.logits || (step.op === 'tap' && step.out === id) ? plan.steps.length : index;
      intervals.set(id, interval);
    }
  }
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
