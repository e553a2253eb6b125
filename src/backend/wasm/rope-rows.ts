/** Rows of rotary embeddings for the positions of a batch. */
import { type RopeTable, ropeRow } from '../../plan/rope.ts';

/** Cos and sin per position, computed once; positions of long sequences have others. */
export class RopeRows {
  readonly #table: RopeTable;
  readonly #rows: { readonly short: Float32Array[]; readonly long: Float32Array[] } = { short: [], long: [] };

  constructor(table: RopeTable) {
    this.#table = table;
  }

  /** @param length tokens of the whole sequence */
  at(position: number, length: number): Float32Array {
    const { rotary, long } = this.#table;
    const rows = this.#rows[long && length > long.above ? 'long' : 'short'];
    const known = rows[position];
    if (known) return known;
    const row = new Float32Array(rotary);
    ropeRow(this.#table, position, length, row);
    rows[position] = row;
    return row;
  }
}
