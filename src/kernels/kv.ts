/**
 * Key/value pages: PAGE positions of one sequence in one cache. A page, per key/value head, in lines of 16 values:
 *
 *   K  [PAGE / 16][headDim] lines of 16 positions       p 0..15    d = 0   k[p0][0]  k[p1][0] ... k[p15][0]
 *                                                                  d = 1   k[p0][1]  k[p1][1] ...
 *   V  [headDim / 16, rounded up][PAGE] lines of 16     d 0..15    p = 0   v[0][0]   v[0][1]  ... v[0][15]
 *      dimensions, the last with padding                           p = 1   v[1][0]   v[1][1]  ...
 *
 * so that neither q . K nor p . V sums over lanes, and a tile of either reads one sequential stream. Nothing but the
 * positions that were appended is ever initialised.
 */
import {
  add,
  and,
  constant,
  type Func,
  type I32,
  loadF32,
  loadI32,
  type Module,
  multiply,
  repeat,
  shiftLeft,
  shiftRight,
  storeF32,
  v,
} from '../wasm/assembler.ts';
import { padded } from './layout.ts';
import { computeLine, eachRow, LINE, line, rowWise, span, strideOf } from './loops.ts';
import { recordLayout } from './record.ts';

/** Positions per page; backend.ts has the same number for everybody else. */
export const PAGE = 64;

const LINE_BYTES = LINE * 4;

/** Bytes of K of one head's part of a page; V follows. */
export const keyBytes = (headDim: number): number => PAGE * headDim * 4;
/** Bytes of one key/value head's part of a page. */
export const headBytes = (headDim: number): number => keyBytes(headDim) + PAGE * padded(headDim) * 4;
/** Bytes of one page of one cache. */
export const pageBytes = (kvHeads: number, headDim: number): number => kvHeads * headBytes(headDim);

/**
 * k, v: rows of kvHeads * headDim; rows: address of the row count; sequences, positions: i32 for each row; tables: for each
 * sequence the address of its page table, i32 page numbers; pageBase: address of page 0 of this cache; pageStride: bytes
 * from a page to the next.
 */
export const appendKvRecord = recordLayout(
  'k',
  'v',
  'rows',
  'sequences',
  'positions',
  'tables',
  'pageBase',
  'pageStride',
  'kvHeads',
  'headDim',
);

/** Address of the page that holds `position` of `sequence`. */
export function pageAddress(word: (name: 'tables' | 'pageBase' | 'pageStride') => I32, sequence: I32, page: I32): I32 {
  const table = loadI32(add(word('tables'), shiftLeft(sequence, constant(2))));
  return add(word('pageBase'), multiply(loadI32(add(table, shiftLeft(page, constant(2)))), word('pageStride')));
}

/** Exports the step kernel `append_kv`: k and v of each row into its sequence's page at its position. */
export function appendKvKernel(module: Module): Func {
  const kernel = rowWise(module, 'append_kv', appendKvRecord);
  const { f, first, word } = kernel;
  const [headDim, kvHeads] = [kernel.argument('headDim'), kernel.argument('kvHeads')];
  const [stride, head, position, d] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
  const [k, value, to, keys, place] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
  const ofRow = (name: 'sequences' | 'positions'): I32 => loadI32(add(word(name), shiftLeft(first.get, constant(2))));
  const values = line(f);
  return f.emit(
    stride.set(strideOf(multiply(kvHeads.get, headDim.get))),
    eachRow(
      kernel,
      position.set(ofRow('positions')),
      place.set(and(position.get, constant(PAGE - 1))),
      k.set(add(word('k'), multiply(first.get, stride.get))),
      value.set(add(word('v'), multiply(first.get, stride.get))),
      keys.set(pageAddress(word, ofRow('sequences'), shiftRight(position.get, constant(Math.log2(PAGE))))),
      head.set(constant(0)),
      repeat(
        head,
        1,
        kvHeads.get,
        to.set(
          add(
            add(keys.get, multiply(shiftRight(place.get, constant(4)), multiply(headDim.get, constant(LINE_BYTES)))),
            shiftLeft(and(place.get, constant(LINE - 1)), constant(2)),
          ),
        ),
        d.set(constant(0)),
        repeat(
          d,
          1,
          headDim.get,
          storeF32(to.get, loadF32(k.get)),
          k.set(add(k.get, constant(4))),
          to.set(add(to.get, constant(LINE_BYTES))),
        ),
        keys.set(add(keys.get, multiply(headDim.get, constant(PAGE * 4)))),
        to.set(add(keys.get, multiply(place.get, constant(LINE_BYTES)))),
        ...span(
          f,
          headDim.get,
          [value],
          [
            ...computeLine(to, values, (c) => v.load(value.get, c * 16)),
            to.set(add(to.get, constant(PAGE * LINE_BYTES))),
          ],
          [storeF32(to.get, loadF32(value.get)), to.set(add(to.get, constant(4)))],
        ),
        keys.set(add(keys.get, multiply(strideOf(headDim.get), constant(PAGE)))),
      ),
    ),
  );
}
