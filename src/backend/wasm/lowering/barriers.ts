/**
 * Where threads must wait for each other.
 *
 * A step divides its work in one of three ways. `rows`: thread t takes the t-th share of the rows, the same for every
 * step, so what a thread reads of a buffer it wrote itself. `columns`: the same with columns (`columnShare` of
 * src/kernels/loops.ts), as products write. `any`: by work items, or all of a product's input, so threads read what others
 * wrote. With few rows a replicable step is done in full by every thread (all write the same bytes) instead of
 * being divided: cheaper than waiting. With many rows products are not divided by columns: threads claim work items as they
 * come. A barrier stands before a step that touches memory which another thread may
 * still be writing or, when the step writes, still be reading.
 */

export interface Access {
  /** Identity of the buffer: equal rows of one buffer lie at equal addresses. */
  readonly buffer: string;
  /** Byte range in memory; buffers with disjoint lifetimes share addresses. */
  readonly start: number;
  readonly end: number;
  readonly pattern: 'rows' | 'columns' | 'any';
}

export interface TapeStep {
  readonly reads: readonly Access[];
  readonly writes: readonly Access[];
  /** Idempotent and row-wise: may be done by every thread in full. */
  readonly replicable: boolean;
  /** A product: with many rows, which columns of its result a thread writes is not known. */
  readonly claims?: boolean;
  /** A barrier before it in any case: from here on another row count decides between divided and replicated. */
  readonly fence: boolean;
  /** Steps of one number are left out together, with the barriers between and after them. */
  readonly run?: number;
}

export interface Barriers {
  /** After this step when its work is divided, with few rows and with many. */
  readonly divided: boolean;
  readonly many: boolean;
  /** After this step even when every thread did all of it. */
  readonly replicated: boolean;
}

interface Pending {
  readonly access: Access;
  readonly write: boolean;
  readonly replicated: boolean;
}

const overlap = (a: Access, b: Access): boolean => a.start < b.end && b.start < a.end;

function conflicts(before: Pending, now: Pending): boolean {
  if (!(before.write || now.write) || !overlap(before.access, now.access)) return false;
  // Every thread wrote all of it with its own hands and only reads it now.
  if (before.write && before.replicated && !now.write) return before.access.buffer !== now.access.buffer;
  if (before.replicated || now.replicated) return true;
  return !(
    before.access.pattern !== 'any' &&
    before.access.pattern === now.access.pattern &&
    before.access.buffer === now.access.buffer
  );
}

/** For each step whether a barrier follows it, with steps divided, replicated where possible, or claimed where possible. */
function place(steps: readonly TapeStep[], way: 'divided' | 'replicated' | 'claimed'): boolean[] {
  const after = steps.map(() => false);
  let pending: Pending[] = [];
  steps.forEach((step, index) => {
    const replicated = way === 'replicated' && step.replicable;
    const claimed = way === 'claimed' && step.claims === true;
    const known = (access: Access): Access => (claimed ? { ...access, pattern: 'any' } : access);
    const accesses: Pending[] = [
      ...step.reads.map((access) => ({ access: known(access), write: false, replicated })),
      ...step.writes.map((access) => ({ access: known(access), write: true, replicated })),
    ];
    // What may be left out waits for what was before, and makes those after it wait itself.
    const apart = index > 0 && step.run !== steps[index - 1]!.run;
    if (step.fence || apart || accesses.some((now) => pending.some((before) => conflicts(before, now)))) {
      if (index > 0) after[index - 1] = true;
      pending = [];
    }
    pending.push(...accesses);
  });
  // The caller reads the results, and the next walk overwrites the inputs.
  if (after.length) after[after.length - 1] = true;
  return after;
}

export function placeBarriers(steps: readonly TapeStep[]): Barriers[] {
  const divided = place(steps, 'divided');
  const replicated = place(steps, 'replicated');
  const many = place(steps, 'claimed');
  return steps.map((step, index) => ({
    // A step that is never replicated has one flag for both ways of walking.
    divided: divided[index]! || (!step.replicable && replicated[index]!),
    many: many[index]!,
    replicated: step.replicable && replicated[index]!,
  }));
}
