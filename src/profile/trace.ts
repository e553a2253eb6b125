/** Times of forwards as JSON by scope, and as trace events for Chrome and Perfetto. */
import type { ScopedStep, ScopeTime, StepMilliseconds } from './scopes.ts';

export interface ScopeJson {
  readonly name: string;
  readonly ms: number;
  readonly children?: readonly ScopeJson[];
}

/** Milliseconds, rounded to microseconds. Leaves have no `children`. */
export function scopeJson({ name, ms, children }: ScopeTime): ScopeJson {
  const rounded = Math.round(ms * 1e3) / 1e3;
  return children.length === 0
    ? { name, ms: rounded }
    : { name, ms: rounded, children: children.map((child) => scopeJson(child)) };
}

/** A complete event (`ph: 'X'`) of the Trace Event Format; `ts` and `dur` in microseconds. */
export interface TraceEvent {
  readonly name: string;
  readonly ph: 'X';
  readonly ts: number;
  readonly dur: number;
  readonly pid: number;
  readonly tid: number;
}

/**
 * Events of one forward, its scopes and its steps, outer before inner.
 * @param startMs start of the forward; steps are assumed to follow each other without gaps
 */
export function traceForward(
  name: string,
  startMs: number,
  steps: readonly ScopedStep[],
  times: readonly StepMilliseconds[],
): TraceEvent[] {
  const events: TraceEvent[] = [];
  const open: { readonly name: string; readonly at: number; readonly startMs: number }[] = [];
  let now = startMs;
  const enter = (scope: string): void => {
    open.push({ name: scope, at: events.length, startMs: now });
    events.push(event(scope, now, now));
  };
  const leaveTo = (depth: number): void => {
    for (let scope = open.at(-1); scope && open.length > depth; scope = open.at(-1)) {
      events[scope.at] = event(scope.name, scope.startMs, now);
      open.pop();
    }
  };
  enter(name);
  for (const { step, ms } of times) {
    const { scope, op } = steps[step]!;
    const path = scope === '' ? [] : scope.split('.');
    let shared = 0;
    while (shared < path.length && open[shared + 1]?.name === path[shared]) shared++;
    leaveTo(shared + 1);
    for (const part of path.slice(shared)) enter(part);
    events.push(event(op, now, now + ms));
    now += ms;
  }
  leaveTo(0);
  return events;
}

const event = (name: string, fromMs: number, toMs: number): TraceEvent => ({
  name,
  ph: 'X',
  ts: fromMs * 1e3,
  dur: (toMs - fromMs) * 1e3,
  pid: 1,
  tid: 1,
});
