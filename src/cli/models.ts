/** Resolves MODEL of a command line, and describes a model in a few lines. */
import type { Model } from '../engine/model.ts';
import { isQuantized } from '../measure/turn.ts';
import { embeddedModel, type ModelDescription } from '../node.ts';
import { fetchModel } from './hub.ts';
import type { StoredLayer } from './storage-table.ts';
import { UsageError } from './terminal.ts';

/** Options of commands that take MODEL. */
export interface ModelFlags {
  /** Replaces MODEL. */
  safetensors?: string;
  /** Revision of a model of the hub. */
  revision?: string;
}

/** Path of MODEL. A model of the hub is downloaded if the cache lacks it. */
export async function modelPath(positional: string | undefined, flags: ModelFlags = {}): Promise<string> {
  const name = modelName(positional, flags);
  return name === embeddedModel ? name : fetchModel(name, flags.revision);
}

/** MODEL as given, or the embedded model. @throws UsageError */
export function modelName(positional: string | undefined, { safetensors, revision }: ModelFlags): string {
  if (positional !== undefined && safetensors !== undefined)
    throw new UsageError('give MODEL or --safetensors, not both');
  const given = positional ?? safetensors;
  if (given !== undefined) return given;
  if (revision === undefined) return embeddedModel;
  throw new UsageError('--revision is for models of the hub: name MODEL too');
}

/** The linear layers of a plan, for tables. */
export function linearLayers({ plan }: ModelDescription): StoredLayer[] {
  return plan.weights
    .filter(({ linear }) => linear)
    .map(({ name, role, shape, storage, reason, bytes }) => ({
      name,
      role,
      in: shape[1]!,
      out: shape[0]!,
      stored: storage,
      quantized: isQuantized(storage),
      reason,
      bytes,
    }));
}

/** `gpt2, 6 layers, width 256, 4 heads, vocabulary 4096, context 512: 5.9M parameters` */
export function modelLine({ modelType, config, parameters }: ModelDescription): string {
  const { layers, dim, heads, kvHeads, vocab, contextLength } = config;
  const groups = kvHeads === heads ? `${heads} heads` : `${heads} heads on ${kvHeads}`;
  return `${modelType}: ${(parameters / 1e6).toFixed(1)}M parameters, ${layers} layers, width ${dim}, ${groups}, vocabulary ${vocab}, context ${contextLength}`;
}

/** `13 of 37 linear layers stored as Q8_0, 24 as F16 (max dim 256 < 1024)` */
export function storageLine(description: ModelDescription): string {
  const layers = linearLayers(description);
  const kinds = new Map<string, StoredLayer[]>();
  for (const layer of layers) kinds.set(layer.stored, [...(kinds.get(layer.stored) ?? []), layer]);
  const parts = [...kinds]
    .sort(([a], [b]) => Number(isQuantized(b)) - Number(isQuantized(a)))
    .map(([stored, group], index) => {
      const reason = isQuantized(stored) ? '' : ` (${[...new Set(group.map((layer) => layer.reason))].join('; ')})`;
      return index === 0
        ? `${group.length} of ${layers.length} linear layers stored as ${stored.toUpperCase()}${reason}`
        : `${group.length} as ${stored.toUpperCase()}${reason}`;
    });
  return parts.join(', ');
}

/** Load time by phase. */
export function loadLine({ loadTimes, threads, vectorBits }: Model): string {
  const { ms: total, readMs, quantizeMs, packMs, bytesRead } = loadTimes;
  const rate = (ms: number): string => `${ms.toFixed(0)} ms`;
  return `loaded ${(bytesRead / 1e6).toFixed(1)} MB in ${rate(total)} (${(bytesRead / total / 1e6).toFixed(2)} GB/s; all threads: read ${rate(readMs)}, quantize ${rate(quantizeMs)}, pack ${rate(packMs)}) on ${threads} thread${threads > 1 ? 's' : ''}${vectorBits ? `, ${vectorBits}-bit kernels` : ''}`;
}
