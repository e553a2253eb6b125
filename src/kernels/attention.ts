/**
 * out[t] = softmax(q[t] . K scale) V for each head: over the row's own sequence, causal or bidirectional, within a window.
 * Some models adjust the scores before the softmax (attention-scores.ts): kernels of their own.
 *
 * The pages (kv.ts) are visited from the first to the last of which the row sees anything, with an online softmax
 * (attention-tile.ts). Work is cut into tiles of query vectors that share a sequence and a key/value head: number i of
 * a run of rows is head i mod group of row i / group. Threads claim tile after tile; what is computed for one query
 * vector does not depend on the others of its tile, so the bits do not depend on tiles, threads, chunks or the batch.
 */
import {
  add,
  call,
  constant,
  divideUnsigned,
  doWhile,
  equal,
  type Func,
  f32,
  f32Div,
  f32FromBits,
  fillBytes,
  type I32,
  type Local,
  lessSigned,
  lessUnsigned,
  loadF32,
  loadI32,
  type Module,
  multiply,
  remainderUnsigned,
  repeat,
  type Statement,
  select,
  shiftLeft,
  shiftRight,
  smaller,
  storeF32,
  storeI32,
  subtract,
  v,
  when,
} from '../wasm/assembler.ts';
import { adjustFunc, slopeFunc } from './attention-scores.ts';
import {
  hideFunc,
  LOWEST,
  scoresFunc,
  scratchOf,
  softmaxFunc,
  TILE,
  type TileShape,
  weighFunc,
} from './attention-tile.ts';
import { claim, clearClaims } from './claims.ts';
import { headBytes, keyBytes, PAGE, pageAddress } from './kv.ts';
import { padded } from './layout.ts';
import { computeLine, copyValues, line, span, strideOf } from './loops.ts';
import { recordLayout } from './record.ts';

/**
 * q, out: rows of heads * headDim; rows: address of the row count; sequences, positions: i32 for each row, rows of one
 * sequence side by side with rising positions; tables, pageBase, pageStride: as in kv.ts; window: largest number of
 * positions a row sees, itself included, 0 for all (bidirectional: an odd number, as many to each side); scale: bits of
 * an f32.
 */
export const attentionRecord = recordLayout(
  'q',
  'out',
  'rows',
  'sequences',
  'positions',
  'tables',
  'pageBase',
  'pageStride',
  'heads',
  'kvHeads',
  'window',
  'scale',
);

type Word = (typeof attentionRecord.names)[number];

interface Parts {
  readonly scores: Func;
  readonly adjust: Func | undefined;
  readonly slope: Func | undefined;
  readonly softmax: Func;
  readonly weigh: Func;
}

/**
 * tile(record, row, vector, kvHead): `queries` vectors from number `vector` on of the run that starts at `row`; where rows see
 * what follows them, also the end of that run.
 */
function tileFunc(
  module: Module,
  queries: number,
  shape: TileShape,
  { scores, adjust, slope, softmax, weigh }: Parts,
): Func {
  const { headDim, bidirectional } = shape;
  const f = module.func(`tile_${headDim}_${queries}`, Array(bidirectional ? 5 : 4).fill('i32'));
  const [record, row, vector, kvHead] = [f.param('i32', 0), f.param('i32', 1), f.param('i32', 2), f.param('i32', 3)];
  const runEnd = bidirectional ? f.param('i32', 4) : undefined;
  const [group, stride, offset, position] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
  const [from, to, sequence, last] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
  const [page, pageEnd, keys, visible] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
  const [scale, total] = [f.local('f32'), f.local('f32')];
  const totals = f.local('v128');
  const values = line(f);
  const word = (name: Word): I32 => attentionRecord.load(record, name);
  const at = scratchOf(shape);
  const scratch = (bytes: number): I32 => add(module.scratch, constant(bytes));
  const element = (array: I32, index: I32): I32 => loadI32(add(array, shiftLeft(index, constant(2))));

  const start = (t: number): Statement[] => {
    const number = add(vector.get, constant(t));
    const head = add(multiply(kvHead.get, group.get), remainderUnsigned(number, group.get));
    const itsRow = add(row.get, divideUnsigned(number, group.get));
    const side = shiftRight(word('window'), constant(1));
    const first = runEnd ? subtract(position.get, side) : add(subtract(position.get, word('window')), constant(1));
    return [
      offset.set(add(multiply(itsRow, stride.get), multiply(head, constant(headDim * 4)))),
      position.set(element(word('positions'), itsRow)),
      from.set(add(word('q'), offset.get)),
      to.set(scratch(at.query(t))),
      ...copyValues(f, constant(headDim), from, to),
      storeF32(module.scratch, f32.constant(LOWEST), at.largest(t)),
      storeF32(module.scratch, f32.constant(0), at.total(t)),
      storeI32(module.scratch, constant(0), at.first(t)),
      when(word('window'), [
        storeI32(module.scratch, select(lessSigned(first, constant(0)), constant(0), first), at.first(t)),
      ]),
      ...(runEnd
        ? [
            last.set(element(word('positions'), subtract(runEnd.get, constant(1)))),
            when(word('window'), [last.set(smaller(last.get, add(position.get, side)))]),
            storeI32(module.scratch, last.get, at.last(t)),
          ]
        : [storeI32(module.scratch, position.get, at.last(t))]),
      ...(slope ? [storeF32(module.scratch, call<'f32'>(slope, head), at.slope(t))] : []),
      storeI32(module.scratch, add(word('out'), offset.get), at.out(t)),
    ];
  };
  const finish = (t: number): Statement[] => [
    total.set(loadF32(module.scratch, at.total(t))),
    totals.set(f32.splat(total.get)),
    from.set(scratch(at.sum(t))),
    to.set(loadI32(module.scratch, at.out(t))),
    ...span(
      f,
      constant(headDim),
      [from, to],
      computeLine(to, values, (c) => f32.div(v.load(from.get, c * 16), totals.get)),
      [storeF32(to.get, f32Div(loadF32(from.get), total.get))],
    ),
  ];
  const each = (body: (t: number) => readonly Statement[]): Statement[] =>
    Array.from({ length: queries }, (_, t) => body(t)).flat();

  return f.emit(
    group.set(divideUnsigned(word('heads'), word('kvHeads'))),
    stride.set(strideOf(multiply(word('heads'), constant(headDim)))),
    scale.set(f32FromBits(word('scale'))),
    ...each(start),
    fillBytes(scratch(at.sum(0)), constant(0), constant(queries * padded(headDim) * 4)),
    sequence.set(element(word('sequences'), row.get)),
    // Later vectors have higher positions, and see more.
    ...(runEnd ? [] : [last.set(position.get)]),
    page.set(shiftRight(loadI32(module.scratch, at.first(0)), constant(Math.log2(PAGE)))),
    pageEnd.set(add(shiftRight(last.get, constant(Math.log2(PAGE))), constant(1))),
    repeat(
      page,
      1,
      pageEnd.get,
      keys.set(add(pageAddress(word, sequence.get, page.get), multiply(kvHead.get, constant(headBytes(shape))))),
      visible.set(smaller(constant(PAGE), subtract(add(last.get, constant(1)), multiply(page.get, constant(PAGE))))),
      call(scores, keys.get, visible.get, scale.get),
      ...(adjust ? [call(adjust, multiply(page.get, constant(PAGE)), scale.get)] : []),
      call(softmax, multiply(page.get, constant(PAGE))),
      call(weigh, add(keys.get, constant(keyBytes(shape))), visible.get),
    ),
    ...each(finish),
  );
}

