/**
 * The layout of weights in memory, shared by packing, products, embeddings and the backend.
 *
 * A matrix [rows, k] is cut into groups of LANES rows; row r of a group lives in vector lane r. Rows that fill up the
 * last group are zero. One group:
 *
 *   f32, f16, bf16   k lines, one per column:           | row 0 | row 1 | ... | row 15 |
 *
 *   q8_0, per block of 32 columns, 544 bytes:           | 16 f16 scales |
 *     32/g lines of 16 x g bytes, g = 2 or 4            | row 0: k .. k+g-1 | row 1: k .. k+g-1 | ...
 *
 *   q4_0, per block of 32 columns, 288 bytes:           | 16 f16 scales |
 *     4 lines of 16 x 4 bytes, line j, byte i           | low nibble k = 4j+i, high nibble k = 16+4j+i | ...
 *
 *   iq4_nl, per block of 32 columns, 288 bytes: as q4_0, indices of levels (src/quant/iq4_nl.ts) in place of codes
 *
 *   q4_k, q5_k, q6_k, per super-block of 256 columns, 2304, 2816 or 3360 bytes: what the file has per row (q4_k.ts and
 *     q6_k.ts of src/quant), cut into words of 4 bytes, or 2 for f16 scales, each beside the same word of the other rows,
 *     in the order in which a product first needs them: scales, then words of codes, each followed by the word that has
 *     upper bits for it, unless that came before (q6_k: two words of codes, then the one that they share)
 *
 * As many bytes as in the file, and a product reads one sequential stream.
 */
import { type Storage, storageBytes, storageLayout } from '../quant/storage.ts';

/** Rows per group, one per vector lane. */
export const LANES = 16;
/** Columns per block of q8_0, q4_0 and iq4_nl. */
export const BLOCK = 32;

/** Byte order of q8_0 for the dot product of a machine, see probe.ts. */
export interface Q8Layout {
  /** Neighbours along k that share a 32-bit lane once loaded: 2 (widened to int16) or 4 (bytes). */
  readonly neighbours: 2 | 4;
  /** 0x80 turns q into q + 128, for dot products that take unsigned bytes; 0 leaves it. */
  readonly flip: 0 | 0x80;
}

/** Groups that hold `rows` rows. */
export const groupsOf = (rows: number): number => Math.ceil(rows / LANES);

/** `count` values rounded up to whole groups: the length of row buffers and vectors. */
export const padded = (count: number): number => groupsOf(count) * LANES;

/** The kernels' steps along k: columns for float formats, blocks for block formats. */
export const stepsOf = (storage: Storage, k: number): number => k / storageLayout[storage].block;

/** Bytes of one step of a group: a line, or a block with its scales. */
export const stepBytes = (storage: Storage): number => LANES * storageLayout[storage].bytes;

/** Bytes of a group of LANES rows of k columns. */
export const groupBytes = (storage: Storage, k: number): number => LANES * storageBytes(storage, k);

/** Bytes of a matrix [rows, k] with its padding rows. */
export const matrixBytes = (storage: Storage, rows: number, k: number): number =>
  groupsOf(rows) * groupBytes(storage, k);

/**
 * Lays out `rows` rows of k columns, given as in a file: row-major, blocks as in GGUF (f16 scale, then the quants; byte
 * j of q4_0 and iq4_nl holds k = j in its low and k = j + 16 in its high nibble). The scalar definition of the layout.
 */
export function interleave(storage: Storage, source: Uint8Array, rows: number, k: number, q8: Q8Layout): Uint8Array {
  const { bytes } = storageLayout[storage];
  const steps = stepsOf(storage, k);
  const out = new Uint8Array(matrixBytes(storage, rows, k));
  const pieces = piecesOf(storage, q8);
  for (let row = 0; row < rows; row++) {
    const group = Math.floor(row / LANES) * steps;
    for (let step = 0; step < steps; step++) {
      const from = (row * steps + step) * bytes;
      let to = (group + step) * stepBytes(storage);
      for (const { at, length, flip } of pieces) {
        for (let i = 0; i < length; i++) out[to + (row % LANES) * length + i] = source[from + at + i]! ^ flip;
        to += LANES * length;
      }
    }
  }
  // Padding rows of flipped bytes are zero too, because their scale is 0.
  return out;
}

