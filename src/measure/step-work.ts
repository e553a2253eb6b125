/**
 * Bytes and operations of a step: what it must read and write once, and its multiplications and additions. Both follow from
 * shapes; processor caches may serve part of the bytes.
 */
import type { BufferId, Plan, Step, WeightId } from '../plan/step.ts';
import { kvBytes } from '../quant/kv-cache.ts';
import { storageBytes } from '../quant/storage.ts';

export interface StepWork {
  readonly bytes: number;
  /** Undefined where functions such as exp take most of the time. */
  readonly operations: number | undefined;
}

/** Rows of one forward of one sequence. */
export interface ForwardRows {
  readonly rows: number;
  readonly wanted: number;
  /** Positions of the sequence before this forward. */
  readonly before: number;
}

export function stepWork(plan: Plan, step: Step, forward: ForwardRows): StepWork {
  const width = (id: BufferId): number => plan.buffers[id]!.width;
  const rows = 'out' in step && plan.buffers[step.out]!.rows === 'wanted' ? forward.wanted : forward.rows;
  /** Bytes of rows of these widths. */
  const rowBytes = (...widths: number[]): number => 4 * rows * widths.reduce((sum, count) => sum + count, 0);
  /** @param perValue operations per value of the output */
  const plain = (perValue: number | undefined, ...widths: number[]): StepWork => ({
    bytes: rowBytes(...widths),
    operations: perValue === undefined || !('out' in step) ? undefined : perValue * rows * width(step.out),
  });
  if (rows === 0) return { bytes: 0, operations: 0 };
  switch (step.op) {
    case 'matmul': {
      const [out, inputs] = shapeOf(plan, step.weight);
      const outs = step.add ? 2 * out : out;
      return {
        bytes: matrixBytes(plan, step.weight) + rowBytes(inputs, outs),
        operations: 2 * rows * out * inputs,
      };
    }
    case 'experts': {
      const all = [...step.gate, ...step.up, ...step.down];
      // As many experts as rows choose, at most all of them.
      const used = Math.min(1, (rows * step.top) / step.gate.length);
      const values = [step.gate, step.up, step.down].reduce((sum, [id]) => sum + valuesOf(plan, id!), 0);
      return {
        bytes:
          used * all.reduce((sum, id) => sum + matrixBytes(plan, id), 0) + rowBytes(width(step.x), 2 * width(step.out)),
        operations: 2 * rows * step.top * values,
      };
    }
    case 'attention': {
      const { headDim, kvHeads, storage, window = Number.POSITIVE_INFINITY } = plan.caches[step.cache]!;
      const end = forward.before + rows;
      const held = Math.min(end, window + rows - 1);
      const seen = Array.from({ length: rows }, (_, row) => Math.min(window, forward.before + row + 1));
      return {
        bytes: held * kvHeads * 2 * kvBytes(storage, headDim) + rowBytes(width(step.q), width(step.out)),
        // Scores, then values.
        operations: 4 * step.heads * headDim * seen.reduce((sum, count) => sum + count, 0),
      };
    }
    case 'appendKv': {
      const { headDim, kvHeads, storage } = plan.caches[step.cache]!;
      const values = kvHeads * headDim;
      return { bytes: rowBytes(2 * values) + 2 * rows * kvHeads * kvBytes(storage, headDim), operations: 0 };
    }
    case 'embed': {
      const inputs = width(step.out);
      const table = rows * storageBytes(storageOf(plan, step.table), inputs);
      return {
        bytes: table + rowBytes(step.add ? 2 * inputs : inputs),
        operations: (step.add ? 2 : 1) * rows * inputs,
      };
    }
    case 'norm':
      // rms: square, add, two factors. layer: also the mean, its subtraction and the bias.
      return plain(step.kind === 'rms' ? 4 : 7, width(step.x), width(step.out));
    case 'rope':
      return plain(3, width(step.x), width(step.out));
    case 'add':
      return plain(2, width(step.base), width(step.x), width(step.out));
    case 'scale':
      return plain(1, width(step.out), width(step.out));
    case 'activate':
      return plain(undefined, width(step.x), step.up === undefined ? 0 : width(step.up), width(step.out));
    case 'cap':
      return plain(undefined, width(step.out), width(step.out));
    case 'summarize':
      return plain(undefined, width(step.x), width(step.out));
    default:
      return plain(0, width(step.out), width(step.out));
  }
}

const shapeOf = (plan: Plan, id: WeightId): [number, number] => plan.weights[id]!.shape as [number, number];
const valuesOf = (plan: Plan, id: WeightId): number => shapeOf(plan, id).reduce((product, size) => product * size, 1);

function storageOf(plan: Plan, id: WeightId): Plan['weights'][number]['storage'] {
  const { shares } = plan.weights[id]!;
  return plan.weights[shares ?? id]!.storage;
}

const matrixBytes = (plan: Plan, id: WeightId): number => {
  const [out, inputs] = shapeOf(plan, id);
  return out * storageBytes(storageOf(plan, id), inputs);
};
