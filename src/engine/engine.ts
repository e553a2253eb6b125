/**
 * What the facades (Model, Conversation) ask of an engine, wherever it runs: in this thread, or in a worker at the other end
 * of a message port. Arguments and results can be copied by structured clone, except where said.
 */
import type { LogitsSummary } from '../backend/backend.ts';
import type { CacheFileContent } from '../evaluate/cache-file.ts';
import type { ForwardReport, ForwardTiming } from '../evaluate/forwards.ts';
import type { PromptEncoder } from '../prompts/prompt.ts';
import type { GenerateEvent } from '../schedule/events.ts';
import type { Request } from '../schedule/run.ts';
import type { SchedulerStats, Ticket } from '../schedule/scheduler.ts';
import type { AnyEngine, LoadedInfo } from './loaded.ts';
import type { SamplingDefaults } from './sampling-defaults.ts';

export interface EngineInfo extends LoadedInfo {
  readonly eosTokenIds: ReadonlySet<number>;
  /** What options of sampling mean where they are left out, and which file says so. */
  readonly samplingDefaults: SamplingDefaults;
  /** Most rows of one forward, and most of them whose logits are wanted. */
  readonly maxRows: number;
  readonly maxWanted: number;
}

/** What a step says of one wanted row. */
export interface StepLogits {
  /** [vocab] */
  readonly logits: Float32Array;
  readonly summary: LogitsSummary;
}

/** A sequence of its own in the cache. */
export interface SequenceHandle extends Disposable {
  /** Positions computed so far. */
  readonly length: number;
  /** Takes pages for so many positions. @throws OutOfMemoryError, LanewiseError Disposed */
  reserve(positions: number): Promise<void>;
  /** Cuts off all positions from `length` on. */
  truncate(length: number): void;
  /** Gives the pages back; no step can use it any more. May be called twice. */
  dispose(): void;
}

/** Rows that one sequence adds to a step. */
export interface StepRows {
  readonly sequence: SequenceHandle;
  readonly tokens: readonly number[];
  /** Whether the logits of the last row are wanted, or of every row. */
  readonly wanted: boolean | 'all';
}

export interface StepOptions {
  readonly timing?: ForwardTiming;
  /** Told of the forward when it is done. */
  readonly onReport?: (report: ForwardReport) => void;
}

/** Rows of numbers by name. */
export type NamedRows = Map<string, { shape: [number, number]; values: Float32Array }>;

export interface Engine extends AnyEngine {
  readonly info: EngineInfo;
  /** Encodes prompts in the calling thread. */
  readonly prompts: PromptEncoder;
  /**
   * Puts a request in line. Its events come to `listener`, `done` last, whatever happens.
   * @throws LanewiseError Busy, Disposed
   */
  submit(request: Request, listener: (event: GenerateEvent) => void): Ticket;
  sequence(expected: number): SequenceHandle;
  /** @throws OptionError for rows that a forward cannot take */
  step(parts: readonly StepRows[], options: StepOptions): Promise<StepLogits[]>;
  /** Logits of every position, and hidden states where the model was loaded with them. */
  forward(tokenIds: readonly number[]): Promise<NamedRows>;
  /** Writes the whole blocks of the cache into a file. */
  saveCache(file: string): Promise<CacheFileContent>;
  /** Takes over what the file has, or nothing. @throws FormatError, OutOfMemoryError */
  restoreCache(file: string): Promise<CacheFileContent>;
  stats(): SchedulerStats;
}
