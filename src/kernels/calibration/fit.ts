/** Fits a scale, or a scale and a minimum, to the ideal values of a block: see src/quant/k-fit.ts. Sixteen rows are lanes. */
import {
  add,
  constant,
  type Func,
  f32,
  type I32,
  i32,
  type Local,
  lessUnsigned,
  type Module,
  repeat,
  type Statement,
  shiftLeft,
  type V128,
  v,
  when,
} from '../../wasm/assembler.ts';
import { area, COLUMN, lane } from './gather.ts';

/** Candidates divide the span of the values into a number of steps around the largest code. */
const CANDIDATES = 15;
const STEP = 0.15;

/**
 * Adds `fit(importance, columns)`, which leaves in lane.scale and lane.minimum the least squares fit to area.values, weighed by
 * the importance of the columns. most: scale * q - minimum for codes 0 to `most`; half: scale * q for -half to half - 1.
 */
export function fitFunction(module: Module, kind: { readonly most: number } | { readonly half: number }): Func {
  const f = module.func('fit', ['i32', 'i32']);
  const [importance, columns] = [f.param('i32', 0), f.param('i32', 1)];
  const { scratch } = module;
  const [value, weight, end] = [f.local('i32'), f.local('i32'), f.local('i32')];
  const candidate = f.local('i32');
  const [x, w, q, inverse] = f.array('v128', 4) as [L, L, L, L];
  const [least, largest, sw, sx] = f.array('v128', 4) as [L, L, L, L];
  const [sq, sqq, sqx, best] = f.array('v128', 4) as [L, L, L, L];
  const [scale, minimum, error, mask] = f.array('v128', 4) as [L, L, L, L];
  const [bestScale, bestMinimum, divisor] = f.array('v128', 3) as [L, L, L];
  const zero = v.bytes(0);
  const splat = f32.splatConstant;
  const [low, high] = 'most' in kind ? [0, kind.most] : [-kind.half, kind.half - 1];
  const top = 'most' in kind ? kind.most : kind.half;

  const eachColumn = (c: number, ...body: readonly Statement[]): Statement[] => [
    value.set(scratch),
    weight.set(importance.get),
    end.set(add(scratch, shiftLeft(columns.get, constant(6)))),
    repeat(
      value,
      COLUMN,
      end.get,
      x.set(v.load(value.get, area.values + c)),
      w.set(v.load32splat(weight.get)),
      ...body,
      weight.set(add(weight.get, constant(4))),
    ),
  ];
  const clear = (...locals: readonly L[]): Statement[] => locals.map((local) => local.set(zero));
  /** Adds the sums of a candidate's codes, then its scale (and minimum), loss (less is better) and whether it is valid. */
  const judge: Statement[] =
    'most' in kind
      ? [
          error.set(f32.sub(f32.mul(sw.get, sqq.get), f32.mul(sq.get, sq.get))),
          scale.set(f32.div(f32.sub(f32.mul(sw.get, sqx.get), f32.mul(sx.get, sq.get)), error.get)),
          minimum.set(f32.div(f32.sub(f32.mul(sq.get, sqx.get), f32.mul(sqq.get, sx.get)), error.get)),
          mask.set(f32.lt(minimum.get, zero)),
          scale.set(v.bitselect(f32.div(sqx.get, sqq.get), scale.get, mask.get)),
          minimum.set(v.bitselect(zero, minimum.get, mask.get)),
          error.set(
            f32.add(
              f32.add(
                f32.mul(f32.mul(scale.get, scale.get), sqq.get),
                f32.mul(f32.mul(minimum.get, minimum.get), sw.get),
              ),
              f32.mul(
                splat(-2),
                f32.add(
                  f32.sub(f32.mul(scale.get, sqx.get), f32.mul(minimum.get, sx.get)),
                  f32.mul(f32.mul(scale.get, minimum.get), sq.get),
                ),
              ),
            ),
          ),
          mask.set(v.and(f32.lt(error.get, best.get), f32.gt(scale.get, zero))),
        ]
      : [
          scale.set(f32.div(sqx.get, sqq.get)),
          error.set(f32.neg(f32.mul(scale.get, sqx.get))),
          mask.set(f32.lt(error.get, best.get)),
        ];
  const lanesFit = (c: number): Statement[] => [
    ...clear(least, largest, sw, sx),
    ...eachColumn(
      c,
      ...('most' in kind
        ? [least.set(f32.pmin(least.get, x.get)), largest.set(f32.pmax(largest.get, x.get))]
        : [largest.set(v.bitselect(x.get, largest.get, f32.gt(f32.abs(x.get), f32.abs(largest.get))))]),
      sw.set(f32.add(sw.get, w.get)),
      sx.set(f32.madd(w.get, x.get, sx.get)),
    ),
    divisor.set('most' in kind ? f32.sub(largest.get, least.get) : f32.neg(largest.get)),
    bestScale.set(f32.div(divisor.get, splat(top))),
    bestMinimum.set('most' in kind ? f32.neg(least.get) : zero),
    best.set(splat(Infinity)),
    candidate.set(constant(0)),
    repeat(
      candidate,
      1,
      constant(CANDIDATES),
      ...clear(sq, sqq, sqx),
      inverse.set(f32.div(candidateTop(candidate.get), divisor.get)),
      ...eachColumn(
        c,
        q.set(f32.nearest(f32.mul(f32.sub(x.get, least.get), inverse.get))),
        q.set(f32.pmax(f32.pmin(q.get, splat(high)), splat(low))),
        error.set(f32.mul(w.get, q.get)),
        sq.set(f32.add(sq.get, error.get)),
        sqq.set(f32.madd(error.get, q.get, sqq.get)),
        sqx.set(f32.madd(error.get, x.get, sqx.get)),
      ),
      ...judge,
      best.set(v.bitselect(error.get, best.get, mask.get)),
      bestScale.set(v.bitselect(scale.get, bestScale.get, mask.get)),
      bestMinimum.set(v.bitselect(minimum.get, bestMinimum.get, mask.get)),
    ),
    v.store(scratch, bestScale.get, lane.scale + c),
    v.store(scratch, bestMinimum.get, lane.minimum + c),
  ];
  const candidateTop = (n: I32): V128 =>
    f32.add(f32.mul(f32.fromI32(i32.splat(n)), splat(STEP)), splat(top - (STEP * (CANDIDATES - 1)) / 2));
  return f.emit(when(lessUnsigned(constant(0), columns.get), [0, 16, 32, 48].flatMap(lanesFit)));
}

type L = Local<'v128'>;
