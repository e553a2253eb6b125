/**
 * One page of attention for a tile of up to TILE query vectors. In the thread's scratch area:
 *
 *   queries      [TILE][headDim, padded]       copies of the query vectors
 *   scores       [TILE][PAGE]                  q . K scale, then the weights
 *   sums         [TILE][headDim, padded]       values, weighted and summed up so far
 *   largest, total, correction                 [TILE] f32 each: a vector with one lane per query
 *   first, last, out                           [TILE] i32 each: positions that a query sees, where its result goes
 *   slope                                      [TILE] f32: alibi of the query's head
 *   parts        [TILE][8]
 *
 * Per page: scores = q . K scale, adjusted where the model does (attention-scores.ts); positions that a query does not
 * see become -infinity; largest' = max(largest, scores); correction = e^(largest - largest'); weights = e^(scores -
 * largest'); total' = total correction + sum of the weights; sums' = sums correction + weights . V. A page of which a
 * query sees nothing changes no bit of its state: its weights are 0, its correction is 1.
 *
 * Both products are tiles of queries times lanes without a sum over lanes, strict multiply-then-add in rising order of
 * headDim and of positions, from zero for each page: the same bits whatever the tile.
 */
import { KV_BLOCK } from '../quant/kv-cache.ts';
import {
  add,
  and,
  call,
  constant,
  doWhile,
  type Func,
  f32,
  type I32,
  type Local,
  lessSigned,
  lessUnsigned,
  loadI32,
  type Module,
  multiply,
  or,
  repeat,
  type Statement,
  select,
  shiftLeft,
  shiftRight,
  storeF32,
  subtract,
  type V128,
  v,
  when,
} from '../wasm/assembler.ts';
import { type KvHead, keyGroupBytes, lineBytes, lineLoad, PAGE, scaleBytes, valueScaleBytes } from './kv.ts';
import { padded } from './layout.ts';
import { LINE } from './loops.ts';
import { exponential, interleaved } from './math.ts';
import { acrossLanes } from './transpose.ts';

/** Largest number of query vectors per tile: the lanes of a vector. */
export const TILE = 4;

/** Initial value of `largest`, instead of -infinity: minus itself it is 0, and no score is smaller. */
export const LOWEST = -1e30;

const LINE_BYTES = LINE * 4;
const SCORES = PAGE * 4;

export interface TileShape extends KvHead {
  /** 256-bit registers hold twice as many sums. */
  readonly wide: boolean;
  /** Scores become cap tanh(score / cap). */
  readonly cap?: number;
  /** ALiBi slopes per head. */
  readonly alibi?: readonly number[];
  /** Rows attend to later positions too. */
  readonly bidirectional?: boolean;
}

/** Byte offsets in the scratch area, for query t of a tile. */
export function scratchOf({ headDim }: TileShape) {
  const row = padded(headDim) * 4;
  const scores = TILE * row;
  const sums = scores + TILE * SCORES;
  const states = sums + TILE * row;
  const word = (n: number) => (t: number) => states + n * TILE * 4 + t * 4;
  return {
    query: (t: number): number => t * row,
    scores: (t: number): number => scores + t * SCORES,
    sum: (t: number): number => sums + t * row,
    largest: word(0),
    total: word(1),
    correction: word(2),
    first: word(3),
    last: word(4),
    out: word(5),
    slope: word(6),
    part: (t: number, half: 0 | 1): number => states + 128 + t * 32 + half * 16,
  };
}

/** Lanes whose sums stay in registers: a line, so that a tile reads one sequential stream, or half a line. */
const lanesAtOnce = (queries: number, wide: boolean): number => (wide || queries <= 2 ? LINE : LINE / 2);

/** First vector of each part in which a line is computed. */
const partsOf = (lanes: number): number[] => (lanes < LINE ? [0, 2] : [0]);

/** Lines that a tile is multiplied by, from a pointer on. */
interface Lines {
  /** Statements needed before vectors of line u are loaded. */
  before(u: number): Statement[];
  /** Vector c of line u as f32. */
  load(u: number, c: number): V128;
}

