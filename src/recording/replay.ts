/** Replays a recording: runs its requests again, one by one, and compares every state, logit and token. */
import { FormatError, OptionError } from '../errors.ts';
import type { KvStorage } from '../quant/kv-cache.ts';
import type { Storage } from '../quant/storage.ts';
import { Comparison, type ReplayedRequest } from './compare.ts';
import type { Entry, Head, RecordedRequest, RecordingContent } from './format.ts';
import { Recording } from './recorder.ts';

/** The part of a model that a replay needs. */
export interface ReplayModel {
  generate(
    prompt: { readonly tokenIds: readonly number[] },
    options: Readonly<Record<string, unknown>>,
  ): { readonly result: Promise<{ readonly text: string }> };
  dispose(): Promise<void>;
}

/** Options of a load that gives the recorded bits. */
export interface ReplayLoad {
  readonly record: Recording;
  /** A storage plan. */
  readonly quantize: { readonly version: 1; readonly weights: Readonly<Record<string, Storage>> };
  readonly kvCache: KvStorage;
  readonly backend: 'wasm' | 'reference';
  readonly contextLength: number;
}

export interface ReplayOptions<M extends ReplayModel> {
  /** Name of the recording, for errors. */
  readonly file: string;
  readonly load: (options: ReplayLoad, head: Head) => Promise<M>;
  /** Called with the positions computed so far, and those of the recording. */
  readonly onProgress?: (done: number, total: number) => void;
  readonly signal?: AbortSignal | undefined;
}

export interface ReplayReport {
  /** Whether all requests that can be replayed are equal, bit for bit. */
  readonly equal: boolean;
  readonly requests: readonly ReplayedRequest[];
  /** Names of the weights that differ from the recording. */
  readonly weights: readonly string[];
}

/**
 * @throws FormatError OtherModel for a recording of another model, InvalidRecording for options that no generation takes;
 * what the load throws
 */
export async function replayRecording<M extends ReplayModel>(
  content: RecordingContent,
  { file, load, onProgress, signal }: ReplayOptions<M>,
): Promise<ReplayReport> {
  let stop = new AbortController();
  const comparison = new Comparison(content, file, () => stop.abort());
  const { head, requests } = content;
  const { kvCache, backend, contextLength } = head.load;
  const total = requests.reduce((sum, { prompt, tokens }) => sum + prompt.length + Math.max(0, tokens.length - 1), 0);
  let done = 0;
  const take = (entry: Entry): void => {
    comparison.take(entry);
    if ('rows' in entry) onProgress?.((done += entry.rows.length), total);
  };
  // The load checks their values.
  const recorded = { quantize: head.plan, kvCache, backend, contextLength } as Omit<ReplayLoad, 'record'>;
  const model = await load({ record: new Recording(take), ...recorded }, head).catch((error) => {
    if (!(error instanceof OptionError) || !Object.hasOwn(recorded, error.option)) throw error;
    // The names of weights and the longest context are those of another model.
    const other = ['quantize', 'contextLength'].includes(error.option);
    const { name, type, layers, dim, vocab } = head.model;
    const size = `${type}, ${layers} layers, width ${dim}, vocabulary ${vocab}`;
    throw other
      ? new FormatError('OtherModel', file, `recorded with ${name} (${size}), the model given is another one`)
      : new FormatError('InvalidRecording', file, error.message);
  });
  try {
    if (comparison.refused) throw comparison.refused;
    const results: ReplayedRequest[] = [];
    for (const [index, request] of requests.entries()) {
      signal?.throwIfAborted();
      const stopping = new AbortController();
      stop = stopping;
      const abort = (): void => stopping.abort();
      signal?.addEventListener('abort', abort);
      comparison.next(index);
      const skipped = whyNot(request);
      if (skipped === undefined) await run(model, request, { index, file, signal: stopping.signal });
      signal?.removeEventListener('abort', abort);
      signal?.throwIfAborted();
      results.push({ ...comparison.result(), skipped });
    }
    const equal = results.every(({ difference }) => difference === undefined);
    return { equal, requests: results, weights: comparison.weights };
  } finally {
    await model.dispose();
  }
}

function whyNot({ functions, prompt }: RecordedRequest): string | undefined {
  if (functions.length > 0) return `its ${functions.join(' and ')} came from a program`;
  return prompt.length === 0 ? 'it had no prompt' : undefined;
}

async function run(
  model: ReplayModel,
  { prompt, options, tokens }: RecordedRequest,
  { index, file, signal }: { readonly index: number; readonly file: string; readonly signal: AbortSignal },
): Promise<void> {
  const { logitBias } = options;
  try {
    const generation = model.generate(
      { tokenIds: prompt },
      {
        ...options,
        ...(Array.isArray(logitBias) && { logitBias: new Map(logitBias.map(biasOf)) }),
        maxTokens: Math.max(1, tokens.length),
        // Without it, what the cache has of an earlier request would not be computed, and not compared.
        cacheKey: `replay ${index}`,
        signal,
        throwOnAbort: false,
      },
    );
    await generation.result;
  } catch (error) {
    if (!(error instanceof OptionError)) throw error;
    throw new FormatError('InvalidRecording', file, `request ${index}: ${error.message}`);
  }
}

const biasOf = (pair: unknown): [unknown, unknown] => {
  const [id, bias] = Array.isArray(pair) ? (pair as readonly unknown[]) : [pair];
  return [id, bias ?? Number.NEGATIVE_INFINITY];
};
