/**
 * Integer sums of an iq4_nl block. A byte shuffle looks 16 levels up at once; levels are int8, so that products are those of
 * q8_0 weights (q8.ts), with the same bits whichever instructions make them.
 *
 *   quads   a level for each byte: four columns in a 32-bit lane. If the dot product takes unsigned bytes, the table has
 *           level + 128
 *   pairs   the bytes of a lane are put into the order k0 k2 k1 k3 before: the even ones, moved to the upper half of their
 *           int16, are 256 times the levels of k0 and k1, the odd ones of k2 and k3; sums are divided by 256
 *
 * Several rows have the levels unpacked first, as bytes or int16. V8 leaves shuffles at 128 bits, and what depends on them in
 * the same loop.
 */
import { iq4Levels } from '../quant/iq4_nl.ts';
import {
  type Func,
  hoistedBytes,
  hoistedConstant,
  type I32,
  i8,
  i16,
  i32,
  type Module,
  type Statement,
  type V128,
  v,
} from '../wasm/assembler.ts';
import { BLOCK, LANES, type Q8Layout } from './layout.ts';
import type { UnpackedPanel } from './matmul.ts';
import { type BlockContext, type BlockFormat, formatPanel, productsThenSums, unpackScales } from './matmul-block.ts';
import { quads, unpackedFormat } from './q8.ts';
import { type TileShape, unpacker } from './tile.ts';

export interface Iq4Dot {
  /** Whether the machine has relaxed SIMD. */
  readonly relaxed: boolean;
  /** How it multiplies int8 weights. */
  readonly q8: Q8Layout;
}

/** Bytes of four columns of a group, one per level. */
const LINE = 4 * LANES;
const LINES = BLOCK / 4;
const STORED = 18;

/** Lines that are in the same bytes follow each other. */
const order = Array.from({ length: LINES / 2 }, (_, n) => [n, n + LINES / 2]).flat();

export const iq4Format = (dot: Iq4Dot): BlockFormat => {
  const stored = { name: 'iq4_nl', bytes: STORED };
  if (dot.q8.neighbours === 2)
    return { ...stored, activation: { values: 'int16' }, integers: (f) => pairs(f, levelsOf(f, dot)) };
  return {
    ...stored,
    activation: { values: 'int8' },
    integers: (f) => {
      const levels = levelsOf(f, dot);
      return quads(f, dot.q8.flip, ({ w, quants, lane }, n, c) => levels(w, quants + lane * 4 + c * 16, n), order);
    },
  };
};

/** Adds `panel_iq4_nl_unpacked` and `unpack_iq4_nl` to the module. */
export function iq4UnpackedPanel(module: Module, dot: Iq4Dot, shape: TileShape, leastRows: number): UnpackedPanel {
  const format = unpackedFormat('iq4_nl_unpacked', dot.q8);
  const panel = formatPanel(module, format, shape);
  const bytes = { from: LANES * STORED, to: LANES * format.bytes };
  const unpack = unpacker(module, 'iq4_nl', bytes, (f, w, to) => unpackBlock(f, dot, w, to));
  return { ...panel, unpack, steps: 1, leastRows };
}

function unpackBlock(f: Func, dot: Iq4Dot, w: I32, to: I32): Statement[] {
  const levels = levelsOf(f, dot);
  const values = f.array('v128', LANES / 4);
  const loads = (n: number): Statement[] => values.map((value, c) => value.set(levels(w, 2 * LANES + c * 16, n)));
  const line = (nth: number, of: (bytes: V128) => V128): Statement[] =>
    values.map((value, c) => v.store(to, of(value.get), (nth + 1) * LINE + c * 16));
  const lines = Array.from({ length: LINES }, (_, n) =>
    dot.q8.neighbours === 4
      ? [...loads(n), ...line(n, (bytes) => bytes)]
      : [
          ...loads(n),
          ...line(2 * n, (bytes) => i16.shrS(i16.shl(bytes, 8), 8)),
          ...line(2 * n + 1, (bytes) => i16.shrS(bytes, 8)),
        ],
  );
  return [...unpackScales(f, w, to, values), ...lines.flat()];
}

/** Loads the levels of columns 4 n and on of four rows, for a block whose first line is at the offset. */
function levelsOf(f: Func, { relaxed, q8 }: Iq4Dot): (w: I32, offset: number, n: number) => V128 {
  const nibble = hoistedConstant(f, 0x0f0f0f0f).get;
  const table = hoistedBytes(
    f,
    iq4Levels.map((level) => level ^ q8.flip),
  ).get;
  const swizzle = relaxed ? i8.relaxedSwizzle : i8.swizzle;
  const evenFirst =
    q8.neighbours === 2
      ? hoistedBytes(
          f,
          [0, 4, 8, 12].flatMap((lane) => [0, 2, 1, 3].map((k) => lane + k)),
        ).get
      : undefined;
  return (w, offset, n) => {
    const loaded = v.load(w, offset + (n % (LINES / 2)) * LINE);
    const line = evenFirst ? swizzle(loaded, evenFirst) : loaded;
    // 16-bit shifts pair up, 8-bit shifts do not.
    return swizzle(table, v.and(n < LINES / 2 ? line : i16.shrU(line, 4), nibble));
  };
}

function pairs(f: Func, levels: ReturnType<typeof levelsOf>): (context: BlockContext) => Statement[] {
  const odd = hoistedConstant(f, 0xff00ff00).get;
  return (context) => {
    const { sums, weights, w, quants, lane } = context;
    const line = (n: number, nth: number): Statement[] => [
      ...weights.map((l, c) => l.set(levels(w, quants + lane * 4 + c * 16, n))),
      ...productsThenSums(context, 8 + n * 8, (x, q) => i32.dotI16(x, i16.shl(q, 8)), nth ? i32.add : undefined),
      ...productsThenSums(context, 12 + n * 8, (x, q) => i32.dotI16(x, v.and(q, odd)), i32.add),
    ];
    return [...order.flatMap(line), ...sums.flat().map((s) => s.set(i32.shrS(s.get, 8)))];
  };
}
