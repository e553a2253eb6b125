/** What an engine needs from a backend: weights in, rows in, logits out. */
import { OptionError } from '../errors.ts';
import type { Plan, PlannedWeight } from '../plan/step.ts';
import type { BlockStorage, FloatStorage } from '../quant/storage.ts';

/**
 * Rows of one forward. Rows of one sequence are neighbours, each position one above the one before. A page that is written
 * belongs to one sequence; pages that are only read may be in the tables of several.
 */
export interface Batch {
  /** Token id of each row. [T] */
  readonly tokens: Int32Array;
  /** Token type of each row, of models that know any; default: 0. [T] */
  readonly types?: Int32Array;
  /** Position of each row in its sequence, from 0. [T] */
  readonly positions: Int32Array;
  /** Index into `pages` of each row's sequence. [T] */
  readonly sequences: Int32Array;
  /** Page table of each sequence, at most one per row of a forward: entry p is the page that holds positions p * PAGE .. p * PAGE + PAGE - 1. */
  readonly pages: readonly Int32Array[];
  /** Rows whose logits are wanted, ascending. [W] */
  readonly wanted: Int32Array;
  /**
   * Tokens of each sequence, those of forwards to come included: models with frequencies for long sequences (LongRoPE)
   * choose by it. Default: as many as there are up to the sequence's last row.
   */
  readonly lengths?: Int32Array;
  /** Default: 'off'. */
  readonly timing?: Timing;
}

/** Tokens of each sequence of a batch. */
export function sequenceLengths({ pages, positions, sequences, lengths }: Batch): Int32Array {
  if (lengths) return lengths;
  const found = new Int32Array(pages.length);
  for (const [row, sequence] of sequences.entries()) found[sequence] = positions[row]! + 1;
  return found;
}

/** Most threads of a backend. */
export const MAX_THREADS = 64;

/** Positions per page of the key/value cache. Attention adds up page by page, so this number is part of the results' bits. */
export const PAGE = 64;

/** Where bytes lie in a file that any thread of the process can read. */
export interface FilePlace {
  /** The system's number of the open file. */
  readonly descriptor: number;
  /** Byte position in the file. */
  readonly offset: number;
}

/** The values of one tensor of a file, row-major, little-endian: as the file stores them, or as blocks stand for them. */
export interface TensorData {
  /** File and name there, for messages; default: the weight's source. */
  readonly place?: string;
  readonly dtype: FloatStorage;
  readonly shape: readonly number[];
  readonly byteLength: number;
  /** Fills `target` with the bytes from `start` (relative to the tensor). */
  readInto(start: number, target: Uint8Array): Promise<void>;
  /** Where the same bytes can be had without `readInto`. */
  readonly inFile?: FilePlace;
  /** The file's own bytes, where they are blocks that weights may be stored in: rows are whole blocks. */
  readonly blocks?: BlockData;
}

export interface BlockData extends Pick<TensorData, 'readInto' | 'inFile'> {
  readonly storage: BlockStorage;
}

export interface LoadTimes {
  /** From the first byte to the last weight. */
  readonly ms: number;
  /** This and the following: the time of all threads, added up. */
  readonly readMs: number;
  readonly quantizeMs: number;
  readonly packMs: number;
  readonly bytesRead: number;
}

export interface BackendOptions {
  readonly plan: Plan;
  /** Most rows of one forward. */
  readonly maxRows: number;
  /** Most wanted rows of one forward. */
  readonly maxWanted: number;
  /** How much room there is to be for the cache, beside the weights. Default: one page. */
  readonly cache?: CacheSize;
  /** Tensor bytes by the names that the plan's weights give as source. */
  tensor(name: string): TensorData;
  readonly onProgress?: (weight: PlannedWeight, bytesDone: number, bytesTotal: number) => void;
  readonly signal?: AbortSignal;
}

/** Size of the key/value cache. */
export interface CacheSize {
  /** Positions of the longest sequence: so many there must be. */
  readonly contextLength: number;
  /** Positions or bytes that somebody asked for. */
  readonly tokens?: number;
  readonly bytes?: number;
  /** Positions, and bytes, that it should not exceed where nobody asked. Default: one context. */
  readonly mostTokens?: number;
  readonly mostBytes?: number;
}

/** Pages that there must be, and pages that there should be. @throws OptionError */
export function cachePages(size: CacheSize = { contextLength: 1 }, pageBytes: number): { least: number; most: number } {
  const { contextLength, tokens, bytes, mostTokens = contextLength, mostBytes = Number.POSITIVE_INFINITY } = size;
  const context = Math.ceil(contextLength / PAGE);
  if (bytes !== undefined) {
    const pages = Math.floor(bytes / pageBytes);
    const least = context * pageBytes;
    if (pages < context)
      throw new OptionError('cacheMemory', `at least ${least} bytes for a contextLength of ${contextLength}`, bytes);
    return { least: pages, most: pages };
  }
  const pages = Math.ceil((tokens ?? mostTokens) / PAGE);
  if (tokens !== undefined) return { least: pages, most: pages };
  return { least: context, most: Math.max(context, Math.min(pages, Math.floor(mostBytes / pageBytes))) };
}

