/** Times of prefill and of decode steps by kind of step. */
import type { Model } from '../engine/model.ts';
import type { ForwardReport, ModelDescription } from '../node.ts';
import type { TurnRoofs } from './saved.ts';
import { median } from './statistics.ts';
import { stepOperations, storageOf, tileOf, type Work } from './turn.ts';

/** All steps of one kind in a prefill, or in a decode step after it. */
export interface KernelTime {
  readonly work: 'prefill' | 'decode';
  /** `matmul q8_0`, `attention` */
  readonly kernel: string;
  /** Median, in milliseconds. */
  readonly ms: number;
  /** Share of the time of all kernels. */
  readonly share: number;
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
export async function measureKernels(model: Model, { prompt, decode, repeat }: Work): Promise<KernelTime[]> {
  const { vocab } = model.description.config;
  const ids = Array.from({ length: prompt }, (_, i) => (7 + i * 37) % vocab);
  const [prefills, decodes]: [Samples, Samples] = [new Map(), new Map()];
  for (let turn = 0; turn < repeat; turn++) {
    using sequence = model.sequence();
    const step = async (sums: Map<string, number>, tokens: readonly number[], wanted: boolean): Promise<void> => {
      const onReport = ({ steps }: ForwardReport): void => addSteps(sums, model, steps ?? []);
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
  return [
    ...timesOf(model, 'prefill', prefills, (step) => stepOperations(model.description, step, prompt)),
    ...timesOf(model, 'decode', decodes, (step) => model.decodeBytes(prompt + decode / 2, [step])),
  ];
}

type Step = ModelDescription['plan']['steps'][number];

const kernelOf = (model: Model, step: Step): string =>
  step.op === 'matmul' ? `matmul ${storageOf(model.description, step)}` : step.op;

function addSteps(sums: Map<string, number>, model: Model, steps: NonNullable<ForwardReport['steps']>): void {
  for (const { step, ms } of steps) {
    const kernel = kernelOf(model, model.description.plan.steps[step]!);
    sums.set(kernel, (sums.get(kernel) ?? 0) + ms);
  }
}

function append(samples: Samples, sums: ReadonlyMap<string, number>): void {
  for (const [kernel, ms] of sums) samples.set(kernel, [...(samples.get(kernel) ?? []), ms]);
}

/** Sorted by time, the slowest first. @param amountOf operations or bytes of one step */
function timesOf(
  model: Model,
  work: KernelTime['work'],
  samples: Samples,
  amountOf: (step: Step) => number,
): KernelTime[] {
  const amounts = new Map<string, number>();
  for (const step of model.description.plan.steps) {
    const kernel = kernelOf(model, step);
    amounts.set(kernel, (amounts.get(kernel) ?? 0) + amountOf(step));
  }
  const medians = [...samples].map(([kernel, values]) => ({ kernel, ms: median(values) }));
  const all = medians.reduce((sum, { ms }) => sum + ms, 0);
  return medians
    .toSorted((a, b) => b.ms - a.ms)
    .map(({ kernel, ms }) => ({
      work,
      kernel,
      ms,
      share: ms / all,
      rate: amounts.get(kernel) ? amounts.get(kernel)! / (ms / 1000) : undefined,
      roof: work === 'decode' ? 'read' : kernel.startsWith('matmul ') ? tileOf(kernel.slice('matmul '.length)) : 'f32',
    }));
}
