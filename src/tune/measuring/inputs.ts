/** Keeps some rows of the inputs of matrices while a text is computed. */
import type { LinearInput, Plan } from '../../plan/step.ts';
import { rowsOfExpert, withLinearInputs } from '../../plan/taps.ts';
import type { RunRows } from './runs.ts';

/** Rows that are kept of each input. */
const KEPT_ROWS = 128;

export class InputRows {
  /** With taps of the inputs. */
  readonly plan: Plan;
  readonly #inputs: ReadonlyMap<string, LinearInput>;
  readonly #rows: ReadonlyMap<string, Float32Array[]>;
  /** One of so many rows is kept. */
  readonly #stride: number;
  readonly #kept: number;
  #seen = 0;

  /** @param names of matrices @param tokens that will be computed @param kept rows of each input, at most. Default 128 */
  constructor(plan: Plan, names: ReadonlySet<string>, { tokens, kept = KEPT_ROWS }: { tokens: number; kept?: number }) {
    this.#kept = kept;
    this.plan = withLinearInputs(plan, (name) => names.has(name));
    this.#inputs = this.plan.inputs!;
    this.#rows = new Map([...this.#inputs.keys()].map((name) => [name, []]));
    this.#stride = Math.max(1, Math.floor(tokens / kept));
  }

  add({ results, count, wanted }: RunRows): void {
    const taps = new Map<string, Float32Array>();
    const tap = (name: string): Float32Array => {
      const values = taps.get(name) ?? results.tap(name);
      taps.set(name, values);
      return values;
    };
    const all = (length: number): number[] => Array.from({ length }, (_, row) => row);
    const every = all(count).filter((row) => (this.#seen + row) % this.#stride === 0);
    for (const [name, { tap: of, width, expert, rows: which }] of this.#inputs) {
      const kept = this.#rows.get(name)!;
      // Few of all rows are an expert's: they are kept as they come.
      const rows = expert
        ? rowsOfExpert(tap(expert.router), expert)
        : which === 'wanted' && wanted < count
          ? all(wanted)
          : every;
      const values = tap(of);
      for (const row of rows.slice(0, this.#kept - kept.length))
        kept.push(values.slice(row * width, (row + 1) * width));
    }
    this.#seen += count;
  }

  /** [rows, in]; undefined if the matrix has no products, or an expert no rows. */
  of(name: string): Float32Array | undefined {
    const rows = this.#rows.get(name);
    const first = rows?.[0];
    if (!rows || !first) return undefined;
    const all = new Float32Array(rows.length * first.length);
    for (const [i, row] of rows.entries()) all.set(row, i * first.length);
    return all;
  }
}
