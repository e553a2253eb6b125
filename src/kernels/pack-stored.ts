/**
 * Packs the blocks of a file into the lane-interleaved layout: pieces of each row's block (layout.ts) are interleaved with
 * those of the other rows. Bits are unchanged, except those that the layout flips.
 */
import { type BlockStorage, storageLayout } from '../quant/storage.ts';
import {
  add,
  constant,
  divideUnsigned,
  equal,
  type Func,
  fillBytes,
  hoistedConstant,
  type I32,
  type Local,
  lessUnsigned,
  load16u,
  loadI32,
  type Module,
  multiply,
  repeat,
  type Statement,
  smaller,
  store16,
  storeI32,
  subtract,
  v,
  when,
  xor,
} from '../wasm/assembler.ts';
import { LANES, type Piece, piecesOf, type Q8Layout, stepBytes } from './layout.ts';
import { groupsOfThread, packRecord } from './pack-groups.ts';
import { transpose } from './transpose.ts';

export interface StoredVariant {
  readonly storage: BlockStorage;
  /** For q8_0. */
  readonly q8: Q8Layout;
}

/** The name that `packStoredKernel` exports. */
export const packStoredName = ({ storage, q8 }: StoredVariant): string =>
  `pack_stored_${storage}${storage === 'q8_0' ? `_${q8.neighbours}_${q8.flip}` : ''}`;

/** Exports the step kernel `packStoredName(variant)`; its arguments are those of `packWords`, its lines are rows. */
export function packStoredKernel(module: Module, variant: StoredVariant): Func {
  const { storage, q8 } = variant;
  const { block, bytes } = storageLayout[storage];
  const f = module.func(packStoredName(variant), ['i32', 'i32', 'i32']);
  const [record, ...share] = [f.param('i32', 0), f.param('i32', 1), f.param('i32', 2)] as const;
  const [lineBytes, rows, all, count] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
  const [row, from, to, start] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
  const [end, wide, narrow] = [f.local('i32'), f.local('i32'), f.local('i32')];
  const { group, each } = groupsOfThread(f, packRecord.load(record, 'rows'), share);

  const pieces = placedPieces(storage, q8);
  const oneRow = pieces.map((piece) => moveOne(piece, from, piece.length === 4 ? wide : narrow, 0));
  const sources = f.array('i32', LANES);
  const allRows = cutSquares(pieces).flatMap((square) => moveSquare(f, square, sources, to));
  return f.emit(
    lineBytes.set(packRecord.load(record, 'lineBytes')),
    rows.set(packRecord.load(record, 'rows')),
    all.set(
      multiply(divideUnsigned(packRecord.load(record, 'columns'), constant(block)), constant(stepBytes(storage))),
    ),
    ...each(
      count.set(smaller(subtract(rows.get, multiply(group.get, constant(LANES))), constant(LANES))),
      start.set(add(packRecord.load(record, 'source'), multiply(multiply(group.get, constant(LANES)), lineBytes.get))),
      to.set(add(packRecord.load(record, 'destination'), multiply(group.get, packRecord.load(record, 'groupBytes')))),
      end.set(add(to.get, all.get)),
      when(lessUnsigned(count.get, constant(LANES)), [fillBytes(to.get, constant(0), all.get)]),
      when(
        equal(count.get, constant(LANES)),
        [
          ...sources.map((source, row) => source.set(add(start.get, multiply(lineBytes.get, constant(row))))),
          repeat(
            to,
            stepBytes(storage),
            end.get,
            ...allRows,
            ...sources.map((source) => source.set(add(source.get, constant(bytes)))),
          ),
        ],
        [
          repeat(
            to,
            stepBytes(storage),
            end.get,
            row.set(constant(0)),
            from.set(start.get),
            wide.set(to.get),
            narrow.set(to.get),
            repeat(
              row,
              1,
              count.get,
              ...oneRow,
              from.set(add(from.get, lineBytes.get)),
              wide.set(add(wide.get, constant(4))),
              narrow.set(add(narrow.get, constant(2))),
            ),
            start.set(add(start.get, constant(bytes))),
          ),
        ],
      ),
    ),
  );
}

interface PlacedPiece extends Piece {
  /** Offset of row 0's piece in a step of the group. */
  readonly place: number;
}

function placedPieces(storage: BlockStorage, q8: Q8Layout): PlacedPiece[] {
  let place = 0;
  return piecesOf(storage, q8).map((piece) => {
    const placed = { ...piece, place };
    place += LANES * piece.length;
    return placed;
  });
}

/** Pieces whose bytes are neighbours in a row's block, 16 bytes of them where possible. */
function cutSquares(pieces: readonly PlacedPiece[]): PlacedPiece[][] {
  const squares: PlacedPiece[][] = [];
  for (const piece of [...pieces].sort((a, b) => a.at - b.at)) {
    const last = squares.at(-1);
    const before = last?.at(-1);
    const fits =
      last &&
      before &&
      last.length * piece.length < 16 &&
      before.at + before.length === piece.at &&
      before.length === piece.length &&
      before.flip === piece.flip;
    if (fits) last.push(piece);
    else squares.push([piece]);
  }
  return squares;
}

/** Moves a piece of one row; `offset` is the row's place among the 16. */
function moveOne(
  { at, length, flip, place }: PlacedPiece,
  from: Local<'i32'>,
  to: Local<'i32'>,
  offset: number,
): Statement {
  const flipped = (value: I32): I32 => (flip ? xor(value, constant(0x01010101 * flip)) : value);
  return length === 4
    ? storeI32(to.get, flipped(loadI32(from.get, at)), place + offset)
    : store16(to.get, flipped(load16u(from.get, at)), place + offset);
}

/** Moves neighbouring pieces of all 16 rows: as transposed vectors if they fill one, else one by one. */
function moveSquare(
  f: Func,
  square: readonly PlacedPiece[],
  sources: readonly Local<'i32'>[],
  to: Local<'i32'>,
): Statement[] {
  const { length, at, flip } = square[0]!;
  if (square.length * length < 16) {
    return square.flatMap((piece) => sources.map((source, row) => moveOne(piece, source, to, row * length)));
  }
  const rows = f.array('v128', square.length);
  const { statements, columns } = transpose(f, rows);
  const mask = flip ? hoistedConstant(f, 0x01010101 * flip).get : undefined;
  return Array.from({ length: LANES / rows.length }, (_, n) => n * rows.length).flatMap((first) => [
    ...rows.map((row, i) => {
      const loaded = v.load(sources[first + i]!.get, at);
      return row.set(mask ? v.xor(loaded, mask) : loaded);
    }),
    ...statements,
    ...columns.map((column, i) => v.store(to.get, column.get, square[i]!.place + first * length)),
  ]);
}
