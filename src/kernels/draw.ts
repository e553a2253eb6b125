/**
 * The passes of a draw over a row of logits (src/backend/draw.ts defines the result). Every pass is divided by chunks of
 * SUMMARY_CHUNK logits; JavaScript decides between them:
 *
 *   maxima    the largest logit of each chunk, among tokens that may come
 *   weights   integer weights of all tokens, and their sum and the smallest logit of each chunk
 *   bins      the weight, or the number of tokens, in each of BINS equal stretches of logits
 *   edge      sums of the weights above one bin, and the ids of the tokens in it
 *
 * What lies behind the end of a row, in its last line of 16, is masked: its bits in the mask are 0.
 */
import {
  add,
  and,
  constant,
  divideUnsigned,
  doWhile,
  type Func,
  f32,
  f32Max,
  f32Min,
  hoistedConstant,
  type I32,
  i32,
  i64Add,
  type Local,
  lessUnsigned,
  load32u,
  loadF32,
  loadI32,
  loadI64,
  type Module,
  multiply,
  or,
  repeat,
  type Statement,
  shiftLeft,
  smaller,
  storeF32,
  storeI32,
  storeI64,
  subtract,
  trailingZeros,
  type V128,
  v,
  when,
} from '../wasm/assembler.ts';
import { LINE, line } from './loops.ts';
import { interleaved, scaledExponential } from './math.ts';
import { bitsOf, type RecordLayout, recordLayout } from './record.ts';

/** Stretches that `bins` divides logits into. */
export const BINS = 2048;
/** Ids that one thread of `edge` writes at most; more are only counted. */
export const EDGE_IDS = 2048;

/** Bytes that `weights` and `edge` write for each chunk: high and low part of a sum (high * 2^15 + low), an f32, nothing. */
export const CHUNK_SUM_BYTES = 16;
/** Bytes of a thread's bins, each an i64. */
export const BIN_BYTES = BINS * 8;
/** Bytes of a thread's results of `edge`: count of ids, largest and smallest logit in the bin, nothing; then the ids. */
export const EDGE_BYTES = 16 + EDGE_IDS * 4;

const LINE_BYTES = LINE * 4;
/** The largest weight is 2 to this. */
const WEIGHT_BITS = 30;
/** Low bits of a weight that are added up apart from the others, so that sums of a chunk fit 32 bits. */
const LOW_BITS = 15;

/** lines: of the row, 16 values each. out: an f32 for each chunk. */
export const maximaRecord = recordLayout('x', 'mask', 'out', 'lines');
/** largest, inverse: as in `tokenWeight`. least: smaller weights are not added up. out: CHUNK_SUM_BYTES for each chunk. */
export const weightsRecord = recordLayout('x', 'mask', 'weights', 'out', 'lines', 'largest', 'inverse', 'least');
/**
 * Bins of logits z from `lower` to `upper`: bin (top - z) * scale, rounded down, within 0 .. BINS - 1. most: larger weights
 * count as this (1: tokens are counted). out: BIN_BYTES for each thread, to which is added.
 */
export const binsRecord = recordLayout('x', 'weights', 'out', 'lines', 'top', 'scale', 'upper', 'lower', 'most');
/**
 * bin: bits of the f32 of its number. above: CHUNK_SUM_BYTES for each chunk, sums of weights from `least` on of logits above
 * the bin, up to any height. out: EDGE_BYTES for each thread.
 */
export const edgeRecord = recordLayout(
  'x',
  'weights',
  'above',
  'out',
  'lines',
  'top',
  'scale',
  'upper',
  'lower',
  'bin',
  'least',
);

interface Pass<Name extends string> {
  readonly f: Func;
  word(name: Name): I32;
  readonly thread: Local<'i32'>;
  /** Chunk at hand, the address of its results, its first line. */
  readonly chunk: Local<'i32'>;
  /** The vector `value` as a local that the compiler keeps in a register. */
  splat(name: Name): Local<'v128'>;
  /** Runs `body` for each line of each chunk of the thread; pointers move along by the bytes given. */
  run(
    pointers: readonly (readonly [pointer: Local<'i32'>, name: Name, bytes: number])[],
    parts: {
      readonly before?: readonly Statement[];
      readonly each: readonly Statement[];
      readonly after?: readonly Statement[];
    },
  ): Statement;
}

