/**
 * Key/value pages: PAGE positions of one sequence in one cache. A page, per key/value head, in lines of 16 values:
 *
 *   K  [PAGE / 16][headDim] lines of 16 positions       p 0..15    d = 0   k[p0][0]  k[p1][0] ... k[p15][0]
 *                                                                  d = 1   k[p0][1]  k[p1][1] ...
 *   V  [headDim / 16, rounded up][PAGE] lines of 16     d 0..15    p = 0   v[0][0]   v[0][1]  ... v[0][15]
 *      dimensions, the last with padding                           p = 1   v[1][0]   v[1][1]  ...
 *
 * With this layout neither q . K nor p . V sums over lanes, and both read one sequential stream. Only appended positions are
 * initialized.
 *
 * A line has 64 bytes in f32, 32 in f16, and in q8_0 (src/quant/kv-cache.ts) 16, in the order of `codeOrder`. There the
 * scales of a block of 32 dimensions of 16 positions are a line of f32 in front: K has headDim / 32 of them in front of
 * each 16 positions, V, whose dimensions are in lines, has [headDim / 32][PAGE] in front of all its lines.
 */

import { KV_BLOCK, type KvStorage } from '../quant/kv-cache.ts';
import {
  add,
  constant,
  type Func,
  f32,
  hoistedConstant,
  type I32,
  i32,
  loadI32,
  multiply,
  shiftLeft,
  type V128,
  v,
} from '../wasm/assembler.ts';
import { padded } from './layout.ts';
import { LINE } from './loops.ts';
import { widener } from './matmul-float.ts';

/** Positions per page; equal to PAGE of src/backend/backend.ts, which kernels cannot import. */
export const PAGE = 64;

/** Properties of a cache that determine its pages. */
export interface KvHead {
  readonly headDim: number;
  readonly storage: KvStorage;
}

/** Bytes of a line. */
export const lineBytes: Readonly<Record<KvStorage, number>> = { f32: 4 * LINE, f16: 2 * LINE, q8_0: LINE };
/** Bytes of the scales in front of K's lines of 16 positions; the same for V. */
export const scaleBytes = ({ headDim, storage }: KvHead): number =>
  storage === 'q8_0' ? (headDim / KV_BLOCK) * LINE * 4 : 0;
/** Bytes of 16 positions of K. */
export const keyGroupBytes = (head: KvHead): number => scaleBytes(head) + head.headDim * lineBytes[head.storage];
/** Bytes of K of one head's part of a page; V follows. */
export const keyBytes = (head: KvHead): number => (PAGE / LINE) * keyGroupBytes(head);
/** Bytes of V's scales, in front of its lines. */
export const valueScaleBytes = (head: KvHead): number => (PAGE / LINE) * scaleBytes(head);
/** Bytes of one key/value head's part of a page. */
export const headBytes = (head: KvHead): number =>
  keyBytes(head) + valueScaleBytes(head) + PAGE * (padded(head.headDim) / LINE) * lineBytes[head.storage];
/** Bytes of one page of one cache. */
export const pageBytes = ({ kvHeads, ...head }: KvHead & { readonly kvHeads: number }): number =>
  kvHeads * headBytes(head);

/**
 * Byte of each value of a q8_0 line: even bytes of the first half, of the second half, then the odd ones. A multiply-add of
 * pairs by (1, 0) or (0, 1) extracts four values per vector.
 */
export const codeOrder: readonly number[] = Array.from({ length: LINE }, (_, n) => {
  const [vector, lane] = [n >> 2, n & 3];
  return (vector & 1) * 8 + lane * 2 + (vector >> 1);
});

/** Loads vector c (values 4 c .. 4 c + 3) of line u after an address as f32; of q8_0 the integers, without their scale. */
export function lineLoad(f: Func, storage: KvStorage): (address: I32, u: number, c: number) => V128 {
  if (storage !== 'q8_0') {
    const load = widener(f, storage);
    const bytes = lineBytes[storage];
    return (address, u, c) => load(address, u * bytes + (c * bytes) / 4);
  }
  const picks = [0x00000001, 0x00010000].map((pair) => hoistedConstant(f, pair));
  return (address, u, c) => f32.fromI32(i32.dotI16(v.load8x8s(address, u * LINE + (c & 1) * 8), picks[c >> 1]!.get));
}

/** Address of the page that holds `position` of `sequence`. */
export function pageAddress(word: (name: 'tables' | 'pageBase' | 'pageStride') => I32, sequence: I32, page: I32): I32 {
  const table = loadI32(add(word('tables'), shiftLeft(sequence, constant(2))));
  return add(word('pageBase'), multiply(loadI32(add(table, shiftLeft(page, constant(2)))), word('pageStride')));
}
