/**
 * Score adjustments before the softmax, for models that have them:
 *
 *   cap     score = cap tanh(score / cap)
 *   alibi   score = score + bf16(slope bf16(position)) scale      slope of the head, rounded to bf16 before
 */
import { fromBF16, toBF16 } from '../quant/bf16.ts';
import {
  constant,
  equal,
  type Func,
  f32,
  f32FromI32,
  i32,
  type Local,
  type Module,
  type Statement,
  type V128,
  v,
  when,
} from '../wasm/assembler.ts';
import { scratchOf, type TileShape } from './attention-tile.ts';
import { PAGE } from './kv.ts';
import { interleaved, softcap } from './math.ts';

/** Adds `adjust(start, scale)`, which adjusts the scores of a tile for a page whose first position is `start`. */
export function adjustFunc(module: Module, queries: number, shape: TileShape): Func | undefined {
  const { cap, alibi } = shape;
  if (cap === undefined && !alibi) return undefined;
  const f = module.func(`adjust_${queries}`, ['i32', 'f32']);
  const [start, scale] = [f.param('i32', 0), f.param('f32', 1)];
  const at = scratchOf(shape);
  const values = f.array('v128', 4);
  const body = cap === undefined ? addAlibi(f, start, scale) : capScores(f, cap);
  for (let t = 0; t < queries; t++) {
    for (let p = 0; p < PAGE; p += 4 * values.length) {
      const score = at.scores(t) + p * 4;
      f.emit(
        ...values.map((value, c) => value.set(v.load(module.scratch, score + c * 16))),
        ...body(values, p, at.slope(t)),
        ...values.map((value, c) => v.store(module.scratch, value.get, score + c * 16)),
      );
    }
  }
  return f;
}

/** Statements over vectors of scores from position `first` of the page on. */
type Adjustment = (values: readonly Local<'v128'>[], first: number, slopeAt: number) => Statement[];

function capScores(f: Func, cap: number): Adjustment {
  const held = f.local('v128');
  const capped = softcap(f, held);
  f.emit(held.set(f32.splat(f32.constant(cap))));
  return (values) => interleaved(...values.map(capped));
}

function addAlibi(f: Func, start: Local<'i32'>, scale: Local<'f32'>): Adjustment {
  const [scales, bias, lanes, starts] = [f.local('v128'), f.local('v128'), f.local('v128'), f.local('v128')];
  // Lane indices, widened from the bytes 0 1 2 3.
  const numbers = [0, 1, 2, 3].flatMap((n) => [n, 16, 16, 16]);
  f.emit(
    scales.set(f32.splat(scale.get)),
    starts.set(f32.splat(f32FromI32(start.get))),
    lanes.set(f32.fromI32(v.shuffle(i32.constant(0x03020100), i32.constant(0), numbers))),
  );
  return (values, first, slopeAt) =>
    values.flatMap((value, c) => [
      bias.set(f32.add(f32.add(starts.get, lanes.get), f32.splatConstant(first + 4 * c))),
      bias.set(roundToBf16(bias)),
      bias.set(f32.mul(bias.get, v.load32splat(f.module.scratch, slopeAt))),
      bias.set(roundToBf16(bias)),
      value.set(f32.madd(bias.get, scales.get, value.get)),
    ]);
}

/** Rounds f32 values to bf16, to nearest, ties to even. */
function roundToBf16({ get }: Local<'v128'>): V128 {
  const odd = v.and(i32.shrU(get, 16), i32.constant(1));
  return v.and(i32.add(get, i32.add(odd, i32.constant(0x7fff))), i32.constant(-0x10000));
}

/** Adds `slope(head)`: the head's slope. */
export function slopeFunc(module: Module, slopes: readonly number[]): Func {
  const f = module.func('slope', ['i32'], 'f32');
  const [head, slope] = [f.param('i32', 0), f.local('f32')];
  const rounded = (value: number): number => fromBF16(toBF16(value));
  return f.emit(
    ...slopes.map((value, h) => when(equal(head.get, constant(h)), [slope.set(f32.constant(rounded(value)))])),
    slope.get,
  );
}