function pass<Name extends string>(
  module: Module,
  name: string,
  layout: RecordLayout<Name | 'lines'>,
  chunkLines: number,
): Pass<Name | 'lines'> {
  const f = module.func(name, ['i32', 'i32', 'i32']);
  const [record, thread, threads] = [f.param('i32', 0), f.param('i32', 1), f.param('i32', 2)];
  const [chunk, end, left, chunks] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
  const word = (argument: Name | 'lines'): I32 => layout.load(record, argument);
  const share = (n: I32): I32 => divideUnsigned(multiply(chunks.get, n), threads.get);
  return {
    f,
    word,
    thread,
    chunk,
    splat(argument) {
      const local = f.local('v128');
      f.emit(local.set(v.load32splat(record.get, layout.offset(argument))));
      return local;
    },
    run: (pointers, { before = [], each, after = [] }) => [
      chunks.set(divideUnsigned(add(word('lines'), constant(chunkLines - 1)), constant(chunkLines))),
      chunk.set(share(thread.get)),
      end.set(share(add(thread.get, constant(1)))),
      when(lessUnsigned(chunk.get, end.get), [
        ...pointers.map(([pointer, argument, bytes]) =>
          pointer.set(add(word(argument), multiply(chunk.get, constant(chunkLines * bytes)))),
        ),
        repeat(
          chunk,
          1,
          end.get,
          ...before,
          left.set(linesOf(word, chunk, chunkLines)),
          doWhile(
            left.get,
            ...each,
            ...pointers.map(([pointer, , bytes]) => pointer.set(add(pointer.get, constant(bytes)))),
            left.set(subtract(left.get, constant(1))),
          ),
          ...after,
        ),
      ]),
    ],
  };
}

/** Lines of the chunk. */
const linesOf = (word: (name: 'lines') => I32, chunk: Local<'i32'>, chunkLines: number): I32 =>
  smaller(constant(chunkLines), subtract(word('lines'), multiply(chunk.get, constant(chunkLines))));

/** Makes a formula for 16 tokens whose bits are at `mask`: statements that read them, then all ones where a token may come. */
function maskReader(f: Func): (mask: I32) => { read: Statement; lanes: readonly V128[] } {
  const bits = f.local('v128');
  const lanes = line(f);
  const zero = hoistedConstant(f, 0);
  // From memory, so that they stay in registers.
  const { scratch } = f.module;
  f.emit(
    ...Array.from({ length: LINE }, (_, lane) => storeI32(scratch, constant(1 << lane), lane * 4)),
    ...lanes.map((lane, c) => lane.set(v.load(scratch, c * 16))),
  );
  return (mask) => ({
    read: bits.set(v.load16splat(mask)),
    lanes: lanes.map((lane) => i32.gtS(v.and(bits.get, lane.get), zero.get)),
  });
}

type Vectors = readonly Local<'v128'>[];

/** The scratch area in a local, so that V8 sees that stores there are neighbours. */
function scratchOf(f: Func): Local<'i32'> {
  const local = f.local('i32');
  f.emit(local.set(f.module.scratch));
  return local;
}

/** Stores vectors side by side, from where their lanes are read: a lane taken from a register would keep V8 from pairing. */
const storeVectors = (to: Local<'i32'>, vectors: Vectors, line = 0): Statement[] =>
  vectors.map((vector, c) => v.store(to.get, vector.get, line * LINE_BYTES + c * 16));

/** The largest, or smallest, lane of vectors, as an f32. */
function storeExtreme(scratch: Local<'i32'>, to: I32, vectors: Vectors, best: typeof f32Max, offset = 0): Statement[] {
  const lanes = Array.from({ length: 4 * vectors.length }, (_, lane) => loadF32(scratch.get, lane * 4));
  return [...storeVectors(scratch, vectors), storeF32(to, lanes.reduce(best), offset)];
}