interface Product {
  /** Sums of every query, one vector of lanes after the other. */
  readonly sums: readonly (readonly Local<'v128'>[])[];
  readonly zero: readonly Statement[];
  /** Sums of query t += the f32 at factors + t * factorStride + u * 4, times line u. */
  step(u: number): Statement[];
}

/** The registers of a tile of queries x lanes. */
function product(
  f: Func,
  queries: number,
  lanes: number,
  factors: { readonly at: Local<'i32'>; readonly stride: number },
  lines: Lines,
): Product {
  const sums = Array.from({ length: queries }, () => f.array('v128', lanes / 4));
  const values = f.array('v128', lanes / 4);
  const factor = f.local('v128');
  return {
    sums,
    zero: sums.flat().map((sum) => sum.set(f32.splatConstant(0))),
    step: (u) => [
      ...lines.before(u),
      ...values.map((value, c) => value.set(lines.load(u, c))),
      ...sums.flatMap((row, t) => [
        factor.set(v.load32splat(factors.at.get, t * factors.stride + u * 4)),
        ...row.map((sum, c) => sum.set(f32.madd(factor.get, values[c]!.get, sum.get))),
      ]),
    ],
  };
}

/** scores(keys, visible, scale): q . K scale of the page's first `visible` positions, rounded up to whole tiles. */
export function scoresFunc(module: Module, queries: number, shape: TileShape): Func {
  const { headDim, wide, storage } = shape;
  const f = module.func(`scores_${headDim}_${queries}`, ['i32', 'i32', 'f32']);
  const [keys, visible, scale] = [f.param('i32', 0), f.param('i32', 1), f.param('f32', 2)];
  const [position, d, query, key] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
  const [to, scales] = [f.local('i32'), f.local('v128')];
  const at = scratchOf(shape);
  const lanes = lanesAtOnce(queries, wide);
  const unroll = headDim % 4 === 0 ? 4 : 1;
  const load = lineLoad(f, storage);
  const scaled = storage === 'q8_0';
  const blockScales = f.array('v128', lanes / 4);
  const [block, scale16] = [f.local('i32'), f.local('i32')];
  const compute = (part: number): Statement[] => {
    const factors = { at: query, stride: at.query(1) };
    const { sums, zero, step } = product(f, queries, lanes, factors, {
      before: () => [],
      load: (u, c) => {
        const values = load(key.get, u, part + c);
        return scaled ? f32.mul(values, blockScales[c]!.get) : values;
      },
    });
    const walk = (count: number): Statement[] => [
      d.set(constant(0)),
      repeat(
        d,
        unroll,
        constant(count),
        ...Array.from({ length: unroll }, (_, u) => step(u)).flat(),
        query.set(add(query.get, constant(unroll * 4))),
        key.set(add(key.get, constant(unroll * lineBytes[storage]))),
      ),
    ];
    return [
      ...zero,
      query.set(module.scratch),
      key.set(add(keys.get, constant(scaleBytes(shape)))),
      ...(scaled
        ? [
            scale16.set(keys.get),
            block.set(constant(0)),
            repeat(
              block,
              KV_BLOCK,
              constant(headDim),
              ...blockScales.map((l, c) => l.set(v.load(scale16.get, (part + c) * 16))),
              ...walk(KV_BLOCK),
              scale16.set(add(scale16.get, constant(LINE_BYTES))),
            ),
          ]
        : walk(headDim)),
      ...sums.flat().map((sum) => sum.set(f32.mul(sum.get, scales.get))),
      ...sums.flatMap((row, t) => row.map((sum, c) => v.store(to.get, sum.get, t * SCORES + (c + part) * 16))),
    ];
  };
  return f.emit(
    scales.set(f32.splat(scale.get)),
    to.set(add(module.scratch, constant(at.scores(0)))),
    repeat(
      position,
      LINE,
      visible.get,
      ...partsOf(lanes).flatMap(compute),
      to.set(add(to.get, constant(LINE_BYTES))),
      keys.set(add(keys.get, constant(keyGroupBytes(shape)))),
    ),
  );
}

