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
  add,
  constant,
  type Func,
  f32,
  hoistedConstant,
  i16,
  i32,
  type Local,
  type Module,
  multiply,
  repeat,
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
import { matmulKernel } from './matmul.ts';
import type { Q4Dot } from './q4.ts';
import { bitsOf } from './record.ts';
import { type TileShape, tileFunc } from './tile.ts';

const ACTIVATION_BYTES = activationBlockBytes({ values: 'int8' });

/** Bytes of a super-block of a group as tiles read it. */
export const unpackedStepBytes = (storage: KStorage): number => kFormat(storage).blocks * unpackedBytes(storage);

/** Exports the step kernel `matmul_STORAGE`. */
export function kMatmulKernel(module: Module, storage: KStorage, best: TileShape, dot: Q4Dot): Func {
  const [format, unpacked] = [kFormat(storage), unpackedFormat(storage)];
  return matmulKernel(module, storage, best, (shape) => kTile(module, unpacked, dot, shape), {
    direct: kTile(module, format, dot, { tokens: 1, lanes: 16 }),
    unpack: kUnpack(module, storage),
    steps: format.blocks,
    bytes: unpackedStepBytes(storage),
  });
}

/** Adds `matmul_NAME_TOKENS` to the module. */
function kTile(module: Module, format: KFormat, dot: Q4Dot, { tokens, lanes }: TileShape): Func {
  const { f, x, xStride, w, out, outStride, steps, groups } = tileFunc(module, `matmul_${format.name}_${tokens}`);
  const columns = lanes / 4;
  const table = (): Local<'v128'>[][] => Array.from({ length: tokens }, () => f.array('v128', columns));
  const sums = table();
  // One token leaves room for its totals in registers; a tile keeps them in `out`, which is in the first-level cache.
  const totals = tokens === 1 ? table() : undefined;
  const results = f.array('v128', columns);
  const [activation, total] = [f.local('v128'), f.local('v128')];
  const [group, step, place] = [f.local('i32'), f.local('i32'), f.local('i32')];
  const [pointers, outs] = [f.array('i32', tokens), f.array('i32', tokens)];
  const ones = hoistedConstant(f, pairOf(1));
  const rescale = hoistedConstant(f, bitsOf(2 ** -112));
  const integers = integerSums(f, dot, sums, columns);

  const onePass = (pass: number): Statement[] => {
    const lane = pass * lanes;
    const at = (c: number): number => (lane + c * 4) * 4;
    const store = (t: number, values: readonly V128[]): Statement[] =>
      values.map((value, c) => v.store(outs[t]!.get, value, at(c)));
    const parts = format.at(f, { w: place.get, lane, columns });
    const scaled = (block: KBlock, n: number) => (row: readonly Local<'v128'>[], t: number) => {
      const offset = n * ACTIVATION_BYTES;
      const before = (c: number): V128 => (totals ? totals[t]![c]!.get : v.load(outs[t]!.get, at(c)));
      const weighted = (c: number): V128 => f32.mul(f32.fromI32(row[c]!.get), block.scale(c));
      const value = (c: number): V128 =>
        block.minimum ? f32.sub(weighted(c), f32.mul(total.get, block.minimum(c))) : weighted(c);
      return [
        activation.set(f32.mul(v.load32splat(pointers[t]!.get, offset), rescale.get)),
        ...(block.minimum
          ? [total.set(f32.fromI32(i32.dotI16(v.load32splat(pointers[t]!.get, offset + 4), ones.get)))]
          : []),
        ...row.map((_, c) =>
          (totals ? totals[t]! : results)[c]!.set(f32.add(before(c), f32.mul(value(c), activation.get))),
        ),
        ...(totals
          ? []
          : store(
              t,
              results.map((r) => r.get),
            )),
      ];
    };
    const oneBlock = (n: number): Statement[] => {
      const block = parts.block(n);
      const xs = pointers.map((p) => (offset: number) => v.load32splat(p.get, n * ACTIVATION_BYTES + offset));
      return [...block.scales, ...integers(block, xs), ...sums.flatMap(scaled(block, n))];
    };
    const zero = f32.splatConstant(0);
    return [
      place.set(w.get),
      ...pointers.map((p, t) => p.set(add(x.get, multiply(xStride.get, constant(t))))),
      ...(totals
        ? totals.flat().map((s) => s.set(zero))
        : outs.flatMap((_, t) =>
            store(
              t,
              results.map(() => zero),
            ),
          )),
      step.set(constant(0)),
      repeat(
        step,
        1,
        steps.get,
        ...parts.begin,
        ...Array.from({ length: format.blocks }, (_, n) => oneBlock(n)).flat(),
        place.set(add(place.get, constant(format.stepBytes))),
        ...pointers.map((p) => p.set(add(p.get, constant(format.blocks * ACTIVATION_BYTES)))),
      ),
      ...(totals
        ? store(
            0,
            totals[0]!.map((s) => s.get),
          )
        : []),
    ];
  };
  return f.emit(
    ...outs.map((p, t) => p.set(add(out.get, multiply(outStride.get, constant(t))))),
    group.set(constant(0)),
    repeat(
      group,
      1,
      groups.get,
      ...Array.from({ length: LANES / lanes }, (_, pass) => onePass(pass)).flat(),
      w.set(place.get),
      ...outs.map((p) => p.set(add(p.get, constant(LANES * 4)))),
    ),
  );
}

