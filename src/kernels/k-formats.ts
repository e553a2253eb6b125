/**
 * Access to super-blocks of q4_k, q5_k and q6_k in the layout of layout.ts: codes and scales of the eight blocks of 32
 * columns, for four rows at a time.
 */
import {
  type Func,
  f32,
  hoistedConstant,
  type I32,
  i16,
  i32,
  type Statement,
  type V128,
  v,
} from '../wasm/assembler.ts';
import { widenedLoad } from './convert.ts';
import { BLOCK, LANES, pairOf, placesOf, stepBytes } from './layout.ts';

export type KStorage = 'q4_k' | 'q5_k' | 'q6_k';

/** Position of a read: the super-block of a group at address `w`. Vector c has the rows from lane + 4 c on. */
export interface KPlace {
  readonly w: I32;
  readonly lane: number;
  readonly columns: number;
}

/** One block of 32 columns. Expressions may use locals that `scales` sets. */
export interface KBlock {
  readonly scales: readonly Statement[];
  /** Number of words of codes whose products fit int16 when summed in pairs. */
  readonly depth: 2 | 4 | 8;
  /** Codes of the columns 4 n .. 4 n + 3, one byte each. */
  codes(n: number, c: number): V128;
  /** f32 factor of the block's sum. */
  scale(c: number): V128;
  /** f32 minima, subtracted times the sum of the activations (q4_k, q5_k) ... */
  minimum?(c: number): V128;
  /** ... or integer scales of both halves of 16 columns, and what stands for the offset of the codes (q6_k). */
  readonly halves?: {
    /** Two equal i16 per lane. */
    scale(half: number, c: number): V128;
    /** i16 pairs that the two sums of the activations are multiplied by: the start of the integer sum. */
    start(c: number): V128;
  };
}

export interface KFormat {
  readonly name: string;
  /** Bytes of one step of a group, and the blocks of 32 columns it holds. */
  readonly stepBytes: number;
  readonly blocks: number;
  /** Number of neighbouring blocks that share words of codes. Their sums are computed together, to keep words only briefly. */
  readonly together: 1 | 2 | 4;
  /** Called once per function, for constants and locals. `begin` comes first in every step. */
  at(f: Func, place: KPlace): { readonly begin: readonly Statement[]; block(n: number): KBlock };
}

const BLOCKS = 8;
/** Bytes of one word per row. */
const LINE = 4 * LANES;
/** f16 per line. */
const HALF = 2;

export function kFormat(storage: KStorage): KFormat {
  return {
    name: storage,
    stepBytes: stepBytes(storage),
    blocks: BLOCKS,
    together: storage === 'q6_k' ? 4 : 2,
    at: storage === 'q6_k' ? sixBits : (f, place) => withMinima(f, place, storage === 'q5_k'),
  };
}

/** See src/quant/q4_k.ts for the bytes of a super-block. */
function withMinima(f: Func, { w, lane, columns }: KPlace, five: boolean): ReturnType<KFormat['at']> {
  const placeOf = placesOf(five ? 'q5_k' : 'q4_k');
  const load = (at: number, c: number): V128 => v.load(w, placeOf(at) + lane * 4 + c * 16);
  const widen = widenedLoad(f, 'f16');
  const [d, dmin] = [f.array('v128', columns), f.array('v128', columns)];
  const [scale, minimum] = [f.array('v128', columns), f.array('v128', columns)];
  const [nibble, fifth] = [0x0f0f0f0f, 0x10101010].map((c) => hoistedConstant(f, c).get) as [V128, V128];
  const [six, upper, low] = [0x3f3f3f3f, 0x30303030, 0xff].map((c) => hoistedConstant(f, c).get) as [V128, V128, V128];
  /** The eight integers of one kind (k-scales.ts), one byte each; kind 0: s, 1: m. */
  const integers = [0, 1].map(() => [f.array('v128', columns), f.array('v128', columns)] as const);
  const unpackIntegers = (kind: number, c: number): Statement[] => {
    const [firstFour, lastFour] = integers[kind]!;
    const word = load(4 + 4 * kind, c);
    const lower = v.and(kind ? i16.shrU(load(12, c), 4) : load(12, c), nibble);
    return [firstFour[c]!.set(v.and(word, six)), lastFour[c]!.set(v.or(v.and(i16.shrU(word, 2), upper), lower))];
  };
  const integer = (n: number, kind: number, c: number): V128 => {
    const bytes = integers[kind]![n >> 2]![c]!.get;
    if (n % 4 === 3) return i32.shrU(bytes, 24);
    return v.and(n % 4 ? i32.shrU(bytes, 8 * (n % 4)) : bytes, low);
  };
  const codesAt = five ? 48 : 16;
  return {
    begin: [
      ...d.map((l, c) => l.set(widen(w, placeOf(0) / HALF + lane + 4 * c))),
      ...dmin.map((l, c) => l.set(widen(w, placeOf(2) / HALF + lane + 4 * c))),
      ...[0, 1].flatMap((kind) => d.flatMap((_, c) => unpackIntegers(kind, c))),
    ],
    block: (n) => ({
      scales: [
        ...scale.map((l, c) => l.set(f32.mul(f32.fromI32(integer(n, 0, c)), d[c]!.get))),
        ...minimum.map((l, c) => l.set(f32.mul(f32.fromI32(integer(n, 1, c)), dmin[c]!.get))),
      ],
      depth: five ? 4 : 8,
      codes(word, c) {
        const bytes = load(codesAt + 32 * (n >> 1) + 4 * word, c);
        const four = v.and(n & 1 ? i16.shrU(bytes, 4) : bytes, nibble);
        return five ? v.or(four, v.and(moveBit(load(16 + 4 * word, c), n, 4), fifth)) : four;
      },
      scale: (c) => scale[c]!.get,
      minimum: (c) => minimum[c]!.get,
    }),
  };
}