/** weigh(values, count): sums = sums correction + weights . V over the page's first `count` positions. */
export function weighFunc(module: Module, queries: number, shape: TileShape): Func {
  const { headDim, wide, storage } = shape;
  const f = module.func(`weigh_${headDim}_${queries}`, ['i32', 'i32']);
  const [values, count] = [f.param('i32', 0), f.param('i32', 1)];
  const [d, left, weight, value, to] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
  const correction = f.local('v128');
  const at = scratchOf(shape);
  const lanes = lanesAtOnce(queries, wide);
  const load = lineLoad(f, storage);
  const scaled = storage === 'q8_0';
  const [blockScales, scaleAt, scale] = [f.local('i32'), f.local('i32'), f.local('v128')];
  // Memory behind `count` is uninitialized, and 0 times its values may be NaN.
  const turns = (positions: number, step: Product['step']): Statement => {
    const more = lessUnsigned(constant(positions - 1), left.get);
    const body = [
      ...Array.from({ length: positions }, (_, u) => step(u)).flat(),
      weight.set(add(weight.get, constant(positions * 4))),
      value.set(add(value.get, constant(positions * lineBytes[storage]))),
      ...(scaled ? [scaleAt.set(add(scaleAt.get, constant(positions * 4)))] : []),
      left.set(subtract(left.get, constant(positions))),
    ];
    return when(more, [doWhile(more, ...body)]);
  };
  const compute = (part: number): Statement[] => {
    const factors = { at: weight, stride: SCORES };
    const { sums, zero, step } = product(f, queries, lanes, factors, {
      before: (u) => (scaled ? [scale.set(v.load32splat(scaleAt.get, u * 4))] : []),
      load: (u, c) => {
        const stored = load(value.get, u, part + c);
        return scaled ? f32.mul(stored, scale.get) : stored;
      },
    });
    return [
      ...zero,
      ...(scaled ? [scaleAt.set(blockScales.get)] : []),
      weight.set(add(module.scratch, constant(at.scores(0)))),
      value.set(values.get),
      left.set(count.get),
      turns(4, step),
      turns(1, step),
      ...sums.flatMap((row, t) => [
        correction.set(v.load32splat(module.scratch, at.correction(t))),
        ...row.map((sum, c) => sum.set(f32.madd(v.load(to.get, at.sum(t) + (c + part) * 16), correction.get, sum.get))),
      ]),
      ...sums.flatMap((row, t) => row.map((sum, c) => v.store(to.get, sum.get, at.sum(t) + (c + part) * 16))),
    ];
  };
  return f.emit(
    to.set(module.scratch),
    ...(scaled ? [blockScales.set(values.get), values.set(add(values.get, constant(valueScaleBytes(shape))))] : []),
    repeat(
      d,
      LINE,
      constant(padded(headDim)),
      ...partsOf(lanes).flatMap(compute),
      to.set(add(to.get, constant(LINE_BYTES))),
      values.set(add(values.get, constant(PAGE * lineBytes[storage]))),
      // Two lines of dimensions share their scales.
      ...(scaled
        ? [
            blockScales.set(
              add(blockScales.get, multiply(and(shiftRight(d.get, constant(4)), constant(1)), constant(PAGE * 4))),
            ),
          ]
        : []),
    ),
  );
}

/** hide(scores, first, end): scores before `first` and from `end` on become -infinity; both may lie outside the page. */
export function hideFunc(module: Module, { headDim }: TileShape): Func {
  const f = module.func(`hide_${headDim}`, ['i32', 'i32', 'i32']);
  const [scores, first, end] = [f.param('i32', 0), f.param('i32', 1), f.param('i32', 2)];
  const position = f.local('i32');
  const clamped = (value: Local<'i32'>): Statement[] => [
    value.set(select(lessSigned(value.get, constant(0)), constant(0), value.get)),
    value.set(select(lessSigned(constant(PAGE), value.get), constant(PAGE), value.get)),
  ];
  const address = add(scores.get, shiftLeft(position.get, constant(2)));
  const hide = (start: I32, stop: I32): Statement[] => [
    position.set(start),
    when(lessUnsigned(position.get, stop), [
      repeat(position, 1, stop, storeF32(address, f32.constant(Number.NEGATIVE_INFINITY))),
    ]),
  ];
  return f.emit(...clamped(first), ...clamped(end), ...hide(constant(0), first.get), ...hide(end.get, constant(PAGE)));
}