/** The sum of the lanes of i32 vectors. */
function storeSum(scratch: Local<'i32'>, to: I32, vectors: Vectors, offset: number): Statement[] {
  const lanes = Array.from({ length: 4 * vectors.length }, (_, lane) => loadI32(scratch.get, lane * 4));
  return [...storeVectors(scratch, vectors), storeI32(to, lanes.reduce(add), offset)];
}

/** Adds weights up in two parts that fit 32 bits. */
function adder(
  f: Func,
  scratch: Local<'i32'>,
): {
  readonly start: Statement[];
  add(weights: Vectors): Statement[];
  store(to: I32): Statement[];
} {
  const [high, low] = [line(f), line(f)];
  const lowMask = hoistedConstant(f, 2 ** LOW_BITS - 1);
  return {
    start: [...high, ...low].map((sum) => sum.set(i32.splat(constant(0)))),
    add: (weights) => [
      ...high.map((part, c) => part.set(i32.add(part.get, i32.shrU(weights[c]!.get, LOW_BITS)))),
      ...low.map((part, c) => part.set(i32.add(part.get, v.and(weights[c]!.get, lowMask.get)))),
    ],
    store: (to) => [...storeSum(scratch, to, high, 0), ...storeSum(scratch, to, low, 4)],
  };
}

export function maximaKernel(module: Module, chunkLines: number): Func {
  const { f, word, chunk, run } = pass(module, 'draw_maxima', maximaRecord, chunkLines);
  const [p, m] = [f.local('i32'), f.local('i32')];
  const none = hoistedConstant(f, bitsOf(Number.NEGATIVE_INFINITY));
  const largest = line(f);
  const mask = maskReader(f)(m.get);
  const scratch = scratchOf(f);
  return f.emit(
    run(
      [
        [p, 'x', LINE_BYTES],
        [m, 'mask', LINE / 8],
      ],
      {
        before: largest.map((x) => x.set(none.get)),
        each: [
          mask.read,
          ...largest.map((x, c) =>
            x.set(f32.pmax(x.get, v.bitselect(v.load(p.get, c * 16), none.get, mask.lanes[c]!))),
          ),
        ],
        after: storeExtreme(scratch, add(word('out'), shiftLeft(chunk.get, constant(2))), largest, f32Max),
      },
    ),
  );
}

export function weightsKernel(module: Module, chunkLines: number): Func {
  const { f, word, chunk, splat, run } = pass(module, 'draw_weights', weightsRecord, chunkLines);
  const [p, m, w, to, left] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
  const [top, inverse, least] = [splat('largest'), splat('inverse'), splat('least')];
  const half = hoistedConstant(f, bitsOf(0.5));
  const mask = maskReader(f)(m.get);
  const exp = scaledExponential(f, WEIGHT_BITS);
  const scratch = scratchOf(f);
  const sums = adder(f, scratch);
  const [values, smallest] = [line(f), line(f)];
  return f.emit(
    run(
      [
        [p, 'x', LINE_BYTES],
        [w, 'weights', LINE_BYTES],
        [m, 'mask', LINE / 8],
      ],
      {
        each: [
          mask.read,
          ...values.map((x, c) => x.set(f32.mul(f32.sub(v.load(p.get, c * 16), top.get), inverse.get))),
          ...interleaved(...values.map(exp)),
          ...values.map((x, c) => x.set(v.and(i32.truncSat(f32.add(x.get, half.get)), mask.lanes[c]!))),
          ...values.map((x, c) => v.store(w.get, x.get, c * 16)),
        ],
        // In a loop of its own: with fewer constants, and as V8 pairs no sums of values that are stored too.
        after: [
          ...sums.start,
          ...smallest.map((x) => x.set(top.get)),
          left.set(linesOf(word, chunk, chunkLines)),
          p.set(subtract(p.get, shiftLeft(left.get, constant(6)))),
          w.set(subtract(w.get, shiftLeft(left.get, constant(6)))),
          doWhile(
            left.get,
            ...values.map((_, c) => smallest[c]!.set(f32.pmin(smallest[c]!.get, v.load(p.get, c * 16)))),
            ...values.map((x, c) => x.set(v.load(w.get, c * 16))),
            ...values.map((x) => x.set(v.andNot(x.get, i32.gtS(least.get, x.get)))),
            ...sums.add(values),
            p.set(add(p.get, constant(LINE_BYTES))),
            w.set(add(w.get, constant(LINE_BYTES))),
            left.set(subtract(left.get, constant(1))),
          ),
          to.set(add(word('out'), multiply(chunk.get, constant(CHUNK_SUM_BYTES)))),
          ...sums.store(to.get),
          ...storeExtreme(scratch, to.get, smallest, f32Min, 8),
        ],
      },
    ),
  );
}

