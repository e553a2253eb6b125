/**
 * One page of attention for a tile of up to TILE query vectors, one softmax state each. In the thread's scratch area:
 *
 *   queries   [TILE][headDim, padded]       copies of the query vectors
 *   scores    [TILE][PAGE]                  q . K scale, then exp(score - largest)
 *   sums      [TILE][headDim, padded]       values, weighted and summed up so far
 *   states    [TILE] of 64 bytes            largest score | total | correction | first, last position | out | .. | 32 spare
 *
 * Per page: scores = q . K scale; positions that a query does not see become -infinity; largest' = max(largest, scores);
 * correction = e^(largest - largest'); weights = e^(scores - largest'); total' = total correction + sum of the weights;
 * sums' = sums correction + weights . V. A page of which a query sees nothing changes no bit of its state: its weights
 * are 0, its correction is 1.
 *
 * Both products are tiles of queries times lanes without a sum over lanes, strict multiply-then-add in rising order of
 * headDim and of positions, from zero for each page: the same bits whatever the tile.
 */
import {
  add,
  constant,
  doWhile,
  type F32,
  type Func,
  f32,
  f32Add,
  f32Max,
  f32Multiply,
  f32Subtract,
  type I32,
  type Local,
  lessSigned,
  lessUnsigned,
  loadF32,
  loadI32,
  type Module,
  repeat,
  type Statement,
  select,
  shiftLeft,
  storeF32,
  subtract,
  type V128,
  v,
  when,
} from '../wasm/assembler.ts';
import { PAGE } from './kv.ts';
import { padded } from './layout.ts';
import { exponential, interleaved } from './math.ts';

/** Most query vectors per tile. */
export const TILE = 4;

/** What a state starts with instead of -infinity: minus itself it is 0, and no score is smaller. */
export const LOWEST = -1e30;

const SCORES = PAGE * 4;
const STATE = 64;
/** Byte offsets in a state. */
export const state = { largest: 0, total: 4, correction: 8, first: 12, last: 16, out: 20, spare: 32 } as const;

export interface TileShape {
  readonly headDim: number;
  /** 256-bit registers: twice as many sums at a time. */
  readonly wide: boolean;
}

/** Byte offsets in the scratch area, for query t of a tile. */
export function scratchOf({ headDim }: TileShape) {
  const row = padded(headDim) * 4;
  const scores = TILE * row;
  const sums = scores + TILE * SCORES;
  return {
    query: (t: number): number => t * row,
    scores: (t: number): number => scores + t * SCORES,
    sum: (t: number): number => sums + t * row,
    state: (t: number): number => sums + TILE * row + t * STATE,
  };
}

/** The largest multiple of 8 lanes that divides `lanes` and keeps the sums of `queries` in registers. */
function lanesAtOnce(lanes: number, queries: number, wide: boolean): number {
  const most = (wide ? 64 : 32) / queries;
  let best = 8;
  for (let n = 8; n <= most; n += 8) if (lanes % n === 0) best = n;
  return best;
}

interface Product {
  readonly sums: readonly (readonly Local<'v128'>[])[];
  readonly zero: readonly Statement[];
  /** sums[t] += the f32 at factors + t * factorStride + u * 4, times the line at lines + u * lineBytes. */
  step(u: number): Statement[];
}

/** The registers of a tile of queries x lanes. */
function product(
  f: Func,
  queries: number,
  lanes: number,
  [factors, factorStride]: readonly [Local<'i32'>, number],
  [lines, lineBytes]: readonly [Local<'i32'>, number],
): Product {
  const sums = Array.from({ length: queries }, () => f.array('v128', lanes / 4));
  const values = f.array('v128', lanes / 4);
  const factor = f.local('v128');
  return {
    sums,
    zero: sums.flat().map((sum) => sum.set(f32.splatConstant(0))),
    step: (u) => [
      ...values.map((value, c) => value.set(v.load(lines.get, u * lineBytes + c * 16))),
      ...sums.flatMap((row, t) => [
        factor.set(v.load32splat(factors.get, t * factorStride + u * 4)),
        ...row.map((sum, c) => sum.set(f32.madd(factor.get, values[c]!.get, sum.get))),
      ]),
    ],
  };
}

