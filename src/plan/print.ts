/** A plan as text, for debugging, documentation and trace lines. */
import { storageBytes } from '../quant/storage.ts';
import type { BufferId, Plan, Step, WeightId } from './step.ts';

/** One line per step: number, scope, operation, shapes, storage and bytes. */
export function printPlan(plan: Plan): string {
  const width = Math.max(...plan.steps.map(({ scope }) => scope.length));
  const lines = plan.steps.map((step, index) => {
    const { text, bytes } = describe(plan, step, 'T', 'W');
    const size = bytes ? `  ${bytes} B` : '';
    return `${String(index).padStart(4)}  ${step.scope.padEnd(width)}  ${step.op.padEnd(9)}  ${text}${size}`;
  });
  return `${lines.join('\n')}\n`;
}

/** Describes a step of a forward with so many rows, and the weight bytes that it read. */
export function describeWork(
  plan: Plan,
  step: number,
  rows: number | string,
  wanted: number | string,
): { text: string; bytes: number } {
  return describe(plan, plan.steps[step]!, `${rows}`, `${wanted}`);
}

function describe(plan: Plan, step: Step, all: string, wanted: string): { text: string; bytes: number } {
  const shape = (id: BufferId): string =>
    `${plan.buffers[id]!.rows === 'wanted' ? wanted : all}x${plan.buffers[id]!.width}`;
  const buffer = (id: BufferId): string => `%${id} [${shape(id)}]`;
  const held = (id: WeightId) => plan.weights[plan.weights[id]!.shares ?? id]!;
  const weightBytes = (id: WeightId): number => {
    const [out, inputs] = plan.weights[id]!.shape as [number, number];
    return out * storageBytes(held(id).storage, inputs);
  };
  switch (step.op) {
    case 'embed':
      return {
        text: `${buffer(step.out)} ${step.add ? '+=' : '='} ${plan.weights[step.table]!.name}[${step.index}] ${held(step.table).storage}`,
        bytes: 0,
      };
    case 'matmul': {
      const { name, shape: dims } = plan.weights[step.weight]!;
      const bias = step.bias === undefined ? '' : ' + bias';
      const text = `${held(step.weight).storage} [${shape(step.x)}]x[${dims.join('x')}] ${name}${bias} ${step.add ? '+>' : '->'} ${buffer(step.out)}`;
      return { text, bytes: weightBytes(step.weight) };
    }
    case 'norm':
      return {
        text: `${step.kind} ${buffer(step.x)}${step.groups > 1 ? ` in ${step.groups} parts` : ''} ${step.weight === undefined ? '' : `${plan.weights[step.weight]!.name} `}-> ${buffer(step.out)}`,
        bytes: 0,
      };
    case 'rope':
      return {
        text: `${plan.ropes[step.table]!.name} ${buffer(step.x)} ${step.heads} heads of ${step.headDim} -> ${buffer(step.out)}`,
        bytes: 0,
      };
    case 'appendKv':
      return { text: `cache ${step.cache} <- ${buffer(step.k)}, ${buffer(step.v)}`, bytes: 0 };
    case 'attention': {
      const { kvHeads, headDim, window, storage } = plan.caches[step.cache]!;
      const sees = `${step.bidirectional ? ' bidirectional' : ''}${window === undefined ? '' : ` window ${window}`}`;
      const scores = `${step.cap === undefined ? '' : ` cap ${step.cap}`}${step.alibi ? ' alibi' : ''}`;
      return {
        text: `${buffer(step.q)} cache ${step.cache}${storage === 'f32' ? '' : ` in ${storage}`}: ${step.heads}/${kvHeads} heads of ${headDim}${sees}${scores} -> ${buffer(step.out)}`,
        bytes: 0,
      };
    }
    case 'activate':
      return {
        text: `${step.kind} ${buffer(step.x)}${step.up === undefined ? '' : ` * ${buffer(step.up)}`} -> ${buffer(step.out)}`,
        bytes: 0,
      };
    case 'experts': {
      const { name, shape: dims } = plan.weights[step.gate[0]!]!;
      const { storage } = held(step.gate[0]!);
      const experts = `${step.top} of ${step.gate.length} experts by ${buffer(step.router)}`;
      const text = `${experts}: ${storage} [${shape(step.x)}]x[${dims.join('x')}] ${name} ... ${step.kind} +> ${buffer(step.out)}`;
      const bytes = [...step.gate, ...step.up, ...step.down].reduce((sum, id) => sum + weightBytes(id), 0);
      return { text, bytes: (bytes * step.top) / step.gate.length };
    }
    case 'add':
      return {
        text: `${buffer(step.base)} + ${buffer(step.x)}${step.scale === 1 ? '' : ` * ${step.scale}`} -> ${buffer(step.out)}`,
        bytes: 0,
      };
    case 'scale': {
      const by = step.weight === undefined ? step.factor : plan.weights[step.weight]!.name;
      return { text: `${buffer(step.out)} *= ${by}`, bytes: 0 };
    }
    case 'cap':
      return { text: `${buffer(step.out)} within ${step.cap}`, bytes: 0 };
    case 'columns': {
      const { width } = plan.buffers[step.out]!;
      return {
        text: `${buffer(step.x)} columns ${step.first} to ${step.first + width - 1} -> ${buffer(step.out)}`,
        bytes: 0,
      };
    }
    default:
      return { text: `${buffer(step.x)} -> ${buffer(step.out)}`, bytes: 0 };
  }
}
