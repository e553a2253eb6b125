/** The options of `load` and `loadEncoder`. */
import { MAX_THREADS } from '../backend/backend.ts';
import { OptionError } from '../errors.ts';
import { parseQuantize } from '../models/policy.ts';
import type { Quantize } from '../models/storage-plan.ts';
import type { TapChoice } from '../plan/taps.ts';
import { Trace } from '../profile/trace.ts';
import { type KvStorage, kvStorages } from '../quant/kv-cache.ts';
import { Recording } from '../recording/recorder.ts';

export { mixtureHint, typeName } from '../models/policy.ts';

/** The default context is the model's, but at most this. */
export const DEFAULT_CONTEXT = { decoder: 4096, encoder: 8192 } as const;

/** A draft model for speculative decoding. */
export interface DraftOptions {
  /** A path or an id, as for `load`. Default: the model itself, which is useful with another storage policy. */
  path?: string;
  /** Storage policy or plan. Default: that of `load`. */
  quantize?: Quantize;
}

export interface LoadOptions {
  /**
   * Whether to run the engine in the calling thread instead of a separate one: each forward then blocks the event loop
   * (docs/hosting.md). Default false.
   */
  inline?: boolean;
  /**
   * How weights are stored: a policy (src/models/policy.ts) or a plan with a storage for each weight (docs/plans.md). Default
   * `q8_0:min-dim=1024`; for encoders and GGUF files `none`.
   */
  quantize?: Quantize;
  /** Number of threads. Default: the number of cores. */
  threads?: number;
  /**
   * Whether to use 256-bit kernels, if the engine is V8 with the flag for them; otherwise kernels have 128 bits.
   * Results have the same bits. Default true.
   */
  revectorize?: boolean;
  /** Largest number of positions of a sequence. Default: the model's, but at most 4096, or 8192 for an encoder. */
  contextLength?: number;
  /**
   * Storage of cached keys and values (docs/kv-cache.md): f32 exact, f16 with half the bytes, q8_0 with 28 %. Default f32.
   */
  kvCache?: KvStorage;
  /**
   * Size of the KV cache, which all sequences share (docs/kv-cache.md), in tokens or bytes. At least one context.
   * Default: a context for each sequence of a forward, but at most a quarter of the machine's memory.
   */
  cacheTokens?: number;
  cacheMemory?: number;
  /** Largest number of waiting requests; more are refused with the error Busy. Default 512. */
  maxQueue?: number;
  /**
   * Target for the longest forward, in milliseconds, while any text is generated: prompts are computed in chunks.
   * Default 100.
   */
  stepBudgetMs?: number;
  /**
   * A smaller model with the same tokens for speculative decoding, which leaves the text unchanged (docs/drafts.md): a
   * path or id, or an object with its storage policy too.
   */
  draft?: string | DraftOptions;
  /** `reference` is the slow definition in plain TypeScript. Default `wasm`. */
  backend?: 'wasm' | 'reference';
  /**
   * Rows that forwards keep for inspection (`Model.forward`): `hidden` the hidden states of the layers, `inputs` the inputs of
   * all matrices, `{ steps: 'layer[1]' }` the results of the plan's steps in a scope (`''`: all). Default: none.
   */
  taps?: TapChoice;
  /** Where the timeline of the load and of everything that the model does is written (docs/trace.md). Default: nowhere. */
  trace?: Trace;
  /** Where all requests are recorded, for a replay that compares every bit (docs/replay.md). Default: nowhere. */
  record?: Recording;
  /** Called with the bytes of files read so far, and their total. */
  onProgress?: (done: number, total: number) => void;
  /** Called with warnings. */
  onWarning?: (text: string) => void;
  signal?: AbortSignal;
}

export interface LoadSettings extends Omit<LoadOptions, 'draft'> {
  readonly inline: boolean;
  readonly backend: 'wasm' | 'reference';
  readonly kvCache: KvStorage;
  readonly revectorize: boolean;
  readonly maxQueue: number;
  readonly stepBudgetMs: number;
  readonly draft?: DraftOptions;
}

const known: Record<keyof LoadOptions, true> = {
  inline: true,
  quantize: true,
  threads: true,
  revectorize: true,
  contextLength: true,
  kvCache: true,
  cacheTokens: true,
  cacheMemory: true,
  maxQueue: true,
  stepBudgetMs: true,
  draft: true,
  backend: true,
  taps: true,
  onProgress: true,
  onWarning: true,
  trace: true,
  record: true,
  signal: true,
};

