/** How many rows, positions and bytes of cache a loaded model has. */
import type { CacheSize } from '../backend/backend.ts';
import type { WasmHost } from '../backend/wasm/threads/host.ts';
import { OptionError } from '../errors.ts';
import { type Dtype, tensorBytes } from '../formats/safetensors.ts';
import type { ModelKind } from '../models/architecture.ts';
import type { ModelDescription } from '../models/index.ts';
import type { TensorShape } from '../models/weights.ts';
import { weightType } from '../quant/ggml.ts';
import { SHARED_ROWS } from '../schedule/text-scheduler.ts';
import { DEFAULT_CONTEXT, type LoadOptions } from './options.ts';

/** Most rows of a forward: enough to reuse weights well, few enough for a quick abort. */
const MAX_ROWS = 128;
/** Most sequences of a forward, and most bytes of their logits. */
const MAX_WANTED = 64;
const LOGITS_BYTES = 64e6;

/** Largest number of rows of a forward; an encoder needs all rows of a text in one forward. */
export function rowsOf(
  { kind, config }: ModelDescription,
  contextLength: number,
): { maxRows: number; maxWanted: number } {
  if (kind === 'encoder') return { maxRows: Math.max(contextLength, SHARED_ROWS), maxWanted: 1 };
  const maxWanted = Math.max(1, Math.min(MAX_WANTED, Math.floor(LOGITS_BYTES / (4 * config.vocab))));
  return { maxRows: MAX_ROWS, maxWanted };
}

/**
 * Size of the KV cache. By default it holds a full context for each sequence of a forward, but takes at most a quarter
 * of the machine's memory, or half of the unused memory that the weights leave.
 * @param share of that limit
 * @throws OptionError
 */
export function cacheSize(
  kind: ModelKind,
  { cacheTokens: tokens, cacheMemory: bytes }: Pick<LoadOptions, 'cacheTokens' | 'cacheMemory'>,
  contextLength: number,
  { plan }: Pick<ModelDescription, 'plan'>,
  { memoryBytes, unusedBytes = memoryBytes }: WasmHost,
  share = 1,
): CacheSize {
  if (kind === 'encoder') return { contextLength };
  if (tokens !== undefined && tokens < contextLength)
    throw new OptionError('cacheTokens', `at least the contextLength of ${contextLength}`, tokens);
  if (bytes !== undefined && bytes > memoryBytes)
    throw new OptionError('cacheMemory', `at most ${memoryBytes}, the memory of this machine`, bytes);
  const left = unusedBytes - plan.weights.reduce((sum, weight) => sum + weight.bytes, 0);
  const mostBytes = Math.max(0, Math.min(memoryBytes / 4, left / 2)) * share;
  return { contextLength, tokens, bytes, mostTokens: MAX_WANTED * contextLength, mostBytes };
}

/** @param maxTokens limit of texts in the model's files, which an option may exceed @throws OptionError */
export function contextOf(
  { kind, config: { contextLength: most } }: Pick<ModelDescription, 'kind' | 'config'>,
  settings: Pick<LoadOptions, 'cacheTokens' | 'contextLength'>,
  maxTokens = most,
  mostContext: number = DEFAULT_CONTEXT[kind],
): number {
  const { cacheTokens = most, contextLength = Math.min(most, maxTokens, mostContext, cacheTokens) } = settings;
  if (contextLength > most) throw new OptionError('contextLength', `at most ${most}, the model's limit`, contextLength);
  return contextLength;
}

/** Bytes of a tensor in its file. */
export function fileBytes({ dtype, shape }: Pick<TensorShape, 'dtype' | 'shape'>): number {
  const type = weightType(dtype);
  const count = shape.reduce((a, b) => a * b, 1);
  return type ? (count / type.block) * type.bytes : (tensorBytes(dtype as Dtype, shape) ?? 0);
}
