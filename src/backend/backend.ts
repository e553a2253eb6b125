/** What an engine needs from a backend: weights in, rows in, logits out. */
import { OptionError } from '../errors.ts';
import type { Plan, PlannedWeight } from '../plan/step.ts';
import type { BlockStorage, FloatStorage } from '../quant/storage.ts';
import type { Explanation } from './explanation.ts';

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
  /**
   * Page table of each sequence: entry p is the page that holds positions p * PAGE .. p * PAGE + PAGE - 1. At most `maxRows`
   * tables.
   */
  readonly pages: readonly Int32Array[];
  /**
   * Cell table of each sequence (see CachePages.cells), for caches without a window: entry p is the cell that holds positions
   * p * PAGE .. p * PAGE + PAGE - 1. Default: the first cell of each page.
   */
  readonly cells?: readonly Int32Array[];
  /** Rows whose logits are wanted, ascending. [W] */
  readonly wanted: Int32Array;
  /**
   * Tokens of each sequence, those of forwards to come included: models with frequencies for long sequences (LongRoPE)
   * choose by it. Default: as many as there are up to the sequence's last row.
   */
  readonly lengths?: Int32Array;
  /** Default: 'off'. */
  readonly timing?: Timing;
  /**
   * Called after each walk of the threads: for the steps of the plan, in one or more walks, and for each draw from the
   * results. Every thread reads the clock for it.
   */
  readonly onWalk?: ((walk: WalkTimes) => void) | undefined;
}

/** Work that all threads do in one go, and the times of each. Valid during the call of `onWalk`. */
export interface WalkTimes {
  /** The same object for all walks over the same records. */
  readonly records: readonly WalkRecord[];
  readonly threads: readonly ThreadTimes[];
}

/** A unit of work between two readings of the clock. */
export interface WalkRecord {
  /** Index into the plan's steps; undefined: a draw. */
  readonly step: number | undefined;
  /** Kind of the kernel: `matmul_q8_0`. */
  readonly kernel: string;
}

/** Times of one thread in a walk, in milliseconds of its own clock. */
export interface ThreadTimes {
  /** Added to a time, it gives that of `performance.now()` of the calling thread. */
  readonly offset: number;
  readonly start: number;
  /** When record i and the wait after it had ended. */
  ended(i: number): number;
  /** When the wait after record i began. Without a wait: a time before the start of record i. */
  arrived(i: number): number;
}

/** Tokens of each sequence of a batch. */
export function sequenceLengths({ pages, positions, sequences, lengths }: Batch): Int32Array {
  if (lengths) return lengths;
  const found = new Int32Array(pages.length);
  for (const [row, sequence] of sequences.entries()) found[sequence] = positions[row]! + 1;
  return found;
}

/** The largest number of threads of a backend. */
export const MAX_THREADS = 64;

/** Positions per page of the key/value cache. Attention adds up page by page, so this number is part of the results' bits. */
export const PAGE = 64;

/** Location of bytes in an open file; every thread of the process can read it. */
export interface FilePlace {
  /** File descriptor. */
  readonly descriptor: number;
  /** Byte position in the file. */
  readonly offset: number;
}

/** The values of one tensor of a file, row-major, little-endian. Values stored as blocks are dequantized. */
export interface TensorData {
  /** File and tensor name, for error messages; default: the name of the weight's source. */
  readonly place?: string;
  readonly dtype: FloatStorage;
  readonly shape: readonly number[];
  readonly byteLength: number;
  /** Fills `target` with the bytes from `start` (relative to the tensor). */
  readInto(start: number, target: Uint8Array): Promise<void>;
  /** Location of the same bytes, if threads can read them themselves. */
  readonly inFile?: FilePlace;
  /** The file's bytes themselves, if they are blocks of a storage that weights can have. Rows are whole blocks. */
  readonly blocks?: BlockData;
}

export interface BlockData extends Pick<TensorData, 'readInto' | 'inFile'> {
  readonly storage: BlockStorage;
}

export interface LoadTimes {
  /** From the first byte to the last weight. */
  readonly ms: number;
  /** `readMs`, `quantizeMs` and `packMs` are sums over all threads. */
  readonly readMs: number;
  readonly quantizeMs: number;
  readonly packMs: number;
  readonly bytesRead: number;
}

/** A part of a load. Times as `performance.now()` of the calling thread. */
export interface LoadSpan {
  /** Undefined: a phase of the whole load. */
  readonly thread?: number;
  readonly name: string;
  readonly start: number;
  readonly end: number;
  /** The first weight of a slab, and the bytes of the slab. */
  readonly weight?: string;
  readonly bytes?: number;
}

