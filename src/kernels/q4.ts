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
 *
 * Many rows have the nibbles unpacked first: | 16 f32 scales | 8 lines of 16 x 4 bytes, columns in their order |.
 */
import {
  type Func,
  hoistedConstant,
  type I32,
  i16,
  i32,
  type Module,
  type Statement,
  type V128,
  v,
} from '../wasm/assembler.ts';
import { BLOCK, LANES, pairOf } from './layout.ts';
import type { UnpackedPanel } from './matmul.ts';
import { type BlockContext, type BlockFormat, formatPanel, productsThenSums, unpackScales } from './matmul-block.ts';
import { type TileShape, unpacker } from './tile.ts';

export type Q4Dot = 'strict' | 'pairs' | 'quads';

/** Bytes of four columns of a group, one per code. */
const LINE = 4 * LANES;
const LINES = BLOCK / 4;
/** Bytes of a row's block: of nibbles, and of codes that are unpacked. */
const [STORED, UNPACKED] = [18, 4 + BLOCK];

export const q4Format = (dot: Q4Dot): BlockFormat => ({
  name: 'q4_0',
  bytes: STORED,
  activation: { values: 'int8' },
  integers: (f) => {
    const nibbles = nibblesOf(f);
    const order = Array.from({ length: LINES / 2 }, (_, n) => [n, n + LINES / 2]).flat();
    return integers(f, dot, order, ({ w, quants, lane }, n, c) => nibbles(w, quants + lane * 4 + c * 16, n));
  },
});

/** Adds `panel_q4_0_unpacked` and `unpack_q4_0` to the module. */
export function q4UnpackedPanel(module: Module, dot: Q4Dot, shape: TileShape, leastRows: number): UnpackedPanel {
  const order = Array.from({ length: LINES }, (_, n) => n);
  const panel = formatPanel(
    module,
    {
      name: 'q4_0_unpacked',
      bytes: UNPACKED,
      unpacked: true,
      activation: { values: 'int8' },
      integers: (f) =>
        integers(f, dot, order, ({ w, quants, lane }, n, c) => v.load(w, quants + n * LINE + lane * 4 + c * 16)),
    },
    shape,
  );
  const unpack = unpacker(module, 'q4_0', { from: LANES * STORED, to: LANES * UNPACKED }, unpackBlock);
  return { ...panel, unpack, steps: 1, leastRows };
}

function unpackBlock(f: Func, w: I32, to: I32): Statement[] {
  const nibbles = nibblesOf(f);
  const values = f.array('v128', LANES / 4);
  return [
    ...unpackScales(f, w, to, values),
    ...Array.from({ length: LINES }, (_, n) => [
      ...values.map((value, c) => value.set(nibbles(w, 2 * LANES + c * 16, n))),
      ...values.map((value, c) => v.store(to, value.get, (n + 1) * LINE + c * 16)),
    ]).flat(),
  ];
}

/** Loads four codes of each of four rows: columns 4 n and on of a block whose first line is at the offset. */
function nibblesOf(f: Func): (w: I32, offset: number, n: number) => V128 {
  const nibble = hoistedConstant(f, 0x0f0f0f0f);
  return (w, offset, n) => {
    const line = v.load(w, offset + (n % (LINES / 2)) * LINE);
    // 16-bit shifts pair up, 8-bit shifts do not.
    return v.and(n < LINES / 2 ? line : i16.shrU(line, 4), nibble.get);
  };
}

/** Sums over the lines in the given order, so that lines of one load follow each other. */
function integers(
  f: Func,
  dot: Q4Dot,
  order: readonly number[],
  codes: (context: BlockContext, n: number, c: number) => V128,
): (context: BlockContext) => Statement[] {
  const offset = hoistedConstant(f, pairOf(-8));
  // Four int8 activations widened: the low halves of their int16 lanes, then the high ones.
  const odd = (bytes: V128): V128 => i16.shrS(bytes, 8);
  const even = (bytes: V128): V128 => i16.shrS(i16.shl(bytes, 8), 8);
  const product = (a: V128, b: V128, sum: V128): V128 => {
    if (dot === 'quads') return i32.relaxedDotAdd(a, b, sum);
    return i32.add(i32.add(sum, i32.dotI16(even(a), even(b))), i32.dotI16(odd(a), odd(b)));
  };
  return (context) => {
    const { sums, weights, activation, x } = context;
    const start = (t: number): V128 => i32.dotI16(v.load32splat(x(t), 4), offset.get);
    const line = (n: number, nth: number): Statement[] => [
      ...weights.map((l, c) => l.set(codes(context, n, c))),
      ...(dot === 'pairs'
        ? productsThenSums(context, 8 + n * 4, i16.relaxedDot, nth ? i16.add : undefined)
        : sums.flatMap((row, t) => [
            activation.set(v.load32splat(x(t), 8 + n * 4)),
            ...row.map((s, c) => s.set(product(activation.get, weights[c]!.get, s.get))),
          ])),
    ];
    const lines = order.flatMap(line);
    const offsets = sums.flatMap((row, t) => [
      activation.set(start(t)),
      ...row.map((s) => s.set(dot === 'pairs' ? i32.add(activation.get, i32.extaddI16(s.get)) : activation.get)),
    ]);
    return dot === 'pairs' ? [...lines, ...offsets] : [...offsets, ...lines];
  };
}