/** The bins of logits, as f32 whose fractions are not cut off, from 0 to BINS - 1 whatever they are. */
function binOf(f: Func, top: Local<'v128'>, scale: Local<'v128'>): (z: V128) => V128 {
  const [zero, last] = [hoistedConstant(f, 0), hoistedConstant(f, bitsOf(BINS - 1))];
  // In this order of operands NaN becomes 0.
  return (z) => f32.pmin(last.get, f32.pmax(zero.get, f32.mul(f32.sub(top.get, z), scale.get)));
}

export function binsKernel(module: Module, chunkLines: number): Func {
  const { f, word, thread, splat, run } = pass(module, 'draw_bins', binsRecord, chunkLines);
  const [p, w, at] = [f.local('i32'), f.local('i32'), f.local('i32')];
  const [top, scale, upper, lower] = [splat('top'), splat('scale'), splat('upper'), splat('lower')];
  const most = splat('most');
  const bins = f.local('v128');
  const bin = binOf(f, top, scale);
  const [weights, places] = [line(f), line(f)];
  const scratch = scratchOf(f);
  const lanes = Array.from({ length: LINE }, (_, lane) => lane * 4);
  return f.emit(
    // From memory, so that V8 pairs what is computed with it.
    storeI32(scratch.get, add(word('out'), multiply(thread.get, constant(BIN_BYTES)))),
    bins.set(v.load32splat(scratch.get)),
    run(
      [
        [p, 'x', LINE_BYTES],
        [w, 'weights', LINE_BYTES],
      ],
      {
        each: [
          ...places.map((z, c) => z.set(v.load(p.get, c * 16))),
          ...weights.map((weight, c) => weight.set(i32.minS(v.load(w.get, c * 16), most.get))),
          ...weights.map((weight, c) =>
            weight.set(v.and(weight.get, v.and(f32.le(places[c]!.get, upper.get), f32.ge(places[c]!.get, lower.get)))),
          ),
          ...places.map((z) => z.set(i32.add(bins.get, i32.shl(i32.truncSat(bin(z.get)), 3)))),
          ...storeVectors(scratch, places),
          ...storeVectors(scratch, weights, 1),
          // Where the most probable token is far above the others, few lines have weights at all.
          when(v.anyTrue(weights.map((_, c) => v.load(scratch.get, LINE_BYTES + c * 16)).reduce(v.or)), [
            ...lanes.flatMap((lane) => [
              at.set(loadI32(scratch.get, lane)),
              storeI64(at.get, i64Add(loadI64(at.get), load32u(scratch.get, LINE_BYTES + lane))),
            ]),
          ]),
        ],
      },
    ),
  );
}