/** softmax(start): the queries' step over a page whose first position is `start`. */
export function softmaxFunc(module: Module, queries: number, shape: TileShape, hide: Func): Func {
  const f = module.func(`softmax_${shape.headDim}_${queries}`, ['i32']);
  const start = f.param('i32', 0);
  const at = scratchOf(shape);
  const [scratch, i, p] = [f.local('i32'), f.local('i32'), f.local('i32')];
  const [largest, correction] = [f.local('v128'), f.local('v128')];
  const [parts, values, wholes] = [f.array('v128', 2), f.array('v128', 4), f.array('v128', TILE)];
  const exp = exponential(f);
  const each = (body: (t: number) => readonly Statement[]): Statement[] =>
    Array.from({ length: queries }, (_, t) => body(t)).flat();

  const hidden = (t: number): Statement => {
    const [first, last] = [loadI32(scratch.get, at.first(t)), loadI32(scratch.get, at.last(t))];
    const partly = or(lessSigned(start.get, first), lessSigned(last, add(start.get, constant(PAGE - 1))));
    const end = subtract(add(last, constant(1)), start.get);
    return when(partly, [call(hide, add(scratch.get, constant(at.scores(t))), subtract(first, start.get), end)]);
  };
  /** Stores `parts` of query t: lanes are combined through memory, because otherwise V8 does not pair the vectors. */
  const setAside = (t: number): Statement[] =>
    parts.map((part, half) => v.store(scratch.get, part.get, at.part(t, half as 0 | 1)));
  /** One lane per query: its parts combined. */
  const combined = (combine: (a: V128, b: V128) => V128, to: Local<'v128'>): Statement[] => {
    return [
      ...wholes.map((whole, n) => {
        const t = Math.min(n, queries - 1);
        return whole.set(combine(v.load(scratch.get, at.part(t, 0)), v.load(scratch.get, at.part(t, 1))));
      }),
      to.set(acrossLanes(f, wholes, combine)),
    ];
  };

  return f.emit(
    scratch.set(module.scratch),
    ...each((t) => [
      hidden(t),
      ...parts.map((part) => part.set(f32.splatConstant(Number.NEGATIVE_INFINITY))),
      // pmax ignores NaN, but e^(score - largest) is NaN again.
      ...Array.from({ length: PAGE / 4 }, (_, c) => {
        const part = parts[c % 2]!;
        return part.set(f32.pmax(part.get, v.load(scratch.get, at.scores(t) + c * 16)));
      }),
      ...setAside(t),
    ]),
    ...combined(f32.pmax, largest),
    correction.set(v.load(scratch.get, at.largest(0))),
    largest.set(f32.pmax(correction.get, largest.get)),
    v.store(scratch.get, largest.get, at.largest(0)),
    correction.set(f32.sub(correction.get, largest.get)),
    ...exp(correction),
    v.store(scratch.get, correction.get, at.correction(0)),
    ...each((t) => [
      largest.set(v.load32splat(scratch.get, at.largest(t))),
      ...parts.map((part) => part.set(f32.splatConstant(0))),
      p.set(add(scratch.get, constant(at.scores(t)))),
      i.set(constant(0)),
      repeat(
        i,
        LINE,
        constant(PAGE),
        ...values.map((value, c) => value.set(f32.sub(v.load(p.get, c * 16), largest.get))),
        ...interleaved(...values.map(exp)),
        ...values.map((value, c) => parts[c % 2]!.set(f32.add(parts[c % 2]!.get, value.get))),
        ...values.map((value, c) => v.store(p.get, value.get, c * 16)),
        p.set(add(p.get, constant(LINE_BYTES))),
      ),
      ...setAside(t),
    ]),
    ...combined(f32.add, largest),
    v.store(scratch.get, f32.madd(v.load(scratch.get, at.total(0)), correction.get, largest.get), at.total(0)),
  );
}