/** See src/quant/q6_k.ts for the bytes of a super-block. */
function sixBits(f: Func, { w, lane, columns }: KPlace): ReturnType<KFormat['at']> {
  const placeOf = placesOf('q6_k');
  const load = (at: number, c: number): V128 => v.load(w, placeOf(at) + lane * 4 + c * 16);
  const widen = widenedLoad(f, 'f16');
  const d = f.array('v128', columns);
  /** Of both halves of the blocks that are summed together. */
  const scalesOf = Array.from({ length: 4 }, () => [f.array('v128', columns), f.array('v128', columns)] as const);
  const [nibble, upper] = [0x0f0f0f0f, 0x30303030].map((c) => hoistedConstant(f, c).get) as [V128, V128];
  const [lower, offset] = [0x0000ffff, pairOf(-32)].map((c) => hoistedConstant(f, c).get) as [V128, V128];
  /** The two int8 scales of block n in both halves of each lane. */
  const twice = (n: number, c: number): V128 => {
    const word = (): V128 => load(192 + 4 * (n >> 1), c);
    return n & 1
      ? v.or(i32.shrU(word(), 16), v.andNot(word(), lower))
      : v.or(i32.shl(word(), 16), v.and(word(), lower));
  };
  return {
    begin: d.map((l, c) => l.set(widen(w, placeOf(208) / HALF + lane + 4 * c))),
    block: (n) => sixBitBlock(n, scalesOf[n % 4]!),
  };

  function sixBitBlock(n: number, [first, second]: (typeof scalesOf)[number]): KBlock {
    return {
      scales: [
        ...second.map((l, c) => l.set(twice(n, c))),
        ...first.map((l, c) => l.set(i16.shrS(i16.shl(second[c]!.get, 8), 8))),
        ...second.map((l) => l.set(i16.shrS(l.get, 8))),
      ],
      depth: 2,
      codes(word, c) {
        const bytes = load(64 * (n >> 2) + 32 * (n & 1) + 4 * word, c);
        const low = v.and(n & 2 ? i16.shrU(bytes, 4) : bytes, nibble);
        return v.or(low, v.and(moveBit(load(128 + 32 * (n >> 2) + 4 * word, c), 2 * (n & 3), 4), upper));
      },
      scale: (c) => d[c]!.get,
      halves: {
        scale: (half, c) => (half ? second : first)[c]!.get,
        start: (c) => i16.mul(v.bitselect(first[c]!.get, second[c]!.get, lower), offset),
      },
    };
  }
}

/** Moves bit `from` of each byte to bit `to`; mask the other bits. V8 pairs 16-bit shifts, but not 8-bit shifts. */
const moveBit = (bytes: V128, from: number, to: number): V128 =>
  from === to ? bytes : from < to ? i16.shl(bytes, to - from) : i16.shrU(bytes, from - to);

/**
 * A block as `unpack` of matmul-k.ts leaves it for tiles of rows: lines of LANES x 4 bytes, scale | minimum | 8 of codes,
 * or scale | both integer scales | start | 8 of codes.
 */
export function unpackedFormat(storage: KStorage): KFormat {
  const head = unpackedHead(storage);
  return {
    name: `${storage}_unpacked`,
    stepBytes: unpackedBytes(storage),
    blocks: 1,
    together: 1,
    at: (_f, { w, lane }) => {
      const load = (line: number, c: number): V128 => v.load(w, line * LINE + lane * 4 + c * 16);
      const block: KBlock = {
        scales: [],
        // A tile has no registers for extra int16 sums: either all words of a block fit int16, or none are summed there.
        depth: storage === 'q4_k' ? 8 : 2,
        codes: (word, c) => load(head + word, c),
        scale: (c) => load(0, c),
        ...(storage === 'q6_k'
          ? { halves: { scale: (half, c) => load(1 + half, c), start: (c) => load(3, c) } }
          : { minimum: (c) => load(1, c) }),
      };
      return { begin: [], block: () => block };
    },
  };
}

/** Lines before the codes of an unpacked block. */
const unpackedHead = (storage: KStorage): number => (storage === 'q6_k' ? 4 : 2);

/** Bytes of an unpacked block of a group. */
export const unpackedBytes = (storage: KStorage): number => (unpackedHead(storage) + BLOCK / 4) * LINE;

/** The lines of an unpacked block, in order. */
export function unpackedLines(block: KBlock): readonly ((c: number) => V128)[] {
  const codes = Array.from({ length: BLOCK / 4 }, (_, word) => (c: number) => block.codes(word, c));
  const { scale, minimum, halves } = block;
  const scales = halves
    ? [(c: number) => halves.scale(0, c), (c: number) => halves.scale(1, c), halves.start]
    : [minimum!];
  return [scale, ...scales, ...codes];
}