const storeAll = (to: Local<'i32'>, sums: Product['sums'], stride: number): Statement[] =>
  sums.flatMap((row, t) => row.map((sum, c) => v.store(to.get, sum.get, t * stride + c * 16)));

/** scores(keys, visible, scale): q . K scale of the page's first `visible` positions, rounded up to whole tiles. */
export function scoresFunc(module: Module, queries: number, shape: TileShape): Func {
  const { headDim, wide } = shape;
  const f = module.func(`scores_${headDim}_${queries}`, ['i32', 'i32', 'f32']);
  const [keys, visible, scale] = [f.param('i32', 0), f.param('i32', 1), f.param('f32', 2)];
  const [position, d, query, key, to] = [
    f.local('i32'),
    f.local('i32'),
    f.local('i32'),
    f.local('i32'),
    f.local('i32'),
  ];
  const scales = f.local('v128');
  const at = scratchOf(shape);
  const lanes = lanesAtOnce(PAGE, queries, wide);
  const unroll = headDim % 4 === 0 ? 4 : 1;
  const { sums, zero, step } = product(f, queries, lanes, [query, at.query(1)], [key, PAGE * 4]);
  return f.emit(
    scales.set(f32.splat(scale.get)),
    to.set(add(module.scratch, constant(at.scores(0)))),
    repeat(
      position,
      lanes,
      visible.get,
      ...zero,
      query.set(module.scratch),
      key.set(keys.get),
      d.set(constant(0)),
      repeat(
        d,
        unroll,
        constant(headDim),
        ...Array.from({ length: unroll }, (_, u) => step(u)).flat(),
        query.set(add(query.get, constant(unroll * 4))),
        key.set(add(key.get, constant(unroll * PAGE * 4))),
      ),
      ...sums.flat().map((sum) => sum.set(f32.mul(sum.get, scales.get))),
      ...storeAll(to, sums, SCORES),
      to.set(add(to.get, constant(lanes * 4))),
      keys.set(add(keys.get, constant(lanes * 4))),
    ),
  );
}

/** weigh(values, count): sums = sums correction + weights . V over the page's first `count` positions. */
export function weighFunc(module: Module, queries: number, shape: TileShape): Func {
  const { headDim, wide } = shape;
  const f = module.func(`weigh_${headDim}_${queries}`, ['i32', 'i32']);
  const [values, count] = [f.param('i32', 0), f.param('i32', 1)];
  const [d, left, weight, value, to, from] = [
    f.local('i32'),
    f.local('i32'),
    f.local('i32'),
    f.local('i32'),
    f.local('i32'),
    f.local('i32'),
  ];
  const correction = f.local('v128');
  const at = scratchOf(shape);
  const row = padded(headDim) * 4;
  const lanes = lanesAtOnce(padded(headDim), queries, wide);
  const { sums, zero, step } = product(f, queries, lanes, [weight, SCORES], [value, row]);
  // Positions behind `count` may hold anything, and 0 times anything may be NaN.
  const turns = (positions: number): Statement => {
    const more = lessUnsigned(constant(positions - 1), left.get);
    const body = [
      ...Array.from({ length: positions }, (_, u) => step(u)).flat(),
      weight.set(add(weight.get, constant(positions * 4))),
      value.set(add(value.get, constant(positions * row))),
      left.set(subtract(left.get, constant(positions))),
    ];
    return when(more, [doWhile(more, ...body)]);
  };
  return f.emit(
    from.set(module.scratch),
    to.set(module.scratch),
    repeat(
      d,
      lanes,
      constant(padded(headDim)),
      ...zero,
      weight.set(add(module.scratch, constant(at.scores(0)))),
      value.set(values.get),
      left.set(count.get),
      turns(4),
      turns(1),
      ...sums.flatMap((registers, t) => [
        correction.set(v.load32splat(from.get, at.state(t) + state.correction)),
        ...registers.map((sum, c) => sum.set(f32.madd(v.load(to.get, at.sum(t) + c * 16), correction.get, sum.get))),
      ]),
      ...sums.flatMap((registers, t) => registers.map((sum, c) => v.store(to.get, sum.get, at.sum(t) + c * 16))),
      to.set(add(to.get, constant(lanes * 4))),
      values.set(add(values.get, constant(lanes * 4))),
    ),
  );
}

