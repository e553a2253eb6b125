/**
 * Integer sums of a q4_0 block: weights are nibbles 0..15 that mean q = nibble - 8, so every sum starts at
 * -8 * (sum of the activations). Nibbles fit the 7-bit operand of the relaxed dot products: all choices are exact.
 *
 *   'quads'   i32x4.relaxed_dot_i8x16_i7x16_add_s, one instruction on a CPU with AVX-VNNI
 *   'pairs'   i16x8.relaxed_dot_i8x16_i7x16_s summed in int16 over the block: 8 sums of at most 2 * 15 * 127 fit
 *   'strict'  the same without relaxed instructions: nibbles of even and odd columns widened to int16
 *
 *   16 bytes of w  | row0: 4 bytes | row1: 4 bytes | row2: 4 bytes | row3: 4 bytes |
 *   & 0x0f         | row0: k0..k3  | ...             >> 4 & 0x0f  | row0: k16..k19 | ...
 */
import { hoistedConstant, i16, i32, type Statement, type V128, v } from '../wasm/assembler.ts';
import { BLOCK, LANES, pairOf } from './layout.ts';
import type { BlockFormat } from './matmul-block.ts';

export type Q4Dot = 'strict' | 'pairs' | 'quads';

export function q4Format(dot: Q4Dot): BlockFormat {
  return {
    name: 'q4_0',
    bytes: 18,
    activation: { values: 'int8' },
    integers: (f) => {
      const nibble = hoistedConstant(f, 0x0f0f0f0f);
      const offset = hoistedConstant(f, pairOf(-8));
      // Four int8 activations widened: the low halves of their int16 lanes, then the high ones.
      const odd = (bytes: V128): V128 => i16.shrS(bytes, 8);
      const even = (bytes: V128): V128 => i16.shrS(i16.shl(bytes, 8), 8);
      return ({ sums, weights, activation, w, quants, lane, x }) => {
        const start = (t: number): V128 => i32.dotI16(v.load32splat(x(t), 4), offset.get);
        const statements: Statement[] = sums.flatMap((row, t) =>
          dot === 'pairs'
            ? row.map((s) => s.set(i32.constant(0)))
            : [activation.set(start(t)), ...row.map((s) => s.set(activation.get))],
        );
        const product = (a: V128, b: V128, sum: V128): V128 => {
          if (dot === 'quads') return i32.relaxedDotAdd(a, b, sum);
          if (dot === 'pairs') return i16.add(sum, i16.relaxedDot(a, b));
          return i32.add(i32.add(sum, i32.dotI16(even(a), even(b))), i32.dotI16(odd(a), odd(b)));
        };
        const products = (n: number): void => {
          for (const [t, row] of sums.entries()) {
            statements.push(activation.set(v.load32splat(x(t), 8 + n * 4)));
            for (const [c, s] of row.entries()) statements.push(s.set(product(activation.get, weights[c]!.get, s.get)));
          }
        };
        for (let n = 0; n < BLOCK / 8; n++) {
          // Loaded twice on purpose: a register for the packed bytes costs more than a load from the first-level cache.
          const load = (c: number): V128 => v.load(w, quants + (n * LANES + lane) * 4 + c * 16);
          statements.push(...weights.map((l, c) => l.set(v.and(load(c), nibble.get))));
          products(n);
          // 16-bit shifts pair up, 8-bit shifts do not.
          statements.push(...weights.map((l, c) => l.set(v.and(i16.shrU(load(c), 4), nibble.get))));
          products(n + 4);
        }
        if (dot !== 'pairs') return statements;
        return [
          ...statements,
          ...sums.flatMap((row, t) => [
            activation.set(start(t)),
            ...row.map((s) => s.set(i32.add(activation.get, i32.extaddI16(s.get)))),
          ]),
        ];
      };
    },
  };
}
