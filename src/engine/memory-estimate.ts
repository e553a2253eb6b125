/**
 * The memory that a model will take, from its headers: by storage policy, context and storage of keys and values. The
 * plan is lowered as for a load, so these are the addresses that the load will use.
 */
import { PAGE } from '../backend/backend.ts';
import { joinTensors } from '../backend/join-tensors.ts';
import { planMachine } from '../backend/wasm/create.ts';
import { type Footprint, footprint } from '../backend/wasm/footprint.ts';
import type { WasmHost } from '../backend/wasm/threads/host.ts';
import { noSettings, readSentenceSettings } from '../embedding/sentence-settings.ts';
import { OptionError, OutOfMemoryError } from '../errors.ts';
import type { FileFolder } from '../formats/bytes.ts';
import type { ModelKind } from '../models/architecture.ts';
import { buildModel, type ModelDescription } from '../models/index.ts';
import { parseQuantize } from '../models/policy.ts';
import { type Quantize, quantizeText } from '../models/storage-plan.ts';
import type { KvStorage } from '../quant/kv-cache.ts';
import { SHARED_TEXTS } from '../schedule/text-scheduler.ts';
import { type OpenModel, openModel } from './open.ts';
import { validateLoad } from './options.ts';
import { cacheSize, contextOf, fileBytes, rowsOf } from './sizes.ts';

export interface EstimateOptions {
  /** Storage policies or plans. Default: that of `load`, and some others. */
  policies?: readonly Quantize[];
  /** Context lengths. Default: 512, that of `load`, and the model's. */
  contexts?: readonly number[];
  /** Storages of keys and values. Default: f32, as of `load`. */
  kvCaches?: readonly KvStorage[];
  /** As for `load`. */
  threads?: number;
  revectorize?: boolean;
}

/**
 * With `processBytes` for the rest of the program. `fits`: in the unused memory; `tight`: only in memory that others use at present; `exceeds`: not on this machine;
 * `unsupported`: the model cannot keep keys and values in this storage.
 */
export type Fit = 'fits' | 'tight' | 'exceeds' | 'unsupported';

export interface MemoryEstimate {
  readonly name: string;
  readonly kind: ModelKind;
  readonly modelType: string;
  readonly parameters: number;
  /** Bytes of the tensors in the model's files: what a download takes, apart from small files. */
  readonly fileBytes: number;
  /** What `load` would choose. */
  readonly policy: string;
  readonly contextLength: number;
  readonly threads: number;
  /** Bytes of memory of this machine, and those that nobody uses at present; undefined: not known. */
  readonly memoryBytes: number;
  readonly unusedBytes: number | undefined;
  /** Bytes that the program takes besides its rows: engine of JavaScript, code, threads, tokenizer. A round number. */
  readonly processBytes: number;
  readonly rows: readonly MemoryRow[];
}

/** Memory of a loaded model. All sizes are bytes, with padding. */
export interface MemoryRow {
  readonly policy: string;
  readonly contextLength: number;
  /** Undefined for an encoder, which keeps no keys and values between forwards. */
  readonly kvCache: KvStorage | undefined;
  /** Undefined if the load would be refused; see `reason`. */
  readonly memory: RowMemory | undefined;
  readonly fits: Fit;
  readonly reason: string | undefined;
}

export interface RowMemory {
  readonly weights: number;
  /** Rows of a forward, tapes, tables, scratch areas of threads. */
  readonly activations: number;
  /** Keys and values of one text that fills the context; an encoder keeps them during a forward only. */
  readonly cache: number;
  /** The largest cache that `load` would allow by default, for many texts; it grows only as texts need it. */
  readonly mostCache: number;
  /** Areas for reading files, where the cache comes later. */
  readonly staging: number;
  /** Of all memories with one text. */
  readonly total: number;
  /** Bytes of each 32-bit memory, of at most 4 GiB. */
  readonly memories: readonly number[];
}

export interface EstimateSource {
  readonly folder: FileFolder;
  readonly file?: string | undefined;
  readonly host: WasmHost;
}

const otherPolicies = ['none', 'q8_0', 'q6_k', 'q4_k', 'iq4_nl', 'q4_0'];

/** Measured under Node 24 with 2 threads: 220 MB (small vocabulary) to 350 MB (262,144 tokens). */
const PROCESS_BYTES = 300e6;

/** Bytes of an output head compared with the embedding, for files that have both although they are tied. */
const COMPARED_BYTES = 2 ** 20;

/**
 * Reads headers and settings only. @throws FormatError, ModelError, OptionError
 */
