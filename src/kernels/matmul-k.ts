/**
 * Products with q4_k, q5_k and q6_k weights and quantized activations: for each output, in rising order of the blocks of 32
 * along k,
 *
 *   q4_k, q5_k   total = total + (f32(sum of q x) * (d * s) - f32(sum of x) * (dmin * m)) * activation scale
 *   q6_k         total = total + (f32(s0 * sum of q x + s1 * sum of q x) * d) * activation scale    sums of 16 columns
 *
 * d * s, dmin * m and the integers are exact, whichever instructions make them, and the float steps are the same, so all
 * choices give the same bits. One row reads the super-blocks as they lie in memory; several rows read them unpacked into
 * bytes, once for all of them.
 */
import {
  type Func,
  f32,
  hoistedConstant,
  i16,
  i32,
  type Local,
  type Module,
  type Statement,
  type V128,
  v,
} from '../wasm/assembler.ts';
import {
  type KBlock,
  type KFormat,
  type KStorage,
  kFormat,
  unpackedBytes,
  unpackedFormat,
  unpackedLines,
} from './k-formats.ts';
import { activationBlockBytes, LANES, pairOf } from './layout.ts';
import { matmulKernel, type Panel } from './matmul.ts';
import type { Q4Dot } from './q4.ts';
import { bitsOf } from './record.ts';
import { type BlockSteps, blockPanel, blockRow, type TileShape, unpacker } from './tile.ts';

const ACTIVATION_BYTES = activationBlockBytes({ values: 'int8' });

/** Exports the step kernel `matmul_STORAGE`. */
export function kMatmulKernel(module: Module, storage: KStorage, shape: TileShape, dot: Q4Dot): Func {
  const format = kFormat(storage);
  return matmulKernel(module, storage, format.stepBytes, {
    row: blockRow(module, storage, { w: format.stepBytes, x: format.blocks * ACTIVATION_BYTES }, kSteps(format, dot)),
    unpacked: {
      ...kPanel(module, storage, shape, dot),
      unpack: kUnpack(module, storage),
      steps: format.blocks,
      leastRows: shape.tokens,
    },
  });
}

/** Adds `panel_STORAGE`, over unpacked weights, to the module. */
export function kPanel(module: Module, storage: KStorage, shape: TileShape, dot: Q4Dot): Panel {
  const unpacked = unpackedFormat(storage);
  const bytes = { w: unpacked.stepBytes, x: ACTIVATION_BYTES };
  return { f: blockPanel(module, storage, shape, bytes, kSteps(unpacked, dot)), bytes };
}

const kSteps =
  ({ at, blocks, together }: KFormat, dot: Q4Dot): BlockSteps =>
  (f, tokens, columns) => {
    const sums = Array.from({ length: together }, () => Array.from({ length: tokens }, () => f.array('v128', columns)));
    const sumsOf = sums.map((own) => integerSums(f, dot, own));
    const [activation, total] = [f.local('v128'), f.local('v128')];
    const ones = hoistedConstant(f, pairOf(1));
    const rescale = hoistedConstant(f, bitsOf(2 ** -112));
    return ({ w, lane, x, accumulate }) => {
      const parts = at(f, { w, lane, columns });
      /** Adds the sums of a block to the totals. */
      const scaled = ({ scale, minimum }: KBlock, rows: Vectors, splats: readonly Splat[]): Statement[] =>
        splats.flatMap((splat, t) => [
          activation.set(f32.mul(splat(0), rescale.get)),
          ...(minimum ? [total.set(f32.fromI32(i32.dotI16(splat(4), ones.get)))] : []),
          ...accumulate(t, (c) => {
            const sum = f32.mul(f32.fromI32(rows[t]![c]!.get), scale(c));
            return f32.mul(minimum ? f32.sub(sum, f32.mul(total.get, minimum(c))) : sum, activation.get);
          }),
        ]);
      const someBlocks = (first: number): Statement[] => {
        const run = sumsOf.map((sum, b) => {
          const offset = (first + b) * ACTIVATION_BYTES;
          const splats = sums[b]!.map(
            (_, t): Splat =>
              (at) =>
                v.load32splat(x(t), offset + at),
          );
          const block = parts.block(first + b);
          return { block, splats, integers: sum(block, splats) };
        });
        return [
          ...run.flatMap(({ block, integers }) => [...(block.halves ? block.scales : []), ...integers.start]),
          ...[0, 2, 4, 6].flatMap((n) => run.flatMap(({ integers }) => integers.twoWords(n))),
          // Scales not needed for integer sums are loaded late, to save registers.
          ...run.flatMap(({ block, splats }, b) => [
            ...(block.halves ? [] : block.scales),
            ...scaled(block, sums[b]!, splats),
          ]),
        ];
      };
      return [...parts.begin, ...Array.from({ length: blocks / together }, (_, n) => someBlocks(n * together)).flat()];
    };
  };

/** Per token, per column. */
type Vectors = readonly (readonly Local<'v128'>[])[];