/** softmax(scores, state, start): one query's step over a page whose first position is `start`. */
export function softmaxFunc(module: Module, { headDim }: TileShape): Func {
  const f = module.func(`softmax_${headDim}`, ['i32', 'i32', 'i32']);
  const [scores, slot, start] = [f.param('i32', 0), f.param('i32', 1), f.param('i32', 2)];
  const [position, end, at] = [f.local('i32'), f.local('i32'), f.local('i32')];
  const [largest, correction] = [f.local('f32'), f.local('f32')];
  const [splat, parts] = [f.local('v128'), f.array('v128', 2)];
  const values = f.array('v128', 4);
  const exp = exponential(f);

  const clamped = (value: I32): Statement[] => [
    position.set(value),
    position.set(select(lessSigned(position.get, constant(0)), constant(0), position.get)),
    position.set(select(lessSigned(constant(PAGE), position.get), constant(PAGE), position.get)),
  ];
  /** Scores from `position` to before `end` become -infinity. */
  const hide: Statement = when(lessUnsigned(position.get, end.get), [
    repeat(
      position,
      1,
      end.get,
      storeF32(add(scores.get, shiftLeft(position.get, constant(2))), f32.constant(Number.NEGATIVE_INFINITY)),
    ),
  ]);
  /** Two vectors become one number: through memory, or V8 would not pair them in the loop before. */
  const across = (
    vector: (a: V128, b: V128) => V128,
    single: (a: F32, b: F32) => F32,
    to: Local<'f32'>,
  ): Statement[] => {
    const lane = (n: number): F32 => f32.lane(splat.get, n);
    return [
      ...parts.map((part, c) => v.store(slot.get, part.get, state.spare + c * 16)),
      splat.set(vector(v.load(slot.get, state.spare), v.load(slot.get, state.spare + 16))),
      to.set(single(single(lane(0), lane(1)), single(lane(2), lane(3)))),
    ];
  };
  const total = f.local('f32');
  return f.emit(
    ...clamped(subtract(loadI32(slot.get, state.first), start.get)),
    end.set(position.get),
    position.set(constant(0)),
    hide,
    ...clamped(subtract(add(loadI32(slot.get, state.last), constant(1)), start.get)),
    end.set(constant(PAGE)),
    hide,
    ...parts.map((part) => part.set(f32.splatConstant(Number.NEGATIVE_INFINITY))),
    ...Array.from({ length: PAGE / 4 }, (_, c) => {
      const part = parts[c % 2]!;
      return part.set(f32.max(part.get, v.load(scores.get, c * 16)));
    }),
    ...across(f32.max, f32Max, largest),
    largest.set(f32Max(largest.get, loadF32(slot.get, state.largest))),
    splat.set(f32.splat(f32Subtract(loadF32(slot.get, state.largest), largest.get))),
    ...exp(splat),
    correction.set(f32.lane(splat.get, 0)),
    storeF32(slot.get, correction.get, state.correction),
    storeF32(slot.get, largest.get, state.largest),
    splat.set(f32.splat(largest.get)),
    ...parts.map((part) => part.set(f32.splatConstant(0))),
    at.set(scores.get),
    position.set(constant(0)),
    repeat(
      position,
      16,
      constant(PAGE),
      ...values.map((value, c) => value.set(f32.sub(v.load(at.get, c * 16), splat.get))),
      ...interleaved(...values.map(exp)),
      ...values.map((value, c) => parts[c % 2]!.set(f32.add(parts[c % 2]!.get, value.get))),
      ...values.map((value, c) => v.store(at.get, value.get, c * 16)),
      at.set(add(at.get, constant(64))),
    ),
    ...across(f32.add, f32Add, total),
    storeF32(slot.get, f32Add(f32Multiply(loadF32(slot.get, state.total), correction.get), total.get), state.total),
  );
}