/** Loads 32 bits of a token's block at an offset into all lanes. */
type Splat = (offset: number) => V128;

/**
 * The integer sums of one block. 'pairs' adds the products of `depth` words in int16 and lets the
 * multiplication that widens them apply the scales of halves; the others sum 32 bits and multiply each half once.
 */
function integerSums(f: Func, dot: Q4Dot, sums: readonly (readonly Local<'v128'>[])[], columns: number) {
  const [first, second] = [f.array('v128', columns), f.array('v128', columns)];
  const [a, b] = [f.local('v128'), f.local('v128')];
  const ones = hoistedConstant(f, pairOf(1));
  const start = ({ halves }: KBlock, xs: readonly Splat[]): Statement[] =>
    sums.flatMap((row, t) =>
      halves
        ? [a.set(xs[t]!(4)), ...row.map((s, c) => s.set(i32.dotI16(a.get, halves.start(c))))]
        : row.map((s) => s.set(i32.constant(0))),
    );

  if (dot === 'pairs') {
    const parts = sums.map(() => f.array('v128', columns));
    return (block: KBlock, xs: readonly Splat[]): Statement[] => {
      // A tile has no registers for sums of more words.
      const depth = sums.length === 1 ? block.depth : 2;
      const twoWords = (n: number): Statement[] => [
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
            return s.set(i32.add(s.get, i32.dotI16(sum, block.halves?.scale(n >> 2, c) ?? ones.get)));
          }),
        ]),
      ];
      return [...start(block, xs), ...[0, 2, 4, 6].flatMap(twoWords)];
    };
  }

  // Widened activations: the low halves of their int16 lanes, then the high ones.
  const even = (bytes: V128): V128 => i16.shrS(i16.shl(bytes, 8), 8);
  const odd = (bytes: V128): V128 => i16.shrS(bytes, 8);
  const product = (weights: V128, sum: V128): V128 =>
    dot === 'quads'
      ? i32.relaxedDotAdd(a.get, weights, sum)
      : i32.add(i32.add(sum, i32.dotI16(even(a.get), even(weights))), i32.dotI16(odd(a.get), odd(weights)));
  const parts = sums.map((row) => row.map(() => f.local('v128')));
  return (block: KBlock, xs: readonly Splat[]): Statement[] => {
    const { halves } = block;
    const into = halves ? parts : sums;
    const words = (n: number): Statement[] => [
      ...first.map((l, c) => l.set(block.codes(n, c))),
      ...into.flatMap((row, t) => [
        a.set(xs[t]!(8 + 4 * n)),
        ...row.map((s, c) => s.set(product(first[c]!.get, s.get))),
      ]),
    ];
    const half = (h: number): Statement[] => [
      ...(halves ? parts.flat().map((s) => s.set(i32.constant(0))) : []),
      ...[0, 1, 2, 3].flatMap((n) => words(4 * h + n)),
      ...(halves
        ? sums.flatMap((row, t) =>
            row.map((s, c) => s.set(i32.add(s.get, i32.mul(parts[t]![c]!.get, i32.shrS(halves.scale(h, c), 16))))),
          )
        : []),
    ];
    return [...start(block, xs), ...half(0), ...half(1)];
  };
}

/** Adds `unpack_STORAGE(w, to, count)`: `count` super-blocks of groups, for `unpackedFormat`. */
function kUnpack(module: Module, storage: KStorage): Func {
  const format = kFormat(storage);
  const f = module.func(`unpack_${storage}`, ['i32', 'i32', 'i32']);
  const [w, to, count] = [f.param('i32', 0), f.param('i32', 1), f.param('i32', 2)];
  const step = f.local('i32');
  const values = f.array('v128', LANES / 4);
  const { begin, block } = format.at(f, { w: w.get, lane: 0, columns: LANES / 4 });
  const lines = Array.from({ length: format.blocks }, (_, n) => block(n)).map(
    (part) => [part.scales, unpackedLines(part)] as const,
  );
  let at = 0;
  const body = lines.flatMap(([scales, blockLines]) => [
    ...scales,
    ...blockLines.flatMap((line) => {
      const stores = values.map((value, c) => v.store(to.get, value.get, at + c * 16));
      at += LANES * 4;
      return [...values.map((value, c) => value.set(line(c))), ...stores];
    }),
  ]);
  return f.emit(
    step.set(constant(0)),
    repeat(
      step,
      1,
      count.get,
      ...begin,
      ...body,
      w.set(add(w.get, constant(format.stepBytes))),
      to.set(add(to.get, constant(at))),
    ),
  );
}