export interface BackendOptions {
  readonly plan: Plan;
  /** Largest number of rows of one forward. */
  readonly maxRows: number;
  /** Largest number of wanted rows of one forward. */
  readonly maxWanted: number;
  /** Size of the key/value cache. Default: one page. */
  readonly cache?: CacheSize;
  /** Tensor bytes by the names that the plan's weights give as source. */
  tensor(name: string): TensorData;
  readonly onProgress?: (weight: PlannedWeight, bytesDone: number, bytesTotal: number) => void;
  /** Called with the parts of the load, at the latest when it ends. */
  readonly onSpan?: ((span: LoadSpan) => void) | undefined;
  readonly signal?: AbortSignal;
}

/** Size of the key/value cache. */
export interface CacheSize {
  /** Positions of the longest sequence: the smallest allowed size. */
  readonly contextLength: number;
  /** Size that the user asked for, in positions or bytes. */
  readonly tokens?: number;
  readonly bytes?: number;
  /** Limits of the default size, in positions and bytes. Default: one context. */
  readonly mostTokens?: number;
  readonly mostBytes?: number;
}

/** Smallest allowed and desired number of pages. @throws OptionError */
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

/** Window and cells (see CachePages) of pages made of these caches. */
export function pageCells(caches: readonly { readonly window?: number | undefined; readonly bytes: number }[]): {
  window: number;
  cells: number;
} {
  const sum = (some: typeof caches): number => some.reduce((total, { bytes }) => total + bytes, 0);
  const windowed = caches.filter(({ window }) => window !== undefined);
  const window = windowed.reduce((most, cache) => Math.max(most, cache.window!), 0);
  if (windowed.length === 0) return { window, cells: 1 };
  if (windowed.length === caches.length) return { window, cells: 0 };
  return { window, cells: Math.max(1, Math.floor(sum(caches) / (sum(caches) - sum(windowed)))) };
}

/** When thread 0 reads the clock: never, after the last step of each scope, or after each step. */
export type Timing = 'off' | 'scopes' | 'steps';

export interface StepTime {
  /** Index into the plan's steps. */
  readonly step: number;
  readonly ms: number;
}

export interface LogitsSummary {
  /** The largest logit. NaN if a logit is NaN, Infinity if one is Infinity. */
  readonly largest: number;
  /** Index of the first chunk of SUMMARY_CHUNK logits that holds it. */
  readonly chunk: number;
  /** Natural logarithm of the sum of e^logit. */
  readonly logSumExp: number;
  /** Per chunk of SUMMARY_CHUNK logits: the largest, and the sum of e^(logit - largest). [2 * chunks] */
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
  /** Vector width of the kernels in bits; undefined if the backend has no kernels. */
  readonly vectorBits: 128 | 256 | undefined;
  readonly maxRows: number;
  readonly maxWanted: number;
  readonly loadTimes: LoadTimes;
  /** Bytes held in memory: weights with their padding, activations, cache pages. */
  memory(): { weights: number; activations: number; cache: number };
  /** What was decided while it was made, and why. */
  explain(): readonly Explanation[];
  readonly cache: CachePages;
  /** Runs the plan. Rejects when a thread fails; the cache content of the batch's rows is then undefined. */
  forward(batch: Batch): Promise<Results>;
  dispose(): Promise<void>;
}

/** Results of a forward. Valid until the next forward begins. */
export interface Results {
  /** Logits of wanted row i, or an encoder's hidden state of row i: a view. */
  output(i: number): Float32Array;
  /** Summary of the logits of wanted row i, for sampling. */
  summary(i: number): LogitsSummary;
  /** Token ids that draws from wanted rows come to; -1 where no token is left. The logits are as before afterwards. */
  draw(draws: readonly Draw[]): Promise<Int32Array>;
  /** Copy of a tap. [T, width] */
  tap(name: string): Float32Array;
  /** Empty unless the batch asked for times: per step, or per run of steps with one scope, at its last step. */
  readonly times: readonly StepTime[];
}

/** The pages of the key/value cache. A page holds PAGE positions of every cache of the plan. No forward may run meanwhile. */
export interface CachePages {
  /** Bytes of one page. */
  readonly pageBytes: number;
  /** Largest possible number of pages. */
  readonly capacity: number;
  /** Largest number of page table entries of one forward, over all its sequences. */
  readonly tableEntries: number;
  /** The largest window of all caches, in positions. */
  readonly window: number;
  /**
   * Number of cells of a page. A cell holds PAGE positions of the caches without a window only. Cell c of page p has the number
   * p * cells + c; the first cell of a page is part of the page's own content. 1: pages cannot shrink. 0: all caches have a
   * window, so that a shrunk block needs no cell.
   */
  readonly cells: number;
  /** Number of allocated pages. */
  readonly count: number;
  /** Allocates pages until there are at least `count`. @throws OutOfMemoryError; existing pages keep their content. */
  ensure(count: number): Promise<void>;
  /** Makes page `to` equal page `from`. */
  copy(from: number, to: number): Promise<void>;
  /** Makes a cell equal the first cell of a page. */
  shrink(page: number, cell: number): Promise<void>;
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
