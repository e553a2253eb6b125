/**
 * Integer sums of a q8_0 block: int8 weights times int8 activations.
 *
 *   'pairs'  i32x4.dot_i16x8_s, strict. Weights are widened as they are loaded; activations are int16; a 32-bit lane holds
 *            two columns.     w | row0: k0 k1 | row1: k0 k1 | row2: k0 k1 | row3: k0 k1 |   8 bytes, one v128 of int16
 *
 *   'quads'  i32x4.relaxed_dot_i8x16_i7x16_add_s, one instruction on a CPU with AVX-VNNI; a 32-bit lane holds four columns.
 *            The specification promises the second operand only 7 bits; where the machine takes the eighth as unsigned,
 *            weights are stored as q + 128 and the sum starts at -128 * (sum of the activations).
 */
import { hoistedConstant, i32, type Statement, type V128, v } from '../wasm/assembler.ts';
import { BLOCK, LANES, pairOf, type Q8Layout } from './layout.ts';
import type { BlockFormat } from './matmul-block.ts';

export function q8Format({ neighbours, flip }: Q8Layout): BlockFormat {
  const quads = neighbours === 4;
  return {
    name: 'q8_0',
    bytes: 34,
    activation: { values: quads ? 'int8' : 'int16' },
    integers: (f) => {
      const offset = flip === 0x80 ? hoistedConstant(f, pairOf(-128)) : undefined;
      return ({ sums, weights, activation, w, quants, lane, x }) => {
        const start = (t: number): V128 => (offset ? i32.dotI16(v.load32splat(x(t), 4), offset.get) : i32.constant(0));
        const statements: Statement[] = sums.flatMap((row, t) => [
          activation.set(start(t)),
          ...row.map((s) => s.set(activation.get)),
        ]);
        for (let n = 0; n < BLOCK / neighbours; n++) {
          const at = quants + n * LANES * neighbours + lane * neighbours;
          for (const [c, l] of weights.entries())
            statements.push(l.set(quads ? v.load(w, at + c * 16) : v.load8x8s(w, at + c * 8)));
          for (const [t, row] of sums.entries()) {
            statements.push(activation.set(v.load32splat(x(t), 8 + n * 4)));
            for (const [c, s] of row.entries()) {
              const [a, b] = [activation.get, weights[c]!.get];
              statements.push(s.set(quads ? i32.relaxedDotAdd(a, b, s.get) : i32.add(s.get, i32.dotI16(a, b))));
            }
          }
        }
        return statements;
      };
    },
  };
}
