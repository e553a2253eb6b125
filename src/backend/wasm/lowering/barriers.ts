/**
 * Places barriers between steps.
 *
 * A step accesses a buffer in one of three patterns. `rows`: thread t accesses the t-th share of the rows, the same share in
 * every step, so a thread reads only what it wrote itself. `columns`: the same with columns (`columnShare` of
 * src/kernels/loops.ts); products write this way. `any`: by work items, or the whole buffer, so threads read what other
 * threads wrote. With few rows, every thread does a replicable step in full (all write the same bytes), which is cheaper than
 * a barrier. With many rows, threads claim the work items of products dynamically instead of dividing columns. A barrier is
 * needed before a step that accesses memory another thread may still write or, if the step writes, still read.
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
  /** Idempotent and row-wise: every thread may do all of it. */
  readonly replicable: boolean;
  /** A product: with many rows it is not known which thread writes which columns. */
  readonly claims?: boolean;
  /** Always has a barrier in front: from here on another row count decides between divided and replicated. */
  readonly fence: boolean;
  /** Steps with the same number are skipped together, including the barriers between and after them. */
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
  // Every thread wrote all of the buffer itself, and now only reads it.
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
    // Steps that may be skipped begin after a barrier and end with one.
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
    // A step that is never replicated has only one barrier flag.
    divided: divided[index]! || (!step.replicable && replicated[index]!),
    many: many[index]!,
    replicated: step.replicable && replicated[index]!,
  }));
}