/** Loads 32 bits of a token's block at an offset into all lanes. */
type Splat = (offset: number) => V128;

interface IntegerSums {
  readonly start: readonly Statement[];
  /** Adds words n and n + 1 of the codes; n = 0, 2, 4, 6 in this order. */
  twoWords(n: number): Statement[];
}

/**
 * The integer sums of one block. 'pairs' adds the products of `depth` words in int16 and applies the scales of the halves in
 * the multiplication that widens them; the other variants sum in 32 bits and multiply each half once.
 */
function integerSums(f: Func, dot: Q4Dot, sums: Vectors): (block: KBlock, xs: readonly Splat[]) => IntegerSums {
  const columns = sums[0]!.length;
  const [first, second] = [f.array('v128', columns), f.array('v128', columns)];
  const parts = sums.map(() => f.array('v128', columns));
  const [a, b] = [f.local('v128'), f.local('v128')];
  const ones = hoistedConstant(f, pairOf(1));
  const start = ({ halves }: KBlock, xs: readonly Splat[]): Statement[] =>
    sums.flatMap((row, t) =>
      halves
        ? [a.set(xs[t]!(4)), ...row.map((s, c) => s.set(i32.dotI16(a.get, halves.start(c))))]
        : row.map((s) => s.set(i32.constant(0))),
    );

  if (dot === 'pairs')
    return (block, xs) => {
      const { depth } = block;
      return {
        start: block.halves ? start(block, xs) : [],
        twoWords: (n) => [
          ...first.map((l, c) => l.set(block.codes(n, c))),
          ...second.map((l, c) => l.set(block.codes(n + 1, c))),
          ...sums.flatMap((row, t) => [
            a.set(xs[t]!(8 + 4 * n)),
            b.set(xs[t]!(12 + 4 * n)),
            ...row.map((s, c) => {
              const part = parts[t]![c]!;
              const products = i16.add(i16.relaxedDot(a.get, first[c]!.get), i16.relaxedDot(b.get, second[c]!.get));
              const sum = n % depth ? i16.add(part.get, products) : products;
              if ((n + 2) % depth) return part.set(sum);
              const widened = i32.dotI16(sum, block.halves?.scale(n >> 2, c) ?? ones.get);
              return s.set(block.halves || n >= depth ? i32.add(s.get, widened) : widened);
            }),
          ]),
        ],
      };
    };

  // Widened activations: the low halves of their int16 lanes, then the high ones.
  const even = (bytes: V128): V128 => i16.shrS(i16.shl(bytes, 8), 8);
  const odd = (bytes: V128): V128 => i16.shrS(bytes, 8);
  const product = (weights: V128, sum: V128): V128 =>
    dot === 'quads'
      ? i32.relaxedDotAdd(a.get, weights, sum)
      : i32.add(i32.add(sum, i32.dotI16(even(a.get), even(weights))), i32.dotI16(odd(a.get), odd(weights)));
  return (block, xs) => {
    const { halves } = block;
    const into = halves ? parts : sums;
    const oneWord = (n: number): Statement[] => [
      ...first.map((l, c) => l.set(block.codes(n, c))),
      ...into.flatMap((row, t) => [
        a.set(xs[t]!(8 + 4 * n)),
        ...row.map((s, c) => s.set(product(first[c]!.get, s.get))),
      ]),
    ];
    const beginHalf = halves ? parts.flat().map((s) => s.set(i32.constant(0))) : [];
    const endHalf = (half: number): Statement[] =>
      halves
        ? sums.flatMap((row, t) =>
            row.map((s, c) => s.set(i32.add(s.get, i32.mul(parts[t]![c]!.get, i32.shrS(halves.scale(half, c), 16))))),
          )
        : [];
    return {
      start: start(block, xs),
      twoWords: (n) => [
        ...(n % 4 === 0 ? beginHalf : []),
        ...oneWord(n),
        ...oneWord(n + 1),
        ...(n % 4 === 2 ? endHalf(n >> 2) : []),
      ],
    };
  };
}

/** Adds `unpack_STORAGE(w, to, count)`: `count` super-blocks of groups, for `unpackedFormat`. */
function kUnpack(module: Module, storage: KStorage): Func {
  const format = kFormat(storage);
  const bytes = { from: format.stepBytes, to: format.blocks * unpackedBytes(storage) };
  return unpacker(module, storage, bytes, (f, w, to) => {
    const values = f.array('v128', LANES / 4);
    const { begin, block } = format.at(f, { w, lane: 0, columns: LANES / 4 });
    let at = 0;
    const line = (of: (c: number) => V128): Statement[] => {
      const stores = values.map((value, c) => v.store(to, value.get, at + c * 16));
      at += LANES * 4;
      return [...values.map((value, c) => value.set(of(c))), ...stores];
    };
    const blocks = Array.from({ length: format.blocks }, (_, n) => block(n));
    return [...begin, ...blocks.flatMap((part) => [...part.scales, ...unpackedLines(part).flatMap(line)])];
  });
}