/** The name that `attentionKernel` exports. */
export const attentionName = ({ headDim, storage, cap, alibi, bidirectional }: TileShape): string =>
  `attention_${headDim}_${storage}${cap === undefined ? '' : `_cap_${cap}`}${alibi ? '_alibi' : ''}${bidirectional ? '_bidirectional' : ''}`;

/** Exports the step kernel `attentionName(shape)` and its inner functions. */
export function attentionKernel(module: Module, shape: TileShape): Func {
  const hide = hideFunc(module, shape);
  const slope = shape.alibi && slopeFunc(module, shape.alibi);
  const tiles = Array.from({ length: TILE }, (_, t) => {
    const parts = {
      scores: scoresFunc(module, t + 1, shape),
      adjust: adjustFunc(module, t + 1, shape),
      slope,
      softmax: softmaxFunc(module, t + 1, shape, hide),
      weigh: weighFunc(module, t + 1, shape),
    };
    return tileFunc(module, t + 1, shape, parts);
  });
  const f = module.func(attentionName(shape), ['i32', 'i32', 'i32']);
  const [record, , threads] = [f.param('i32', 0), f.param('i32', 1), f.param('i32', 2)];
  const [rows, sequences, kvHeads, group] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
  const [row, runEnd, vectors, kvHead] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
  const [vector, size, count] = [f.local('i32'), f.local('i32'), f.local('i32')];
  const [tileNumber, claimed] = [f.local('i32'), f.local('i32')];
  const tileArguments = [record, row, vector, kvHead, ...(shape.bidirectional ? [runEnd] : [])].map(({ get }) => get);
  const word = (name: Word): I32 => attentionRecord.load(record, name);
  const sequenceOf = (index: Local<'i32'>): I32 => loadI32(add(sequences.get, shiftLeft(index.get, constant(2))));
  const tileCount = multiply(
    kvHeads.get,
    divideUnsigned(subtract(add(multiply(rows.get, group.get), size.get), constant(1)), size.get),
  );
  const halve = when(lessUnsigned(tileCount, threads.get), [size.set(shiftRight(size.get, constant(1)))]);
  return f.emit(
    rows.set(loadI32(word('rows'))),
    sequences.set(word('sequences')),
    kvHeads.set(word('kvHeads')),
    group.set(divideUnsigned(word('heads'), kvHeads.get)),
    // Smaller tiles if there would be fewer tiles than threads, for instance for a single row.
    size.set(constant(TILE)),
    ...Array.from({ length: Math.log2(TILE) }, () => halve),
    claimed.set(claim(record)),
    when(rows.get, [
      doWhile(
        lessUnsigned(row.get, rows.get),
        runEnd.set(row.get),
        doWhile(
          select(lessUnsigned(runEnd.get, rows.get), equal(sequenceOf(runEnd), sequenceOf(row)), constant(0)),
          runEnd.set(add(runEnd.get, constant(1))),
        ),
        vectors.set(multiply(subtract(runEnd.get, row.get), group.get)),
        kvHead.set(constant(0)),
        repeat(
          kvHead,
          1,
          kvHeads.get,
          vector.set(constant(0)),
          doWhile(
            lessUnsigned(vector.get, vectors.get),
            when(equal(tileNumber.get, claimed.get), [
              count.set(smaller(size.get, subtract(vectors.get, vector.get))),
              ...tiles.map((tile, t) => when(equal(count.get, constant(t + 1)), [call(tile, ...tileArguments)])),
              claimed.set(claim(record)),
            ]),
            tileNumber.set(add(tileNumber.get, constant(1))),
            vector.set(add(vector.get, size.get)),
          ),
        ),
        row.set(runEnd.get),
      ),
    ]),
    clearClaims(record, claimed, tileNumber, threads),
  );
}
