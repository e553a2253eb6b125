/** Dequantizes one row of a super-block of q4_k, q5_k or q6_k value by value, for embeddings. */
import {
  add,
  and,
  constant,
  type F32,
  type Func,
  f32FromI32,
  f32Multiply,
  f32Subtract,
  type I32,
  load8s,
  load8u,
  multiply,
  or,
  type Statement,
  shiftLeft,
  shiftRight,
  subtract,
} from '../wasm/assembler.ts';
import type { KStorage } from './k-formats.ts';
import { placesOf } from './layout.ts';

const SUPER = 256;

export interface KRow {
  /** Address of the super-block of the group. */
  readonly group: I32;
  readonly lane: I32;
  /** This row's f16 in a line of f16 at an offset in the super-block. */
  half(place: number): F32;
  /** Receives value i of the row. */
  store(value: F32, i: number): Statement;
}

/** Passes the 256 values to `row.store`, as src/quant defines them. */
export const kRow = (f: Func, storage: KStorage, row: KRow): Statement[] =>
  storage === 'q6_k' ? sixBits(f, row) : withMinima(f, row, storage === 'q5_k');

function withMinima(f: Func, { group, lane, half, store }: KRow, five: boolean): Statement[] {
  const [words, d, dmin] = [f.local('i32'), f.local('f32'), f.local('f32')];
  const [scale, minimum] = [f.local('f32'), f.local('f32')];
  const placeOf = placesOf(five ? 'q5_k' : 'q4_k');
  /** Byte `at` of the row's super-block as in the file. */
  const byte = (at: number): I32 => load8u(words.get, placeOf(at & ~3) + (at & 3));
  const integer = (n: number, kind: 0 | 1): I32 =>
    n < 4
      ? and(byte(4 + n + 4 * kind), constant(63))
      : or(bits(byte(8 + n), 4 * kind, 15), shiftLeft(bits(byte(n + 4 * kind), 6, 3), constant(4)));
  const value = (i: number): I32 => {
    const [n, j] = [i >> 5, i & 31];
    const low = bits(byte((five ? 48 : 16) + 32 * (n >> 1) + j), 4 * (n & 1), 15);
    return five ? or(low, shiftLeft(bits(byte(16 + j), n, 1), constant(4))) : low;
  };
  return [
    words.set(add(group, multiply(lane, constant(4)))),
    d.set(half(placeOf(0))),
    dmin.set(half(placeOf(2))),
    ...Array.from({ length: SUPER / 32 }, (_, n) => [
      scale.set(f32Multiply(f32FromI32(integer(n, 0)), d.get)),
      minimum.set(f32Multiply(f32FromI32(integer(n, 1)), dmin.get)),
      ...Array.from({ length: 32 }, (_, j) =>
        store(f32Subtract(f32Multiply(f32FromI32(value(32 * n + j)), scale.get), minimum.get), 32 * n + j),
      ),
    ]).flat(),
  ];
}

function sixBits(f: Func, { group, lane, half, store }: KRow): Statement[] {
  const [words, d, scale] = [f.local('i32'), f.local('f32'), f.local('f32')];
  const placeOf = placesOf('q6_k');
  const place = (at: number): number => placeOf(at & ~3) + (at & 3);
  const value = (i: number): I32 => {
    const [h, quarter, j] = [i >> 7, (i >> 5) & 3, i & 31];
    const low = bits(load8u(words.get, place(64 * h + 32 * (quarter & 1) + j)), 4 * (quarter >> 1), 15);
    const high = bits(load8u(words.get, place(128 + 32 * h + j)), 2 * quarter, 3);
    return subtract(or(low, shiftLeft(high, constant(4))), constant(32));
  };
  return [
    words.set(add(group, multiply(lane, constant(4)))),
    d.set(half(placeOf(208))),
    ...Array.from({ length: SUPER / 16 }, (_, n) => [
      scale.set(f32Multiply(f32FromI32(load8s(words.get, place(192 + n))), d.get)),
      ...Array.from({ length: 16 }, (_, j) => store(f32Multiply(f32FromI32(value(16 * n + j)), scale.get), 16 * n + j)),
    ]).flat(),
  ];
}

const bits = (byte: I32, shift: number, mask: number): I32 =>
  and(shift === 0 ? byte : shiftRight(byte, constant(shift)), constant(mask));
