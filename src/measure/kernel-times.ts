/** Times of prefill and of decode steps by kind of step, with what limits each kind. */
import type { ForwardReport, ModelDescription } from '../node.ts';
import type { TurnRoofs } from './saved.ts';
import { median } from './statistics.ts';
import { type ForwardRows, type StepWork, stepWork } from './step-work.ts';
import { type MeasuredModel, storageOf, tileOf, type Work } from './turn.ts';

/** All steps of one kind in a prefill, or in a decode step after it. */
export interface KernelTime {
  readonly work: 'prefill' | 'decode';
  /** `matmul q8_0`, `attention` */
  readonly kernel: string;
  /** Median, in milliseconds. */
  readonly ms: number;
  /** Share of the time of all kernels. */
  readonly share: number;
  /** Bytes that must be read and written, and multiplications and additions; see step-work.ts. */
  readonly bytes: number;
  readonly operations: number | undefined;
  /** Operations (prefill) or bytes (decode) per second; undefined for kinds that neither limits. */
  readonly rate: number | undefined;
  /** The rate of the machine that limits it. */
  readonly roof: keyof TurnRoofs;
}

/** Milliseconds by kind, one entry per prefill or decode step. */
type Samples = Map<string, number[]>;

/**
 * Times steps one by one, on thread 0. Waiting at a barrier counts for the step before it.
 */
export async function measureKernels(model: MeasuredModel, { prompt, decode, repeat }: Work): Promise<KernelTime[]> {
  const { vocab } = model.description.config;
  const ids = Array.from({ length: prompt }, (_, i) => (7 + i * 37) % vocab);
  const [prefills, decodes]: [Samples, Samples] = [new Map(), new Map()];
  for (let turn = 0; turn < repeat; turn++) {
    using sequence = model.sequence();
    const step = async (sums: Map<string, number>, tokens: readonly number[], wanted: boolean): Promise<void> => {
      const onReport = ({ steps }: ForwardReport): void => addSteps(sums, model.description, steps ?? []);
      await model.step([{ sequence, tokens, wanted }], { timing: 'steps', onReport });
    };
    const sums = new Map<string, number>();
    for (let at = 0; at < prompt; at += model.maxRows) {
      const tokens = ids.slice(at, at + model.maxRows);
      await step(sums, tokens, at + tokens.length === prompt);
    }
    append(prefills, sums);
    for (let i = 0; i < decode; i++) {
      const own = new Map<string, number>();
      await step(own, [ids[i % prompt]!], true);
      append(decodes, own);
    }
  }
  const middle = { rows: 1, wanted: 1, before: Math.floor(prompt + decode / 2) };
  return [
    ...timesOf(model.description, 'prefill', prefills, chunksOf(prompt, model.maxRows)),
    ...timesOf(model.description, 'decode', decodes, [middle]),
  ];
}

/** The forwards of a prefill. */
export const chunksOf = (prompt: number, maxRows: number): ForwardRows[] =>
  Array.from({ length: Math.ceil(prompt / maxRows) }, (_, index) => {
    const before = index * maxRows;
    const rows = Math.min(maxRows, prompt - before);
    return { rows, wanted: before + rows === prompt ? 1 : 0, before };
  });

type Step = ModelDescription['plan']['steps'][number];

const kernelOf = (model: ModelDescription, step: Step): string =>
  step.op === 'matmul' ? `matmul ${storageOf(model, step)}` : step.op;

function addSteps(
  sums: Map<string, number>,
  model: ModelDescription,
  steps: NonNullable<ForwardReport['steps']>,
): void {
  for (const { step, ms } of steps) {
    const kernel = kernelOf(model, model.plan.steps[step]!);
    sums.set(kernel, (sums.get(kernel) ?? 0) + ms);
  }
}

function append(samples: Samples, sums: ReadonlyMap<string, number>): void {
  for (const [kernel, ms] of sums) samples.set(kernel, [...(samples.get(kernel) ?? []), ms]);
}

/** Kinds of steps that memory or arithmetic limits; others take little time, of which much is overhead. */
const limited = (kernel: string): boolean => /^(matmul |attention$|experts$)/.test(kernel);

/** Sorted by time, the slowest first. */
function timesOf(
  model: ModelDescription,
  work: KernelTime['work'],
  samples: Samples,
  forwards: readonly ForwardRows[],
): KernelTime[] {
  const amounts = new Map<string, StepWork>();
  for (const step of model.plan.steps) {
    const kernel = kernelOf(model, step);
    for (const forward of forwards)
      amounts.set(kernel, sumOf(amounts.get(kernel), stepWork(model.plan, step, forward)));
  }
  const medians = [...samples].map(([kernel, values]) => ({ kernel, ms: median(values) }));
  const all = medians.reduce((sum, { ms }) => sum + ms, 0);
  return medians
    .toSorted((a, b) => b.ms - a.ms)
    .map(({ kernel, ms }) => {
      const { bytes, operations } = amounts.get(kernel)!;
      const amount = work === 'decode' ? bytes : operations;
      return {
        ...{ work, kernel, ms, share: ms / all, bytes, operations },
        rate: limited(kernel) && amount ? amount / (ms / 1000) : undefined,
        roof: work === 'decode' ? 'read' : arithmeticRoof(kernel),
      };
    });
}

/** The tile loop with the arithmetic of a kernel. */
export const arithmeticRoof = (kernel: string): 'f32' | 'q8' =>
  kernel.startsWith('matmul ') ? tileOf(kernel.slice('matmul '.length)) : 'f32';

const sumOf = (a: StepWork = { bytes: 0, operations: 0 }, b: StepWork): StepWork => ({
  bytes: a.bytes + b.bytes,
  operations: a.operations === undefined || b.operations === undefined ? undefined : a.operations + b.operations,
});
