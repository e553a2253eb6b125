/** One turn of a benchmark: a prefill, then decode steps. */
import type { Model } from '../engine/model.ts';
import type { ForwardReport, ModelDescription, PhaseTimes } from '../node.ts';
import { type Storage, storageLayout } from '../quant/storage.ts';
import { stepWork } from './step-work.ts';

export interface Work {
  /** Tokens of the prompt and number of decode steps. */
  readonly prompt: number;
  readonly decode: number;
  /** Turns, not counting the first one, which warms up. */
  readonly repeat: number;
}

export interface Turn {
  readonly prefillMs: number;
  /** Milliseconds of each decode step without step timing. */
  readonly decodeMs: readonly number[];
  readonly projectionMs: readonly number[];
  /** Phases of the prefill and of the first decode steps; empty unless requested. */
  readonly phases: readonly PhaseTimes[];
}

export interface TurnOptions {
  /** Number of decode steps, from the first, that are timed by phase, as is the prefill then. */
  readonly phases?: number;
  /** A clock in milliseconds, from any origin. */
  readonly now?: () => number;
}

/** The part of a model that a turn uses. */
export type MeasuredModel = Pick<Model, 'description' | 'maxRows' | 'sequence' | 'step'>;

/**
 * @param timed whether to time the steps of every fourth forward, for `projectionMs`; the other forwards have no
 * overhead
 */
export async function runTurn(
  model: MeasuredModel,
  { prompt, decode }: Work,
  timed: boolean,
  { phases: named = 0, now = () => performance.now() }: TurnOptions = {},
): Promise<Turn> {
  const { vocab } = model.description.config;
  const ids = Array.from({ length: prompt }, (_, i) => (7 + i * 37) % vocab);
  using sequence = model.sequence();
  const [decodeMs, projectionMs]: [number[], number[]] = [[], []];
  const [chunks, steps]: [PhaseTimes[], PhaseTimes[]] = [[], []];
  const start = now();
  for (let at = 0; at < prompt; at += model.maxRows) {
    const tokens = ids.slice(at, at + model.maxRows);
    const onReport = ({ phases }: ForwardReport): void => void (phases && chunks.push(phases));
    const wanted = at + tokens.length === prompt;
    await model.step([{ sequence, tokens, wanted }], named > 0 ? { timing: true, onReport } : {});
  }
  const prefillMs = now() - start;
  for (let i = 0; i < decode; i++) {
    const timing = i < named || (timed && i % 4 === 3);
    const onReport = ({ phases }: ForwardReport): void => {
      if (phases === undefined) return;
      projectionMs.push(phases.projection);
      if (i < named) steps.push(phases);
    };
    const before = now();
    await model.step([{ sequence, tokens: [ids[i % prompt]!], wanted: true }], timing ? { timing, onReport } : {});
    if (!timing) decodeMs.push(now() - before);
  }
  return { prefillMs, decodeMs, projectionMs, phases: named > 0 ? [sumOf(chunks), ...steps] : [] };
}

const sumOf = (times: readonly PhaseTimes[]): PhaseTimes =>
  times.reduce((a, b) => ({
    embedding: a.embedding + b.embedding,
    layers: a.layers + b.layers,
    norm: a.norm + b.norm,
    projection: a.projection + b.projection,
    total: a.total + b.total,
  }));

type Step = ModelDescription['plan']['steps'][number];

/** Storage type of a matmul's matrix. */
export function storageOf({ plan }: ModelDescription, step: Step & { readonly op: 'matmul' }): string {
  const { shares, storage } = plan.weights[step.weight]!;
  return shares === undefined ? storage : plan.weights[shares]!.storage;
}

/** Operations of the matmuls of a prefill, by kind of tile. Undefined with experts. */
export function promptOperations(model: ModelDescription, tokens: number): Record<TileKind, number> | undefined {
  const operations: Record<TileKind, number> = { f32: 0, q8: 0 };
  for (const step of model.plan.steps) {
    if (step.op === 'experts') return undefined;
    if (step.op !== 'matmul') continue;
    const { operations: own } = stepWork(model.plan, step, { rows: tokens, wanted: 1, before: 0 });
    operations[tileOf(storageOf(model, step))] += own!;
  }
  return operations;
}

/** The kind of tile, float or int8, for which rates are measured. */
export type TileKind = 'f32' | 'q8';

export const isQuantized = (storage: string): boolean => (storageLayout[storage as Storage]?.block ?? 1) > 1;

export const tileOf = (storage: string): TileKind => (isQuantized(storage) ? 'q8' : 'f32');
