/**
 * The interface between the facades (Model, Conversation) and an engine, which runs in this thread or in a worker at
 * the other end of a message port. Arguments and results can be copied by structured clone, unless noted.
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
  /** Defaults of the sampling options, and the model's file that sets them. */
  readonly samplingDefaults: SamplingDefaults;
  /** Largest number of rows of a forward, and of rows with logits. */
  readonly maxRows: number;
  readonly maxWanted: number;
}

/** Logits of one wanted row of a step. */
export interface StepLogits {
  /** [vocab] */
  readonly logits: Float32Array;
  readonly summary: LogitsSummary;
}

/** A sequence in the cache that the caller controls. */
export interface SequenceHandle extends Disposable {
  /** Positions computed so far. */
  readonly length: number;
  /** Allocates pages for this many positions. @throws OutOfMemoryError, LanewiseError Disposed */
  reserve(positions: number): Promise<void>;
  /** Removes all positions from `length` on. */
  truncate(length: number): void;
  /** Releases the pages. The sequence cannot be used afterwards. May be called twice. */
  dispose(): void;
}

/** Rows of one sequence in a step. */
export interface StepRows {
  readonly sequence: SequenceHandle;
  readonly tokens: readonly number[];
  /** Whether the logits of the last row are wanted, or of every row. */
  readonly wanted: boolean | 'all';
}

export interface StepOptions {
  readonly timing?: ForwardTiming;
  /** Called with the report of the forward when it is done. */
  readonly onReport?: (report: ForwardReport) => void;
}

/** Matrices by name. */
export type NamedRows = Map<string, { shape: [number, number]; values: Float32Array }>;

/** The results of a forward that are wanted of every one of its rows. */
export interface RowWishes {
  readonly logits?: boolean;
  /** Names of taps. */
  readonly taps?: readonly string[];
  /** The token that follows each row: how likely was it? */
  readonly next?: readonly number[];
}

/** How likely given tokens were, each after those before it. */
export interface RowScores {
  /** Natural logarithms of their probabilities. */
  readonly logProbs: Float64Array;
  /** The most likely tokens at these places. */
  readonly best: Int32Array;
}

export interface RowResults {
  /** `logits` [rows, vocab] and taps [rows, width], owned by the caller. */
  readonly tensors: NamedRows;
  readonly scores?: RowScores;
}

export interface Engine extends AnyEngine {
  readonly info: EngineInfo;
  /** Encodes prompts in the calling thread. */
  readonly prompts: PromptEncoder;
  /**
   * Queues a request. Its events are passed to `listener`; the last one is always `done`.
   * @throws LanewiseError Busy, Disposed
   */
  submit(request: Request, listener: (event: GenerateEvent) => void): Ticket;
  sequence(expected: number): SequenceHandle;
  /** @throws OptionError for rows that a forward cannot take */
  step(parts: readonly StepRows[], options: StepOptions): Promise<StepLogits[]>;
  /**
   * One forward over rows of one sequence, at most `maxRows`; at most `maxWanted` if logits or `next` are wanted.
   * @throws OptionError for rows that a forward cannot take; LanewiseError UnknownTap, NumericError
   */
  evaluate(sequence: SequenceHandle, tokens: readonly number[], wishes: RowWishes): Promise<RowResults>;
  /** Writes the full blocks of the cache to a file. */
  saveCache(file: string): Promise<CacheFileContent>;
  /** Adds the blocks of a file to the cache; none after an error. @throws FormatError, OutOfMemoryError */
  restoreCache(file: string): Promise<CacheFileContent>;
  stats(): SchedulerStats;
}
