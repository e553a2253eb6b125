/** Turns the times of walks into events of a trace: for each thread the scopes of a forward, its kernels and its waits. */
import type { ThreadTimes, WalkRecord, WalkTimes } from '../backend/backend.ts';
import type { Plan } from '../plan/step.ts';
import { EventShape, type TraceProcess, tracks } from '../profile/trace.ts';

/** Shorter waits are not shown: they are the cost of a barrier that all threads reach at once. */
const SHORTEST_WAIT_MS = 0.0005;

interface ShownScope {
  readonly shape: EventShape;
  /** The last record in it. */
  readonly last: number;
}

interface ShownRecord {
  readonly shape: EventShape;
  /** Scopes that begin with it, outer ones first. */
  readonly scopes: readonly ShownScope[];
  /** Part of a step that may be skipped, which takes no time. */
  readonly optional: boolean;
}

export class WalkTrace {
  readonly #plan: Plan;
  readonly #process: TraceProcess;
  readonly #wait: EventShape;
  readonly #shown = new Map<readonly WalkRecord[], readonly ShownRecord[]>();

  constructor(plan: Plan, process: TraceProcess) {
    this.#plan = plan;
    this.#process = process;
    this.#wait = new EventShape(process, 'wait', 'wait');
  }

  /** Adds the walks of a forward over so many rows, and of draws from its results. */
  of(rows: number, wanted: number): (walk: WalkTimes) => void {
    const forward = new EventShape(this.#process, 'scope', 'forward', { rows, wanted });
    return (walk) => this.#add(walk, walk.records[0]?.step === undefined ? undefined : forward);
  }

  /** @param name shape of the whole walk, if it is part of a forward */
  #add({ records, threads }: WalkTimes, name: EventShape | undefined): void {
    let shown = this.#shown.get(records);
    if (!shown) this.#shown.set(records, (shown = this.#show(records)));
    for (const [thread, times] of threads.entries()) this.#addThread(shown, tracks.threads + thread, times, name);
  }

  #addThread(shown: readonly ShownRecord[], track: number, times: ThreadTimes, name: EventShape | undefined): void {
    const process = this.#process;
    const { offset, start } = times;
    const end = (record: number): number => times.ended(record) + offset;
    if (name) process.complete(name, track, start + offset, end(shown.length - 1));
    let before = start;
    for (let record = 0; record < shown.length; record++) {
      const { shape, scopes, optional } = shown[record]!;
      for (const scope of scopes) process.complete(scope.shape, track, before + offset, end(scope.last));
      const arrived = times.arrived(record);
      const ended = times.ended(record);
      const worked = arrived >= before ? arrived : ended;
      if (!(optional && worked === before)) process.complete(shape, track, before + offset, worked + offset);
      if (ended - worked >= SHORTEST_WAIT_MS) process.complete(this.#wait, track, worked + offset, ended + offset);
      before = ended;
    }
  }

  #show(records: readonly WalkRecord[]): ShownRecord[] {
    const paths = records.map(({ step }) => (step === undefined ? '' : this.#plan.steps[step]!.scope));
    return records.map((record, index) => ({
      shape: this.#shapeOf(record),
      scopes: this.#scopesAt(paths, index),
      optional: record.step !== undefined && this.#plan.steps[record.step]!.op === 'experts',
    }));
  }

  /** The scopes that begin at a record: `layer[3]`, then `layer[3].attention`. */
  #scopesAt(paths: readonly string[], index: number): ShownScope[] {
    const parts = paths[index] === '' ? [] : paths[index]!.split('.');
    return parts.flatMap((part, depth) => {
      const path = parts.slice(0, depth + 1).join('.');
      const inside = (other: string | undefined): boolean => other === path || (other?.startsWith(`${path}.`) ?? false);
      if (inside(paths[index - 1])) return [];
      let last = index;
      while (inside(paths[last + 1])) last++;
      return [{ shape: new EventShape(this.#process, 'scope', part), last }];
    });
  }

  #shapeOf({ step, kernel }: WalkRecord): EventShape {
    const found = step === undefined ? undefined : this.#plan.steps[step]!;
    const named = (name: string): EventShape => new EventShape(this.#process, 'kernel', name);
    if (!found) return named(kernel);
    if (found.op === 'experts') return named(`experts ${kernel}`);
    if (kernel === 'quantize') return named(kernel);
    if (found.op !== 'matmul') return named(found.op);
    const { name: weight, shape } = this.#plan.weights[found.weight]!;
    return new EventShape(this.#process, 'kernel', kernel.replace('_', ' '), { weight, shape: shape.join('x') });
  }
}