export function edgeKernel(module: Module, chunkLines: number): Func {
  const { f, word, thread, chunk, splat, run } = pass(module, 'draw_edge', edgeRecord, chunkLines);
  const [p, w, to, own] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
  const [count, found, first] = [f.local('i32'), f.local('i32'), f.local('i32')];
  const [top, scale, upper, lower] = [splat('top'), splat('scale'), splat('upper'), splat('lower')];
  const [wanted, least] = [splat('bin'), splat('least')];
  const [none, all] = [
    hoistedConstant(f, bitsOf(Number.NEGATIVE_INFINITY)),
    hoistedConstant(f, bitsOf(Number.POSITIVE_INFINITY)),
  ];
  const [zero, one] = [hoistedConstant(f, 0), hoistedConstant(f, bitsOf(1))];
  const bin = binOf(f, top, scale);
  const [values, weights, bins] = [line(f), line(f), line(f)];
  const hits = f.array('v128', 2);
  const scratch = scratchOf(f);
  const sums = adder(f, scratch);
  const [largest, smallest] = [f.local('v128'), f.local('v128')];
  const [next, z, inside] = [f.local('v128'), f.local('v128'), f.local('v128')];
  const isWanted = (x: V128): V128 => v.and(f32.ge(x, wanted.get), f32.lt(x, next.get));
  return f.emit(
    own.set(add(word('out'), multiply(thread.get, constant(EDGE_BYTES)))),
    count.set(constant(0)),
    next.set(f32.add(wanted.get, one.get)),
    largest.set(none.get),
    smallest.set(all.get),
    run(
      [
        [p, 'x', LINE_BYTES],
        [w, 'weights', LINE_BYTES],
      ],
      {
        before: [...sums.start, first.set(multiply(chunk.get, constant(chunkLines * LINE)))],
        each: [
          ...values.map((z, c) => z.set(v.load(p.get, c * 16))),
          ...bins.map((x, c) => x.set(bin(values[c]!.get))),
          ...weights.map((weight, c) => weight.set(v.load(w.get, c * 16))),
          ...weights.map((weight) => weight.set(v.andNot(weight.get, i32.gtS(least.get, weight.get)))),
          ...weights.map((weight, c) =>
            weight.set(v.and(weight.get, v.or(f32.lt(bins[c]!.get, wanted.get), f32.gt(values[c]!.get, upper.get)))),
          ),
          ...sums.add(weights),
          ...bins.map((x) => x.set(isWanted(x.get))),
          ...hits.map((hit, c) => hit.set(v.or(bins[c]!.get, bins[c + 2]!.get))),
          ...storeVectors(scratch, hits),
          when(v.anyTrue(v.or(v.load(scratch.get), v.load(scratch.get, 16))), [
            found.set(constant(0)),
            ...values.flatMap((_, c) => [
              z.set(v.load(p.get, c * 16)),
              inside.set(v.and(f32.le(z.get, upper.get), f32.ge(z.get, lower.get))),
              inside.set(v.and(inside.get, isWanted(bin(z.get)))),
              inside.set(v.and(inside.get, i32.gtS(v.load(w.get, c * 16), zero.get))),
              largest.set(f32.pmax(largest.get, v.bitselect(z.get, none.get, inside.get))),
              smallest.set(f32.pmin(smallest.get, v.bitselect(z.get, all.get, inside.get))),
              found.set(or(found.get, shiftLeft(i32.bitmask(inside.get), constant(4 * c)))),
            ]),
            when(found.get, [
              doWhile(
                found.get,
                when(lessUnsigned(count.get, constant(EDGE_IDS)), [
                  storeI32(
                    add(own.get, shiftLeft(count.get, constant(2))),
                    add(first.get, trailingZeros(found.get)),
                    16,
                  ),
                ]),
                count.set(add(count.get, constant(1))),
                found.set(and(found.get, subtract(found.get, constant(1)))),
              ),
            ]),
          ]),
          first.set(add(first.get, constant(LINE))),
        ],
        after: [to.set(add(word('above'), multiply(chunk.get, constant(CHUNK_SUM_BYTES)))), ...sums.store(to.get)],
      },
    ),
    storeI32(own.get, count.get),
    ...storeExtreme(scratch, own.get, [largest], f32Max, 4),
    ...storeExtreme(scratch, own.get, [smallest], f32Min, 8),
  );
}
