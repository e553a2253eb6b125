/** A plan whose logits are given: row n of a forward with token n has column n of a table. */
import type { TensorData } from '../src/backend/backend.ts';
import { PlanBuilder } from '../src/plan/builder.ts';
import type { Plan, PlannedWeight } from '../src/plan/step.ts';

/** Number of tokens, which are the columns of the table. */
export const COLUMNS = 16;

/** @param value gives the table's values, [vocab, COLUMNS]. A product with a row of the identity has no rounding. */
export function logitsTable(vocab: number, value: () => number): { plan: Plan; tensor(name: string): TensorData } {
  const tensors: Readonly<Record<string, Float32Array>> = {
    identity: Float32Array.from({ length: COLUMNS ** 2 }, (_, i) => (i % (COLUMNS + 1) === 0 ? 1 : 0)),
    table: Float32Array.from({ length: COLUMNS * vocab }, value),
  };
  const shapes: Readonly<Record<string, readonly number[]>> = { identity: [COLUMNS, COLUMNS], table: [vocab, COLUMNS] };
  const weights = Object.keys(tensors).map(
    (name): PlannedWeight => ({
      name,
      role: 'output',
      shape: shapes[name]!,
      source: { tensor: name, transposed: false, first: 0, plus: 0 },
      storage: 'f32',
      linear: false,
      reason: '',
      bytes: tensors[name]!.byteLength,
    }),
  );
  const p = new PlanBuilder();
  const rows = p.embedTokens({ id: 0, shape: shapes.identity! }, 1);
  const plan = p.finish(p.matmul(p.wantedRows(rows), { weight: { id: 1, shape: shapes.table! } }), weights);
  const tensor = (name: string): TensorData => {
    const bytes = new Uint8Array(tensors[name]!.buffer);
    return {
      dtype: 'f32',
      shape: shapes[name]!,
      byteLength: bytes.length,
      readInto: async (start, target) => target.set(bytes.subarray(start, start + target.length)),
    };
  };
  return { plan, tensor };
}
