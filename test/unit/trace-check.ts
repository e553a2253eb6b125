/**
 * Checks a trace against the Trace Event Format as Perfetto's importer reads it: fields of each kind of event, names of
 * processes and threads, spans of a thread that nest without overlap, stages of requests that end.
 */
import assert from 'node:assert/strict';

export interface CheckedEvent {
  readonly ph: 'X' | 'B' | 'E' | 'i' | 'M' | 'b' | 'e';
  readonly pid: number;
  readonly tid: number;
  readonly ts: number;
  readonly dur?: number;
  readonly name?: string;
  readonly cat?: string;
  readonly id?: number;
  readonly s?: string;
  readonly args?: Readonly<Record<string, unknown>>;
}

/** A span with its thread's name and its place in the nesting. */
export interface Span {
  readonly name: string;
  readonly pid: number;
  readonly thread: string;
  /** Microseconds. */
  readonly start: number;
  readonly end: number;
  /** Names of the spans around it, outermost first. */
  readonly path: readonly string[];
  readonly args: CheckedEvent['args'];
}

export interface CheckedTrace {
  readonly events: readonly CheckedEvent[];
  readonly spans: readonly Span[];
  readonly processes: ReadonlyMap<number, string>;
}

const nanoseconds = (microseconds: number): number => Math.round(microseconds * 1000);
const isCount = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) >= 0;
const isTime = (value: unknown): boolean => typeof value === 'number' && Number.isFinite(value) && value >= 0;

/** @param cut whether the process ended early, so that spans may be open */
export function checkTrace(text: string, cut = false): CheckedTrace {
  const events = JSON.parse(text) as CheckedEvent[];
  assert.ok(Array.isArray(events) && events.length > 0);
  for (const event of events) checkFields(event);
  const [processes, threads] = namesOf(events);
  const spans: Span[] = [];
  const byThread = new Map<string, CheckedEvent[]>();
  for (const event of events) {
    const key = `${event.pid} ${event.tid}`;
    if ('XBE'.includes(event.ph)) grouped(byThread, key).push(event);
  }
  for (const [key, own] of byThread) {
    const thread = threads.get(key);
    assert.ok(thread !== undefined, `thread ${key} has a name`);
    assert.ok(processes.has(own[0]!.pid), `process ${own[0]!.pid} has a name`);
    spans.push(...nested(own, thread, cut));
  }
  checkRequests(events, cut);
  return { events, spans, processes };
}

function checkFields(event: CheckedEvent): void {
  const { ph, pid, tid, ts, dur, name, cat, id, s, args } = event;
  const what = JSON.stringify(event);
  assert.ok(['X', 'B', 'E', 'i', 'M', 'b', 'e'].includes(ph), what);
  assert.ok(isCount(pid) && isCount(tid) && isTime(ts), what);
  assert.equal(ph === 'X', isTime(dur), what);
  assert.equal(typeof name === 'string' && name.length > 0, ph !== 'E', what);
  assert.ok(args === undefined || (typeof args === 'object' && args !== null), what);
  if (ph === 'i') assert.ok(['g', 'p', 't'].includes(s!), what);
  if (ph === 'b' || ph === 'e') assert.ok(typeof cat === 'string' && isCount(id), what);
  if (ph === 'M') {
    assert.ok(['process_name', 'thread_name', 'thread_sort_index'].includes(name!), what);
    assert.equal(typeof args!.name === 'string', name !== 'thread_sort_index', what);
    assert.equal(isCount(args!.sort_index), name === 'thread_sort_index', what);
  }
}

function namesOf(events: readonly CheckedEvent[]): [processes: Map<number, string>, threads: Map<string, string>] {
  const named = (kind: string): CheckedEvent[] => events.filter(({ ph, name }) => ph === 'M' && name === kind);
  return [
    new Map(named('process_name').map(({ pid, args }) => [pid, args!.name as string])),
    new Map(named('thread_name').map(({ pid, tid, args }) => [`${pid} ${tid}`, args!.name as string])),
  ];
}

/** Nests the events of one thread, sorted by time; ties keep the order of the file. */
function nested(events: readonly CheckedEvent[], thread: string, cut: boolean): Span[] {
  const spans: Span[] = [];
  const open: { name: string; start: number; end: number | undefined; args: CheckedEvent['args'] }[] = [];
  const sorted = events.toSorted((a, b) => nanoseconds(a.ts) - nanoseconds(b.ts));
  const close = (end: number): void => {
    const { name, start, args } = open.pop()!;
    const { pid } = events[0]!;
    spans.push({ name, pid, thread, start: start / 1000, end: end / 1000, path: open.map((span) => span.name), args });
  };
  const closeUntil = (now: number): void => {
    for (let top = open.at(-1); top?.end !== undefined && top.end <= now; top = open.at(-1)) close(top.end);
  };
  for (const { ph, ts, dur = 0, name = '', args } of sorted) {
    const now = nanoseconds(ts);
    closeUntil(now);
    if (ph === 'E') {
      assert.ok(open.length > 0 && open.at(-1)!.end === undefined, `${thread}: an end at ${ts} without a begin`);
      open.at(-1)!.args = { ...open.at(-1)!.args, ...args };
      close(now);
      continue;
    }
    const end = ph === 'X' ? nanoseconds(ts) + nanoseconds(dur) : undefined;
    const around = open.at(-1);
    assert.ok(
      around?.end === undefined || (end !== undefined && end <= around.end),
      `${thread}: ${name} at ${ts} for ${dur} overlaps the end of ${around?.name}`,
    );
    open.push({ name, start: now, end, args });
  }
  closeUntil(Number.POSITIVE_INFINITY);
  if (!cut) assert.deepEqual(open, [], `${thread}: spans without an end`);
  return spans;
}

function checkRequests(events: readonly CheckedEvent[], cut: boolean): void {
  const open = new Map<string, string[]>();
  for (const { ph, pid, cat, id, name } of events) {
    if (ph !== 'b' && ph !== 'e') continue;
    const key = `${pid} ${cat} ${id}`;
    const stages = open.get(key) ?? [];
    open.set(key, stages);
    if (ph === 'b') stages.push(name!);
    else assert.equal(stages.pop(), name, `the end of ${name} of ${key}`);
  }
  if (!cut) for (const [key, stages] of open) assert.deepEqual(stages, [], key);
}

function grouped<K, V>(groups: Map<K, V[]>, key: K): V[] {
  const group = groups.get(key) ?? [];
  groups.set(key, group);
  return group;
}
