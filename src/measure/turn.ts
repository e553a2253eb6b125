/** One turn of a benchmark: a prompt, then single tokens. */
import type { Model } from '../engine/model.ts';
import type { ForwardReport, ModelDescription } from '../node.ts';

export interface Work {
  /** Tokens. */
  readonly prompt: number;
  readonly decode: number;
  /** Turns that count. */
  readonly repeat: number;
}

export interface Turn {
  readonly prefillMs: number;
  /** Of each step that was not timed inside. */
  readonly decodeMs: readonly number[];
  readonly projectionMs: readonly number[];
}

/** @param timed every fourth decode step is timed inside, for `projectionMs`: the clock reads do not touch the others */
export async function runTurn(model: Model, { prompt, decode }: Work, timed: boolean): Promise<Turn> {
  const { vocab } = model.description.config;
  const ids = Array.from({ length: prompt }, (_, i) => (7 + i * 37) % vocab);
  using sequence = model.sequence();
  const [decodeMs, projectionMs]: [number[], number[]] = [[], []];
  const start = performance.now();
  for (let at = 0; at < prompt; at += model.maxRows) {
    const tokens = ids.slice(at, at + model.maxRows);
    await model.step([{ sequence, tokens, wanted: at + tokens.length === prompt }]);
  }
  const prefillMs = performance.now() - start;
  for (let i = 0; i < decode; i++) {
    const timing = timed && i % 4 === 3;
    const onReport = ({ phases }: ForwardReport): void => void (phases && projectionMs.push(phases.projection));
    const before = performance.now();
    await model.step([{ sequence, tokens: [ids[i % prompt]!], wanted: true }], timing ? { timing, onReport } : {});
    if (!timing) decodeMs.push(performance.now() - before);
  }
  return { prefillMs, decodeMs, projectionMs };
}

type Step = ModelDescription['plan']['steps'][number];

/** What its matrix is stored as. */
export function storageOf({ plan }: ModelDescription, step: Step & { readonly op: 'matmul' }): string {
  const { shares, storage } = plan.weights[step.weight]!;
  return shares === undefined ? storage : plan.weights[shares]!.storage;
}

/** Multiplications and additions of a step in a prompt of so many tokens, of which the last one's logits are wanted. */
export function stepOperations({ plan }: ModelDescription, step: Step, tokens: number): number {
  if (step.op === 'matmul') {
    const { shape, role } = plan.weights[step.weight]!;
    return 2 * (role === 'output' ? 1 : tokens) * shape[0]! * shape[1]!;
  }
  if (step.op !== 'attention') return 0;
  const { headDim, window = tokens } = plan.caches[step.cache]!;
  const seen = Math.min(window, tokens);
  // The first `seen` rows see 1, 2 ... positions, the others `seen`: scores, then values.
  return 4 * step.heads * headDim * ((seen * (seen + 1)) / 2 + (tokens - seen) * seen);
}

/** Operations of the products of a prompt, by the arithmetic of their tiles. Undefined with experts. */
export function promptOperations(model: ModelDescription, tokens: number): Record<TileKind, number> | undefined {
  const operations: Record<TileKind, number> = { f32: 0, q8: 0 };
  for (const step of model.plan.steps) {
    if (step.op === 'experts') return undefined;
    if (step.op === 'matmul') operations[tileOf(storageOf(model, step))] += stepOperations(model, step, tokens);
  }
  return operations;
}

/** Tiles of floats or of int8 lanes, as the roofs are measured. */
export type TileKind = 'f32' | 'q8';

export const isQuantized = (storage: string): boolean => storage.startsWith('q');

export const tileOf = (storage: string): TileKind => (isQuantized(storage) ? 'q8' : 'f32');
