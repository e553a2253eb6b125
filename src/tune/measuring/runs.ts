/** Runs a model with given storages over a text. */
import type { Results, TensorData } from '../../backend/backend.ts';
import { createReferenceBackend } from '../../backend/reference/backend.ts';
import { createWasmBackend } from '../../backend/wasm/create.ts';
import type { WasmHost } from '../../backend/wasm/threads/host.ts';
import { Evaluator } from '../../evaluate/evaluator.ts';
import { TextEvaluator } from '../../evaluate/text-evaluator.ts';
import { buildModel } from '../../models/index.ts';
import type { Plan } from '../../plan/step.ts';
import { isBlockStorage, type Storage } from '../../quant/storage.ts';
import type { OpenedModel } from './open-model.ts';

export interface RunSettings {
  readonly host: WasmHost;
  readonly threads?: number | undefined;
  readonly revectorize?: boolean | undefined;
  readonly backend?: 'wasm' | 'reference' | undefined;
  readonly onWarning?: ((text: string) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Rows of a forward. */
export const RUN_ROWS = 64;

/** By the index of the text. */
type Wanted = (text: number) => true | 'all';

export interface RunRows {
  readonly results: Results;
  /** Index of the text, and position of the first row in it. */
  readonly text: number;
  readonly first: number;
  readonly count: number;
  /** Rows with logits; of an encoder all. */
  readonly wanted: number;
}

/** The plan with some weights in given storages and the others exact: floats as the file has them, blocks as f32. */
export function planWith({ files, description }: OpenedModel, weights: Readonly<Record<string, Storage>>): Plan {
  const exact = description.plan.weights.flatMap(({ name, shape, storage }): [string, Storage][] =>
    shape.length === 2 && isBlockStorage(storage) ? [[name, 'f32']] : [],
  );
  const policy = { version: 1 as const, weights: { ...Object.fromEntries(exact), ...weights } };
  const { origin, headDiffers } = files;
  return buildModel(files.config, files.tensors, { policy, origin, headDiffers }).plan;
}

/**
 * Computes texts in chunks of rows.
 * @param texts token ids, each within the context
 * @param wanted the rows of a decoder that have logits: all, or the last of each chunk
 */
export async function runTexts(
  model: OpenedModel,
  plan: Plan,
  texts: readonly (readonly number[])[],
  settings: RunSettings,
  onRows: (rows: RunRows) => void,
  wanted: Wanted = () => 'all',
): Promise<void> {
  const { host, threads, revectorize, onWarning, signal } = settings;
  const longest = texts.reduce((most, { length }) => Math.max(most, length), 1);
  const { name, description, files } = model;
  const isEncoder = description.kind === 'encoder';
  const options = {
    plan,
    maxRows: isEncoder ? Math.max(longest, RUN_ROWS) : RUN_ROWS,
    maxWanted: isEncoder ? 1 : RUN_ROWS,
    cache: { contextLength: longest },
    tensor: (key: string): TensorData => files.tensor(key),
    ...(signal && { signal }),
  };
  const backend =
    settings.backend === 'reference'
      ? await createReferenceBackend(options)
      : await createWasmBackend({
          ...options,
          host,
          ...(threads !== undefined && { threads }),
          ...(revectorize !== undefined && { revectorize }),
          ...(onWarning && { onWarning }),
        });
  const parts = { name, description: { ...description, plan }, backend };
  try {
    if (isEncoder) await encode(new TextEvaluator(parts), texts, onRows, signal);
    else await decode(new Evaluator(parts), texts, onRows, signal, wanted);
  } finally {
    await backend.dispose();
  }
}

async function encode(
  evaluator: TextEvaluator,
  texts: readonly (readonly number[])[],
  onRows: (rows: RunRows) => void,
  signal: AbortSignal | undefined,
): Promise<void> {
  for (const [text, ids] of texts.entries()) {
    signal?.throwIfAborted();
    const { results } = await evaluator.forward([ids]);
    onRows({ results, text, first: 0, count: ids.length, wanted: ids.length });
  }
}

async function decode(
  evaluator: Evaluator,
  texts: readonly (readonly number[])[],
  onRows: (rows: RunRows) => void,
  signal: AbortSignal | undefined,
  wanted: Wanted,
): Promise<void> {
  for (const [text, ids] of texts.entries()) {
    const sequence = evaluator.cache.sequence({ expected: ids.length });
    try {
      for (let first = 0; first < ids.length; first += RUN_ROWS) {
        signal?.throwIfAborted();
        const tokens = ids.slice(first, first + RUN_ROWS);
        const { results } = await evaluator.forward([{ sequence, tokens, wanted: wanted(text) }]);
        const count = tokens.length;
        onRows({ results, text, first, count, wanted: wanted(text) === 'all' ? count : 1 });
      }
    } finally {
      sequence.release();
    }
  }
}