/** @throws OptionError naming the option */
export function validateLoad(options: LoadOptions): LoadSettings {
  if (typeof options !== 'object' || options === null) throw new OptionError('options', 'an object', options);
  for (const [key, value] of Object.entries(options)) {
    if (!Object.hasOwn(known, key))
      throw new OptionError(key, `left out (no such option; known: ${Object.keys(known).join(', ')})`, value);
  }
  const {
    inline = false,
    quantize,
    contextLength,
    cacheTokens,
    cacheMemory,
    threads,
    backend = 'wasm',
    taps,
    kvCache = 'f32',
    revectorize = true,
    maxQueue = 512,
    stepBudgetMs = 100,
  } = options;
  if (quantize !== undefined) parseQuantize(quantize);
  const count = (name: string, value: number | undefined, most: number, standard: string): void => {
    if (value !== undefined && !(Number.isInteger(value) && value >= 1 && value <= most))
      throw new OptionError(name, `an integer from 1 to ${most} (default: ${standard})`, value);
  };
  count('contextLength', contextLength, 2 ** 24, "the model's, at most 4096, or 8192 for an encoder");
  count('cacheTokens', cacheTokens, 2 ** 40, 'depends on the memory of this machine');
  count('cacheMemory', cacheMemory, Number.MAX_SAFE_INTEGER, 'depends on the memory of this machine');
  if (cacheTokens !== undefined && cacheMemory !== undefined)
    throw new OptionError('cacheMemory', 'left out if cacheTokens is given', cacheMemory);
  count('threads', threads, MAX_THREADS, 'the number of cores');
  if (options.signal !== undefined && !(options.signal instanceof AbortSignal))
    throw new OptionError('signal', 'an AbortSignal', options.signal);
  if (options.trace !== undefined && !(options.trace instanceof Trace))
    throw new OptionError('trace', 'a Trace', options.trace);
  if (options.record !== undefined && !(options.record instanceof Recording))
    throw new OptionError('record', 'a Recording', options.record);
  if (options.record !== undefined && options.taps !== undefined)
    throw new OptionError('taps', 'left out with record, which has taps of its own', options.taps);
  if (typeof inline !== 'boolean') throw new OptionError('inline', 'true or false', inline);
  if (backend !== 'wasm' && backend !== 'reference') throw new OptionError('backend', 'wasm or reference', backend);
  if (!kvStorages.includes(kvCache)) throw new OptionError('kvCache', 'f32, f16 or q8_0', kvCache);
  if (typeof revectorize !== 'boolean') throw new OptionError('revectorize', 'true or false', revectorize);
  if (!(Number.isInteger(maxQueue) && maxQueue >= 0)) throw new OptionError('maxQueue', 'an integer >= 0', maxQueue);
  if (!(typeof stepBudgetMs === 'number' && stepBudgetMs > 0))
    throw new OptionError('stepBudgetMs', 'a number of milliseconds > 0', stepBudgetMs);
  const steps = typeof taps === 'object' && taps !== null ? taps.steps : undefined;
  if (taps !== undefined && taps !== 'hidden' && taps !== 'inputs' && typeof steps !== 'string')
    throw new OptionError('taps', 'hidden, inputs, or { steps } with a scope such as layer[1]', taps);
  const { draft, ...rest } = options;
  return {
    ...rest,
    ...(draft !== undefined && { draft: readDraft(draft) }),
    inline,
    backend,
    kvCache,
    revectorize,
    maxQueue,
    stepBudgetMs,
  };
}

/** @throws OptionError */
function readDraft(draft: unknown): DraftOptions {
  if (typeof draft === 'string') return { path: draft };
  if (typeof draft !== 'object' || draft === null)
    throw new OptionError('draft', 'the path or id of a model, or an object with path and quantize', draft);
  for (const [key, value] of Object.entries(draft)) {
    if (key !== 'path' && key !== 'quantize')
      throw new OptionError(`draft.${key}`, 'left out (no such option; known: path, quantize)', value);
  }
  const { path, quantize } = draft as DraftOptions;
  if (path !== undefined && typeof path !== 'string') throw new OptionError('draft.path', 'a string', path);
  if (quantize !== undefined) parseQuantize(quantize, 'draft.quantize');
  return { ...(path !== undefined && { path }), ...(quantize !== undefined && { quantize }) };
}