/** A clock is read after each step, after the last step of each scope, or never: a look costs about a microsecond. */
export type Timing = 'off' | 'scopes' | 'steps';

export interface StepTime {
  /** Index into the plan's steps. */
  readonly step: number;
  readonly ms: number;
}

export interface LogitsSummary {
  /** The largest logit; NaN or Infinity where a logit is. */
  readonly largest: number;
  /** Number of the first SUMMARY_CHUNK logits that hold it. */
  readonly chunk: number;
  /** Natural logarithm of the sum of e^logit. */
  readonly logSumExp: number;
  /** For each SUMMARY_CHUNK logits the largest, and the sum of e^(logit - largest). [2 * chunks] */
  readonly chunks: Float32Array;
}

/** How the token of one wanted row is drawn; src/backend/draw.ts defines what each field does. */
export interface Draw {
  /** Index of the wanted row. */
  readonly row: number;
  /** Bit id % 32 of word id / 32 says whether a token may come; default: every token may. [ceil(vocab / 32)] */
  readonly mask?: Uint32Array | undefined;
  /** Logits that count instead of those of the row: of different ids, none NaN or +Infinity. */
  readonly changed?: { readonly ids: Int32Array; readonly logits: Float32Array } | undefined;
  /** 0: the largest logit, the lowest id on a tie. */
  readonly temperature: number;
  /** 0: no cut. */
  readonly topK: number;
  /** 1: no cut. */
  readonly topP: number;
  /** 0: no cut. */
  readonly minP: number;
  /** A number in [0, 1): where in the weight that the cuts leave, laid out by rising id, the draw falls. */
  readonly uniform: number;
}

export interface Backend {
  readonly name: 'reference' | 'wasm';
  readonly threads: number;
  /** Bits of the vectors that its kernels are made for; undefined without kernels. */
  readonly vectorBits: 128 | 256 | undefined;
  readonly maxRows: number;
  readonly maxWanted: number;
  readonly loadTimes: LoadTimes;
  /** Bytes this backend holds: weights as laid out, activations, cache pages. */
  memory(): { weights: number; activations: number; cache: number };
  readonly cache: CachePages;
  /** Runs the plan. Rejects when a thread fails; the cache content of the batch's rows is then undefined. */
  forward(batch: Batch): Promise<Results>;
  dispose(): Promise<void>;
}

/** What a forward computed. Valid until the next forward begins. */
export interface Results {
  /** Logits of wanted row i, or an encoder's hidden state of row i: a view. */
  output(i: number): Float32Array;
  /** What sampling needs to know of the logits of wanted row i. */
  summary(i: number): LogitsSummary;
  /** Token ids that draws from wanted rows come to; -1 where no token is left. The logits are as before afterwards. */
  draw(draws: readonly Draw[]): Promise<Int32Array>;
  /** Copy of a tap. [T, width] */
  tap(name: string): Float32Array;
  /** Where the batch asked for times: per step, or summed up at the last step in a row with one scope. */
  readonly times: readonly StepTime[];
}

/** The pages of the key/value cache. A page holds PAGE positions of every cache of the plan. No forward may run meanwhile. */
export interface CachePages {
  /** Bytes of one page. */
  readonly pageBytes: number;
  /** Pages that there is room for. */
  readonly capacity: number;
  /** Most page table entries of one forward, over all its sequences. */
  readonly tableEntries: number;
  /** Pages there are. */
  readonly count: number;
  /** Makes room for at least `count` pages. @throws OutOfMemoryError; what is cached stays. */
  ensure(count: number): Promise<void>;
  /** Makes page `to` equal page `from`. */
  copy(from: number, to: number): Promise<void>;
  /** Copy of a page's bytes, as this backend keeps them. [pageBytes] */
  read(page: number): Promise<Uint8Array>;
  /**
   * Fills a page with bytes that `read` gave, of this or another backend of the same kind and plan.
   * @param source fills `target` with the bytes from `start` on
   */
  fill(page: number, source: (start: number, target: Uint8Array) => Promise<void>): Promise<void>;
  inspect(page: number): Promise<PageReport>;
}

export interface PageReport {
  /** Of the bytes that `read` gives. */
  readonly checksum: number;
  /** Byte of the first number that is not finite; undefined: all are. */
  readonly notFinite: number | undefined;
}
