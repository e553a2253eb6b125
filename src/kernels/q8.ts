/**
 * Integer sums of a q8_0 block: int8 weights times int8 activations.
 *
 *   'pairs'  i32x4.dot_i16x8_s, strict. Weights are widened as they are loaded; activations are int16; a 32-bit lane holds
 *            two columns.     w | row0: k0 k1 | row1: k0 k1 | row2: k0 k1 | row3: k0 k1 |   8 bytes, one v128 of int16
 *
 *   'quads'  i32x4.relaxed_dot_i8x16_i7x16_add_s, one instruction on a CPU with AVX-VNNI; a 32-bit lane holds four columns.
 *            The specification allows only 7 bits in the second operand; if the machine takes the eighth as unsigned,
 *            weights are stored as q + 128 and the sum starts at -128 * (sum of the activations).
 *
 * Many rows have the weights of 'pairs' widened first: | 16 f32 scales | 16 lines of 16 x 2 int16 |.
 */
import {
  type Func,
  hoistedConstant,
  type I32,
  i32,
  type Module,
  type Statement,
  type V128,
  v,
} from '../wasm/assembler.ts';
import { BLOCK, LANES, pairOf, type Q8Layout } from './layout.ts';
import type { UnpackedPanel } from './matmul.ts';
import { type BlockContext, type BlockFormat, formatPanel, productsThenSums, unpackScales } from './matmul-block.ts';
import { type TileShape, unpacker } from './tile.ts';

/** Bytes of one line of 32-bit lanes. */
const LINE = 4 * LANES;
/** Bytes of a row's block: as it is stored, and unpacked with int8 or int16 weights. */
const [STORED, UNPACKED, WIDENED] = [2 + BLOCK, 4 + BLOCK, 4 + 2 * BLOCK];

export function q8Format({ neighbours, flip }: Q8Layout): BlockFormat {
  const stored = { name: 'q8_0', bytes: STORED };
  if (neighbours === 2)
    return {
      ...stored,
      activation: { values: 'int16' },
      integers: () => pairs(({ w, quants, lane }, n, c) => widened(w, quants + lane * 2 + c * 8, n)),
    };
  return { ...stored, activation: { values: 'int8' }, integers: (f) => quads(f, flip, loadLine) };
}

/** Blocks of int8 weights that are unpacked for a layout: 16 f32 scales, then lines of 16 x 4 bytes. */
export const unpackedFormat = (name: string, { neighbours, flip }: Q8Layout): BlockFormat =>
  neighbours === 2
    ? { name, bytes: WIDENED, unpacked: true, activation: { values: 'int16' }, integers: () => pairs(loadLine) }
    : {
        name,
        bytes: UNPACKED,
        unpacked: true,
        activation: { values: 'int8' },
        integers: (f) => quads(f, flip, loadLine),
      };

const loadLine: Columns = ({ w, quants, lane }, n, c) => v.load(w, quants + n * LINE + lane * 4 + c * 16);

/** For layouts of neighbouring pairs. Adds `panel_q8_0_widened` and `unpack_q8_0` to the module. */
export function q8WidenedPanel(module: Module, shape: TileShape, leastRows: number): UnpackedPanel {
  const panel = formatPanel(module, unpackedFormat('q8_0_widened', { neighbours: 2, flip: 0 }), shape);
  const unpack = unpacker(module, 'q8_0', { from: LANES * STORED, to: LANES * WIDENED }, widenBlock);
  return { ...panel, unpack, steps: 1, leastRows };
}

function widenBlock(f: Func, w: I32, to: I32): Statement[] {
  const values = f.array('v128', LANES / 4);
  return [
    ...unpackScales(f, w, to, values),
    ...Array.from({ length: BLOCK / 2 }, (_, n) => [
      ...values.map((value, c) => value.set(widened(w, 2 * LANES + c * 8, n))),
      ...values.map((value, c) => v.store(to, value.get, (n + 1) * LINE + c * 16)),
    ]).flat(),
  ];
}

/** Columns 2 n and 2 n + 1 of four rows of a block whose first line is at the offset. */
const widened = (w: I32, offset: number, n: number): V128 => v.load8x8s(w, offset + (n * LINE) / 2);

/** Line n of four rows: their columns 2 n and 2 n + 1 (pairs), or 4 n and on (quads). */
type Columns = (context: BlockContext, n: number, c: number) => V128;

/** Weights carry `flip`. Lines are summed in the given order. */
export function quads(
  f: Func,
  flip: Q8Layout['flip'],
  columns: Columns,
  order: readonly number[] = [0, 1, 2, 3, 4, 5, 6, 7],
): (context: BlockContext) => Statement[] {
  const offset = flip === 0x80 ? hoistedConstant(f, pairOf(-128)) : undefined;
  return (context) => {
    const { sums, weights, activation, x } = context;
    const start = (t: number): V128 => (offset ? i32.dotI16(v.load32splat(x(t), 4), offset.get) : i32.constant(0));
    const line = (n: number): Statement[] => [
      ...weights.map((l, c) => l.set(columns(context, n, c))),
      ...sums.flatMap((row, t) => [
        activation.set(v.load32splat(x(t), 8 + n * 4)),
        ...row.map((s, c) => s.set(i32.relaxedDotAdd(activation.get, weights[c]!.get, s.get))),
      ]),
    ];
    return [
      ...sums.flatMap((row, t) => [activation.set(start(t)), ...row.map((s) => s.set(activation.get))]),
      ...order.flatMap(line),
    ];
  };
}

function pairs(columns: Columns): (context: BlockContext) => Statement[] {
  return (context) => {
    const { weights } = context;
    const line = (n: number): Statement[] => [
      ...weights.map((l, c) => l.set(columns(context, n, c))),
      ...productsThenSums(context, 8 + n * 4, i32.dotI16, n ? i32.add : undefined),
    ];
    return [...Array.from({ length: BLOCK / 2 }, (_, n) => line(n)).flat()];
  };
}
