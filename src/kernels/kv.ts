/**
 * Key/value pages: PAGE positions of one sequence in one cache. A page, per key/value head:
 *
 *   K  [headDim][PAGE]                      d = 0   k[p0][0]  k[p1][0] ... k[p63][0]        position in the lane direction
 *                                           d = 1   k[p0][1]  k[p1][1] ...
 *   V  [PAGE][headDim, padded to 16]        p = 0   v[0][0]   v[0][1]  ... v[0][headDim-1]  padding
 *
 * so that q . K makes PAGE scores, and p . V a row of values, without a sum over lanes. Nothing but the positions that
 * were appended is ever initialised.
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
} from '../wasm/assembler.ts';
import { padded } from './layout.ts';
import { copyValues, eachRow, rowWise, strideOf } from './loops.ts';
import { recordLayout } from './record.ts';

/** Positions per page; backend.ts has the same number for everybody else. */
export const PAGE = 64;

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
  const rowBytes = (): I32 => strideOf(headDim.get);
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
        to.set(add(keys.get, shiftLeft(place.get, constant(2)))),
        d.set(constant(0)),
        repeat(
          d,
          1,
          headDim.get,
          storeF32(to.get, loadF32(k.get)),
          k.set(add(k.get, constant(4))),
          to.set(add(to.get, constant(PAGE * 4))),
        ),
        keys.set(add(keys.get, multiply(headDim.get, constant(PAGE * 4)))),
        to.set(add(keys.get, multiply(place.get, rowBytes()))),
        ...copyValues(f, headDim.get, value, to),
        keys.set(add(keys.get, multiply(rowBytes(), constant(PAGE)))),
      ),
    ),
  );
}
