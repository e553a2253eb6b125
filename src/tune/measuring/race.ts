/** Decode steps of several storages of one model in turns. Weights have made-up values: times do not depend on them. */
import type { Backend, TensorData } from '../../backend/backend.ts';
import { createWasmBackend } from '../../backend/wasm/create.ts';
import { Evaluator } from '../../evaluate/evaluator.ts';
import { TextEvaluator } from '../../evaluate/text-evaluator.ts';
import { median } from '../../measure/statistics.ts';
import type { ModelDescription } from '../../models/index.ts';
import type { Plan } from '../../plan/step.ts';
import { quantize } from '../../quant/codec.ts';
import { isBlockStorage } from '../../quant/storage.ts';
import type { RunSettings } from './runs.ts';

/** Turns, not counting the first, and decode steps of each. */
const TURNS = 12;
const STEPS = 12;
/** Tokens of a text of an encoder, which has no decode steps. */
const TEXT = 32;

/**
 * Milliseconds of a decode step, or of a short text of an encoder: by plan, then by turn. Turns of all plans are pairs.
 */
export async function race(
  description: ModelDescription,
  plans: readonly Plan[],
  { host, threads, revectorize, onWarning, signal }: RunSettings,
): Promise<number[][]> {
  const racers: { readonly backend: Backend; readonly step: () => Promise<void>; readonly ms: number[] }[] = [];
  try {
    for (const plan of plans) {
      signal?.throwIfAborted();
      const made = madeUp(plan);
      const isEncoder = description.kind === 'encoder';
      const backend = await createWasmBackend({
        ...made,
        maxRows: isEncoder ? TEXT : 1,
        maxWanted: 1,
        cache: { contextLength: Math.max(TEXT, (TURNS + 1) * STEPS) },
        host,
        ...(threads !== undefined && { threads }),
        ...(revectorize !== undefined && { revectorize }),
        ...(onWarning && { onWarning }),
      });
      const parts = { name: 'race', description: { ...description, plan: made.plan }, backend };
      racers.push({
        backend,
        step: isEncoder ? textStep(new TextEvaluator(parts)) : decodeStep(new Evaluator(parts)),
        ms: [],
      });
    }
    for (let turn = 0; turn <= TURNS; turn++) {
      signal?.throwIfAborted();
      // The order alternates: the first one finds other caches and another clock rate.
      const order = [...racers.keys()];
      for (const index of turn % 2 === 0 ? order : order.reverse()) {
        const { step, ms } = racers[index]!;
        const times: number[] = [];
        for (let i = 0; i < STEPS; i++) {
          const start = performance.now();
          await step();
          times.push(performance.now() - start);
        }
        if (turn > 0) ms.push(median(times));
      }
    }
    return racers.map(({ ms }) => ms);
  } finally {
    for (const { backend } of racers) await backend.dispose();
  }
}

function decodeStep(evaluator: Evaluator): () => Promise<void> {
  const sequence = evaluator.cache.sequence();
  return async () => void (await evaluator.forward([{ sequence, tokens: [1], wanted: true }]));
}

function textStep(evaluator: TextEvaluator): () => Promise<void> {
  const ids = Array.from({ length: TEXT }, (_, i) => i);
  return async () => void (await evaluator.forward([ids]));
}

/** The plan with a tensor of its own for each weight, whose rows are all equal. */
function madeUp(plan: Plan): { plan: Plan; tensor: (name: string) => TensorData } {
  const weights = plan.weights.map((weight, id) => ({
    ...weight,
    source: { tensor: `${id}`, transposed: false, first: 0, plus: 0 },
  }));
  const rows = new Map<string, Uint8Array>();
  const tensor = (name: string): TensorData => {
    const { shape, storage } = weights[Number(name)]!;
    const width = shape.at(-1)!;
    const key = `${storage} ${width}`;
    const row =
      rows.get(key) ??
      quantize(
        storage,
        Float32Array.from({ length: width }, (_, i) => 0.02 * Math.sin(13 * i + 1)),
      );
    rows.set(key, row);
    const count = shape.length === 1 ? 1 : shape[0]!;
    const readInto = async (start: number, target: Uint8Array): Promise<void> => {
      for (let i = 0; i < target.length; ) {
        const at = (start + i) % row.length;
        const piece = row.subarray(at, at + Math.min(row.length - at, target.length - i));
        target.set(piece, i);
        i += piece.length;
      }
    };
    if (!isBlockStorage(storage)) return { dtype: storage, shape, byteLength: count * row.length, readInto };
    return { dtype: 'f32', shape, byteLength: 4 * count * width, readInto, blocks: { storage, readInto } };
  };
  return { plan: { ...plan, weights }, tensor };
}
