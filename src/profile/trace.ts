/**
 * Writes a timeline in the Trace Event Format, as a JSON array of one event a line, which https://ui.perfetto.dev and
 * chrome://tracing open. The format allows the end of the array to be missing, so that what a killed process leaves is valid.
 *
 * Tracks of one engine, which is a process of the timeline:
 *
 *   engine      what its thread does: load, steps of the scheduler, sampling, tokens
 *   load        phases of the load
 *   thread n    slabs, layers, kernels and waits of one thread of the backend; thread 0 is the engine's own
 */
import { EventBytes } from './event-bytes.ts';

/** Receives the bytes of a trace, piece by piece, and may keep them. */
export type TraceWriter = (bytes: Uint8Array<ArrayBuffer>) => void;

export interface TraceOptions {
  /** Called by `end` after the last bytes. */
  readonly close?: () => void | Promise<void>;
}

/** A trace in another thread that sends its bytes to this one. Can be cloned. */
export interface TracePlace {
  /** Start of the trace, in milliseconds since 1970. */
  readonly origin: number;
  /** Number of its first process. */
  readonly pid: number;
  readonly kernels: boolean;
}

/** Additional data of an event. */
export type TraceArguments = Readonly<Record<string, unknown>>;

/** Processes of one engine: the model and its draft model. */
const PROCESSES = 8;

export const tracks = { engine: 1, load: 2, threads: 10 } as const;

export class Trace {
  /** Start of the trace, in milliseconds since 1970. */
  readonly origin: number;
  /**
   * Whether layers, kernels and waits are recorded, which are nearly all events. May change at any time; an engine in another
   * thread keeps the value of its load.
   */
  kernels = true;
  readonly #write: TraceWriter;
  readonly #close: TraceOptions['close'];
  readonly #engines = new Set<() => Promise<void> | void>();
  readonly #events: EventBytes;
  #pid: number;
  #ended: Promise<void> | undefined;

  /** @param place of a trace in the thread of an engine, which only adds events to that of its caller */
  constructor(write: TraceWriter, { close }: TraceOptions = {}, place?: TracePlace) {
    this.origin = place?.origin ?? performance.timeOrigin + performance.now();
    this.#pid = place?.pid ?? 1;
    this.kernels = place?.kernels ?? true;
    this.#write = write;
    this.#close = close;
    this.#events = new EventBytes((bytes) => this.#write(bytes));
    if (place) return;
    const began = new Date(this.origin).toISOString();
    this.#events.text(`[\n{"ph":"i","s":"g","pid":0,"tid":0,"ts":0,"name":"trace begins","args":{"at":"${began}"}}`);
  }

  /** A new process of the timeline. */
  process(name: string): TraceProcess {
    return new TraceProcess(name, this.#pid++, this, this.#events);
  }

  /** The place of a trace in another thread. */
  place(): TracePlace {
    const pid = this.#pid;
    this.#pid += PROCESSES;
    return { origin: this.origin, pid, kernels: this.kernels };
  }

  /** Adds events from another thread. */
  add(bytes: Uint8Array<ArrayBuffer>): void {
    this.#events.add(bytes);
  }

  /** Registers an engine in another thread. @param send makes it send its last events */
  attach(send: () => Promise<void> | void): void {
    this.#engines.add(send);
  }

  /** Writes the events so far. */
  flush(): void {
    this.#events.flush();
  }

  /** Writes the last events and the end of the array. Later events are dropped. May be called twice. */
  end(): Promise<void> {
    this.#ended ??= this.#end();
    return this.#ended;
  }

  /** As `end`, without the last events of engines in other threads: before the process ends. */
  endNow(): void {
    this.#events.text('\n]\n');
    this.#events.close();
  }

  async #end(): Promise<void> {
    for (const send of this.#engines) await send();
    this.endNow();
    await this.#close?.();
  }
}

/** An event whose bytes are the same each time, but for track and times. */
export class EventShape {
  readonly head: Uint8Array;