export async function estimateMemory(
  { folder, file, host }: EstimateSource,
  options: EstimateOptions = {},
): Promise<MemoryEstimate> {
  const files = await openModel(folder, file, COMPARED_BYTES);
  try {
    const { kind, modelType, parameters, config } = modelWith(files, files.defaultPolicy);
    const settings = settingsOf(options, kind);
    const { maxTokens } = kind === 'encoder' && !files.metadata ? await readSentenceSettings(folder) : noSettings;
    const standard = contextOf({ kind, config }, {}, maxTokens);
    const { threads, choice } = planMachine({ host, ...settings });
    const {
      policies = [...new Set([files.defaultPolicy, ...otherPolicies])],
      contexts = [...new Set([Math.min(512, standard), standard, config.contextLength])],
    } = settings;
    for (const contextLength of contexts) contextOf({ kind, config }, { contextLength });
    const rows = policies.flatMap((quantize) =>
      settings.kvCaches.flatMap((kvCache) =>
        contexts.map((contextLength) => rowFor(files, host, { quantize, contextLength, kvCache, threads, choice })),
      ),
    );
    return {
      name: files.metadata || file ? `${folder.name}/${file ?? files.files[0]}` : folder.name,
      kind,
      modelType,
      parameters,
      fileBytes: [...files.tensors.values()].reduce((sum, tensor) => sum + fileBytes(tensor), 0),
      policy: files.defaultPolicy,
      contextLength: standard,
      threads,
      memoryBytes: host.memoryBytes,
      unusedBytes: host.unusedBytes,
      processBytes: PROCESS_BYTES,
      rows,
    };
  } finally {
    await files.close();
  }
}

interface Settings extends Pick<EstimateOptions, 'policies' | 'contexts' | 'threads'> {
  readonly kvCaches: readonly (KvStorage | undefined)[];
  readonly revectorize: boolean;
}

/** @throws OptionError */
function settingsOf(options: EstimateOptions, kind: ModelKind): Settings {
  const { policies, contexts, kvCaches, threads, revectorize, ...unknown } = options;
  const [other] = Object.keys(unknown);
  if (other !== undefined)
    throw new OptionError(
      other,
      'left out (no such option; known: policies, contexts, kvCaches, threads, revectorize)',
      (unknown as Record<string, unknown>)[other],
    );
  for (const [name, list] of Object.entries({ policies, contexts, kvCaches }))
    if (list !== undefined && !(Array.isArray(list) && list.length > 0))
      throw new OptionError(name, 'an array with at least one item', list);
  for (const quantize of policies ?? []) parseQuantize(quantize, 'policies');
  for (const contextLength of contexts ?? []) validateLoad({ contextLength });
  for (const kvCache of kvCaches ?? []) validateLoad({ kvCache });
  if (kind === 'encoder' && kvCaches?.some((storage) => storage !== 'f32'))
    throw new OptionError('kvCaches', 'left out: an encoder keeps no keys and values', kvCaches.join(', '));
  const { revectorize: widens } = validateLoad({ threads, revectorize });
  return {
    policies,
    contexts,
    threads,
    revectorize: widens,
    kvCaches: kind === 'encoder' ? [undefined] : (kvCaches ?? ['f32']),
  };
}

const modelWith = (files: OpenModel, quantize: Quantize, kvCache?: KvStorage): ModelDescription =>
  buildModel(files.config, files.tensors, {
    policy: parseQuantize(quantize),
    kvCache,
    origin: files.origin,
    headDiffers: files.headDiffers,
  });

type RowOptions = Pick<MemoryRow, 'contextLength' | 'kvCache'> &
  Pick<Parameters<typeof footprint>[0], 'threads' | 'choice'> & { readonly quantize: Quantize };

function rowFor(files: OpenModel, host: WasmHost, options: RowOptions): MemoryRow {
  const { quantize, contextLength, kvCache, threads, choice } = options;
  const row = { policy: quantizeText(quantize), contextLength, kvCache };
  let found: Footprint;
  try {
    const description = modelWith(files, quantize, kvCache);
    const { kind, plan } = description;
    found = footprint({
      plan,
      ...rowsOf(description, contextLength),
      cache: cacheSize(kind, {}, contextLength, description, host),
      tensor: joinTensors({ plan, tensor: (name) => files.tensor(name) }),
      threads,
      choice,
    });
  } catch (error) {
    const unsupported = error instanceof OptionError && error.option === 'kvCache';
    if (!(unsupported || error instanceof OutOfMemoryError)) throw error;
    return { ...row, memory: undefined, fits: unsupported ? 'unsupported' : 'exceeds', reason: error.message };
  }
  const { staging } = found;
  const memories = found.memories(contextLength);
  const total = memories.reduce((sum, bytes) => sum + bytes, 0);
  // Each of many short texts has a page of its own.
  const mostPositions = kvCache === undefined ? Math.max(contextLength, SHARED_TEXTS * PAGE) : found.mostPositions;
  const mostCache = found.memory(mostPositions).cache;
  const memory = { ...found.memory(contextLength), mostCache, staging, total, memories };
  return { ...row, memory, ...verdict(total, host) };
}

function verdict(total: number, { memoryBytes, unusedBytes }: WasmHost): Pick<MemoryRow, 'fits' | 'reason'> {
  const needed = total + PROCESS_BYTES;
  if (needed > memoryBytes) return { fits: 'exceeds', reason: 'more than the memory of this machine' };
  if (unusedBytes !== undefined && needed > unusedBytes)
    return { fits: 'tight', reason: 'other programs use a part of that memory at present' };
  return { fits: 'fits', reason: undefined };
}
