/** The load of a model in a trace. */
import type { LoadSpan } from '../backend/backend.ts';
import { EventShape, type TraceProcess, tracks } from '../profile/trace.ts';

export class LoadTrace {
  readonly #process: TraceProcess;

  constructor(process: TraceProcess) {
    this.#process = process;
    process.begin('load', undefined, tracks.load);
  }

  /** Adds a part of the load that has ended. */
  readonly add = ({ thread, name, start, end, weight, bytes }: LoadSpan): void => {
    const track = thread === undefined ? tracks.load : tracks.threads + thread;
    const args = weight === undefined ? undefined : { weight, bytes };
    this.#process.complete(new EventShape(this.#process, 'load', name, args), track, start, end);
  };

  end(): void {
    this.#process.end(tracks.load);
  }
}
