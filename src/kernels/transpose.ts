/** Square transposition in registers. */
import { type Func, type Local, type Statement, type V128, v } from '../wasm/assembler.ts';

/** a0 b0 a1 b1 ...: interleaves units of `bytes` from the low (`half` 0) or high (1) halves of two vectors. */
function unpack(a: V128, b: V128, bytes: number, half: 0 | 1): V128 {
  const lanes = Array.from({ length: 16 }, (_, i) => {
    const unit = Math.floor(i / bytes);
    return half * 8 + Math.floor(unit / 2) * bytes + (i % bytes) + (unit % 2) * 16;
  });
  return v.shuffle(a, b, lanes);
}

export interface Transposition {
  readonly statements: readonly Statement[];
  /** Column c of the rows. */
  readonly columns: readonly Local<'v128'>[];
}

/** Four vectors of 4 x 32 bits, or eight of 8 x 16 bits. */
export function transpose(f: Func, rows: readonly Local<'v128'>[]): Transposition {
  const statements: Statement[] = [];
  let current = rows;
  for (let distance = 1, bytes = 16 / rows.length; distance < rows.length; distance *= 2, bytes *= 2) {
    const next = f.array('v128', rows.length);
    for (let i = 0; i < rows.length; i++) {
      // Of each run of 2 * distance vectors, number j and j + distance become number 2j and 2j + 1.
      const run = i - (i % (2 * distance));
      const [a, b] = [
        current[run + ((i % (2 * distance)) >> 1)]!,
        current[run + ((i % (2 * distance)) >> 1) + distance]!,
      ];
      statements.push(next[i]!.set(unpack(a.get, b.get, bytes, (i % 2) as 0 | 1)));
    }
    current = next;
  }
  return { statements, columns: current };
}

/** Lane i: all four lanes of vector i combined. `combine` is associative and commutative. */
export function acrossLanes(f: Func, vectors: readonly Local<'v128'>[], combine: (a: V128, b: V128) => V128): V128 {
  const [first, second] = [f.local('v128'), f.local('v128')];
  const [a, b, c, d] = vectors.map((x) => x.get) as [V128, V128, V128, V128];
  return [
    ...first.set(combine(unpack(a, b, 4, 0), unpack(a, b, 4, 1))),
    ...second.set(combine(unpack(c, d, 4, 0), unpack(c, d, 4, 1))),
    ...combine(unpack(first.get, second.get, 8, 0), unpack(first.get, second.get, 8, 1)),
  ];
}