/** A piece of one row's block in a file, which is interleaved with the same piece of the other rows. */
export interface Piece {
  /** First byte in the block. */
  readonly at: number;
  readonly length: number;
  readonly flip: 0 | 0x80;
}

/** The pieces of one row's step, in the order of the layout. */
export function piecesOf(storage: Storage, { neighbours, flip }: Q8Layout): readonly Piece[] {
  switch (storage) {
    case 'q8_0':
      return [half(0), ...pieces(2, BLOCK, neighbours, flip)];
    case 'q4_0':
    case 'iq4_nl':
      return [half(0), ...pieces(2, BLOCK / 2, 4)];
    case 'q4_k':
      return [half(0), half(2), ...pieces(4, 12 + 128, 4)];
    case 'q5_k':
      return [
        half(0),
        half(2),
        ...pieces(4, 12, 4),
        ...inTurns(pieces(48, 32, 4), pieces(16, 32, 4)),
        ...pieces(80, 96, 4),
      ];
    case 'q6_k':
      return [
        half(208),
        ...pieces(192, 16, 4),
        ...[0, 1].flatMap((h) =>
          inTurns(pieces(64 * h, 32, 4), pieces(64 * h + 32, 32, 4), pieces(128 + 32 * h, 32, 4)),
        ),
      ];
    default:
      return [{ at: 0, length: storageLayout[storage].bytes, flip: 0 }];
  }
}

const half = (at: number): Piece => ({ at, length: 2, flip: 0 });
const pieces = (at: number, bytes: number, length: number, flip: Piece['flip'] = 0): Piece[] =>
  Array.from({ length: bytes / length }, (_, n) => ({ at: at + n * length, length, flip }));
const inTurns = (...lists: readonly (readonly Piece[])[]): Piece[] =>
  lists[0]!.flatMap((_, n) => lists.map((list) => list[n]!));

/** Offset in a step of a group of the piece that begins with byte `at` of a row's block; for storages without flips. */
export function placesOf(storage: Storage): (at: number) => number {
  const places = new Map<number, number>();
  let place = 0;
  for (const { at, length } of piecesOf(storage, { neighbours: 4, flip: 0 })) {
    places.set(at, place);
    place += LANES * length;
  }
  return (at) => {
    const found = places.get(at);
    if (found === undefined) throw new RangeError(`no piece of ${storage} begins with byte ${at}`);
    return found;
  };
}

/**
 * A row of quantized activations. Per block of 32:
 *
 *   f32 scale * 2^112 | i16 sum of values 0 .. 15 | i16 sum of values 16 .. 31 | 32 x int8 or int16
 *
 * 2^112 compensates for the f16 scales of the weights, which kernels widen by shifting only. Where weights carry an offset on top of
 * q, the integer sums start at -offset times the sums of the block; where blocks have minima, these are multiplied by them.
 */
export interface ActivationFormat {
  readonly values: 'int8' | 'int16';
}

/** The bits of two equal i16, to multiply the two sums of a block by. */
export const pairOf = (value: number): number => (value & 0xffff) | (value << 16);

/** Bytes of one block of quantized activations. */
export const activationBlockBytes = ({ values }: ActivationFormat): number => 8 + BLOCK * (values === 'int8' ? 1 : 2);

/** Bytes from row to row of quantized activations of k columns; a multiple of 64. */
export const activationStride = (format: ActivationFormat, k: number): number =>
  Math.ceil(((k / BLOCK) * activationBlockBytes(format)) / 64) * 64;