  constructor({ pid }: Pick<TraceProcess, 'pid'>, category: string, name: string, args?: TraceArguments) {
    this.head = new TextEncoder().encode(
      `,\n{"ph":"X","pid":${pid},"cat":${JSON.stringify(category)},"name":${JSON.stringify(name)},${argumentsText(args)}"tid":`,
    );
  }
}

const argumentsText = (args: TraceArguments | undefined): string =>
  args === undefined ? '' : `"args":${JSON.stringify(args)},`;

/** The events of one engine. Times are those of `performance.now()` in this thread. */
export class TraceProcess {
  readonly pid: number;
  readonly #events: EventBytes;
  /** Added to a time of this thread, it gives the time since the start of the trace. */
  readonly #offset: number;
  readonly #named = new Set<number>();
  readonly #trace: Trace;

  constructor(name: string, pid: number, trace: Trace, events: EventBytes) {
    this.pid = pid;
    this.#trace = trace;
    this.#events = events;
    this.#offset = performance.timeOrigin - trace.origin;
    this.#metadata('process_name', 0, { name: `lanewise ${name}` });
  }

  /** Whether layers, kernels and waits are recorded. */
  get kernels(): boolean {
    return this.#trace.kernels;
  }

  /** Begins a span of the engine's thread. Spans end in the reverse order. */
  begin(name: string, args?: TraceArguments, track: number = tracks.engine): void {
    this.#simple('B', name, track, args);
  }

  end(track: number = tracks.engine, args?: TraceArguments): void {
    this.#simple('E', undefined, track, args);
    this.#events.flushNowAndThen();
  }

  /** A moment in the engine's thread. */
  instant(name: string, args?: TraceArguments): void {
    this.#simple('i', name, tracks.engine, args);
  }

  /** Begins or ends a stage of a request; stages of different requests overlap. */
  request(ph: 'b' | 'e', id: number, name: string, args?: TraceArguments): void {
    const quoted = JSON.stringify(name);
    const tail = args === undefined ? '' : `,"args":${JSON.stringify(args)}`;
    this.#events.text(
      `,\n{"ph":"${ph}","pid":${this.pid},"tid":${tracks.engine},"cat":"request","id":${id},"ts":${this.#now()},"name":${quoted}${tail}}`,
    );
  }

  /** A span that has ended. */
  complete(shape: EventShape, track: number, start: number, end: number): void {
    this.#name(track);
    this.#events.complete(shape.head, track, start + this.#offset, end + this.#offset);
  }

  #simple(ph: 'B' | 'E' | 'i', name: string | undefined, track: number, args: TraceArguments | undefined): void {
    this.#name(track);
    const title = name === undefined ? '' : `"name":${JSON.stringify(name)},`;
    const scope = ph === 'i' ? '"s":"t",' : '';
    this.#events.text(
      `,\n{"ph":"${ph}","pid":${this.pid},"tid":${track},${title}${scope}${argumentsText(args)}"ts":${this.#now()}}`,
    );
  }

  #now(): string {
    return ((performance.now() + this.#offset) * 1e3).toFixed(3);
  }

  #name(track: number): void {
    if (this.#named.has(track)) return;
    this.#named.add(track);
    const name =
      track >= tracks.threads ? `thread ${track - tracks.threads}` : track === tracks.load ? 'load' : 'engine';
    this.#metadata('thread_name', track, { name });
    this.#metadata('thread_sort_index', track, { sort_index: track });
  }

  #metadata(name: string, track: number, args: TraceArguments): void {
    this.#events.text(
      `,\n{"ph":"M","pid":${this.pid},"tid":${track},"ts":0,"name":"${name}","args":${JSON.stringify(args)}}`,
    );
  }
}

/** Runs `work` as a span of the engine's thread, if there is a trace. */
export function traced<T>(
  process: TraceProcess | undefined,
  name: string,
  work: () => Promise<T>,
  args?: TraceArguments,
): Promise<T> {
  if (!process) return work();
  process.begin(name, args);
  return work().finally(() => process.end());
}

/** As `traced`, for work without a promise. */
export function tracedNow<T>(
  process: TraceProcess | undefined,
  name: string,
  work: () => T,
  result?: (value: T) => TraceArguments,
): T {
  if (!process) return work();
  process.begin(name);
  let args: TraceArguments | undefined;
  try {
    const value = work();
    args = result?.(value);
    return value;
  } finally {
    process.end(tracks.engine, args);
  }
}
