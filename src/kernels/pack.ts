/**
 * Load-time kernels that convert bytes of a file to the weight's storage, in the lane-interleaved layout of layout.ts.
 *
 * A matrix comes in pieces of whole lines of the file. Order 'rows': the file has [out, in], a line is a row. Order
 * 'columns': it has [in, out], a line is a column. A piece is a rectangle of the matrix that starts at the first row of a
 * group, and for block formats at the first column of a block. The groups of a piece are shared out among the threads,
 * which go through them in boxes:
 *
 *   rows       16 rows x ROW_COLUMNS, along a group first
 *   columns    16 rows x BLOCK columns, along a line first, for neighbours in a line share cache lines and pages
 *
 * Every source type goes into every storage; bits move unchanged where the types are equal. Rows that fill up the last
 * group hold zeros, quantized as such.
 */

import type { FloatStorage } from '../quant/storage.ts';
import { type Storage, storageLayout } from '../quant/storage.ts';
import {
  add,
  and,
  call,
  constant,
  copyBytes,
  type Func,
  f32,
  fillBytes,
  i32,
  type Local,
  lessUnsigned,
  type Module,
  multiply,
  or,
  repeat,
  type Statement,
  smaller,
  subtract,
  v,
  when,
} from '../wasm/assembler.ts';
import { sourceBytes, widenedLoad } from './convert.ts';
import { BLOCK, groupBytes, LANES, type Q8Layout, stepBytes } from './layout.ts';
import { quantizeColumns, quantizeRows, ROW_COLUMNS } from './pack-blocks.ts';
import { groupsOfThread, packRecord } from './pack-groups.ts';
import { COLUMN_MULTIPLE, copyColumns, transposeRows } from './pack-lines.ts';
import type { BlockTarget } from './quantizer.ts';
import { bitsOf, recordLayout } from './record.ts';

/** Storages that kernels make from single values; blocks from a file are packed by pack-stored.ts. */
export type PackedStorage = FloatStorage | BlockTarget['storage'];

export interface PackVariant {
  readonly source: FloatStorage;
  readonly order: 'rows' | 'columns';
  readonly storage: PackedStorage;
  /** For q8_0. */
  readonly q8: Q8Layout;
}

/** Location of a matrix: the address of its first group, and its number of columns. */
export interface PackedMatrix {
  readonly address: number;
  readonly k: number;
}

/** A piece of a matrix in a staging area. */
export interface Piece {
  /** Address of the first value. */
  readonly source: number;
  readonly lineBytes: number;
  /** In rows and columns of the matrix [out, in], whatever the order of the file. */
  readonly firstRow: number;
  readonly rows: number;
  readonly firstColumn: number;
  readonly columns: number;
}

/**
 * The arguments of a `packKernel` or `packStoredKernel`. @throws RangeError where a piece does not begin with a group,
 * or cuts a block
 */
export function packWords(storage: Storage, matrix: PackedMatrix, piece: Piece): Int32Array {
  const { block } = storageLayout[storage];
  if (piece.firstRow % LANES || piece.firstColumn % block || piece.columns % block)
    throw new RangeError(
      `a piece of ${storage} begins at a multiple of ${LANES} rows and has whole blocks of ${block} columns; got ` +
        `row ${piece.firstRow}, columns ${piece.firstColumn} to ${piece.firstColumn + piece.columns}`,
    );
  const stride = groupBytes(storage, matrix.k);
  return packRecord.words({
    source: piece.source,
    lineBytes: piece.lineBytes,
    rows: piece.rows,
    columns: piece.columns,
    destination: matrix.address + (piece.firstRow / LANES) * stride + (piece.firstColumn / block) * stepBytes(storage),
    groupBytes: stride,
  });
}

/** The name that `packKernel` exports. */
export const packName = ({ source, order, storage, q8 }: PackVariant): string =>
  `pack_${source}_${order}_${storage}${storage === 'q8_0' ? `_${q8.neighbours}_${q8.flip}` : ''}`;

/** Offset in scratch of the copy of an incomplete box, behind 256 lines of 64 bytes for the packing functions. */
const STAGE = 16384;

/** Exports the step kernel `packName(variant)`. */
export function packKernel(module: Module, variant: PackVariant): Func {
  const { source, order, storage } = variant;
  const name = packName(variant);
  const packBox = boxPacker(module, `${name}_box`, variant);
  const f = module.func(name, ['i32', 'i32', 'i32']);
  const [record, ...share] = [f.param('i32', 0), f.param('i32', 1), f.param('i32', 2)] as const;
  const word = (argument: (typeof packRecord.names)[number]): Local<'i32'> => {
    const local = f.local('i32');
    f.emit(local.set(packRecord.load(record, argument)));
    return local;
  };
  const [lineBytes, rows, columns] = [word('lineBytes'), word('rows'), word('columns')];
  const [origin, destination, stride] = [word('source'), word('destination'), word('groupBytes')];
  const [column, from, step] = [f.local('i32'), f.local('i32'), f.local('i32')];
  const [boxRows, boxColumns] = [f.local('i32'), f.local('i32')];
  const groups = groupsOfThread(f, rows.get, share);
  const perRow = order === 'rows';
  const most = perRow ? ROW_COLUMNS : BLOCK;
  const size = sourceBytes[source];

  const row = multiply(groups.group.get, constant(LANES));
  const [line, value] = perRow ? [row, column.get] : [column.get, row];
  const offset = add(multiply(line, lineBytes.get), multiply(value, constant(size)));
  const columnBytes = stepBytes(storage) / storageLayout[storage].block;
  const to = add(
    add(destination.get, multiply(groups.group.get, stride.get)),
    multiply(column.get, constant(columnBytes)),
  );
  const short = lessUnsigned(boxRows.get, constant(LANES));
  const incomplete = perRow ? or(short, and(boxColumns.get, constant(COLUMN_MULTIPLE - 1))) : short;
  const lines = perRow ? { count: boxRows, values: boxColumns } : { count: boxColumns, values: boxRows };
  const box = [
    boxRows.set(smaller(subtract(rows.get, row), constant(LANES))),
    boxColumns.set(smaller(subtract(columns.get, column.get), constant(most))),
    from.set(add(origin.get, offset)),
    step.set(lineBytes.get),
    when(incomplete, stageLines(f, from, step, lines, perRow ? [LANES, most * size] : [most, LANES * size], size)),
    call(packBox, from.get, step.get, boxColumns.get, to),
  ];
  const along = (...body: readonly Statement[]): Statement[] => [
    column.set(constant(0)),
    repeat(column, most, columns.get, ...body),
  ];
  return f.emit(...(perRow ? groups.each(...along(...box)) : groups.whenAny(...along(...groups.each(...box)))));
}

/** Adds `name(from, stride, columns, to)`, which packs 16 rows. */
function boxPacker(module: Module, name: string, { source, order, storage, q8 }: PackVariant): Func {
  if (storage === 'q8_0' || storage === 'q4_0')
    return (order === 'rows' ? quantizeRows : quantizeColumns)(module, name, source, { storage, q8 });
  return (order === 'rows' ? transposeRows : copyColumns)(module, name, source, storage);
}

/** Copies lines into a box of zeros, [lines, bytes per line], and moves `from` and `step` there. */
function stageLines(
  f: Func,
  from: Local<'i32'>,
  step: Local<'i32'>,
  lines: { readonly count: Local<'i32'>; readonly values: Local<'i32'> },
  [count, bytes]: readonly [number, number],
  size: number,
): Statement[] {
  const stage = add(f.module.scratch, constant(STAGE));
  const line = f.local('i32');
  return [
    fillBytes(stage, constant(0), constant(count * bytes)),
    line.set(constant(0)),
    repeat(
      line,
      1,
      lines.count.get,
      copyBytes(
        add(stage, multiply(line.get, constant(bytes))),
        add(from.get, multiply(line.get, step.get)),
        multiply(lines.values.get, constant(size)),
      ),
    ),
    from.set(stage),
    step.set(constant(bytes)),
  ];
}

/** source: address of the first value; count: values; destination: f32, padded with zeros to 16; plus: bits of an f32. */
export const packVectorRecord = recordLayout('source', 'count', 'destination', 'plus');

/** The arguments of a `packVectorKernel`. @param vector `plus` is added to every value, unless it is 0 */
export function packVectorWords(vector: {
  readonly source: number;
  readonly count: number;
  readonly destination: number;
  readonly plus: number;
}): Int32Array {
  // Adding -0 changes no value; adding +0 would change -0.
  return packVectorRecord.words({ ...vector, plus: bitsOf(vector.plus || -0) });
}

/** Exports the step kernel `pack_vector_SOURCE`. */
export function packVectorKernel(module: Module, source: FloatStorage): Func {
  const f = module.func(`pack_vector_${source}`, ['i32', 'i32', 'i32']);
  const [record, ...share] = [f.param('i32', 0), f.param('i32', 1), f.param('i32', 2)] as const;
  const [from, to, count] = [f.local('i32'), f.local('i32'), f.local('i32')];
  const plus = f.local('v128');
  const load = widenedLoad(f, source);
  const size = sourceBytes[source];
  const parts = f.array('v128', LANES / 4);
  const { group, each } = groupsOfThread(f, packVectorRecord.load(record, 'count'), share);
  const stage = add(f.module.scratch, constant(STAGE));
  const incomplete = lessUnsigned(count.get, constant(LANES));
  return f.emit(
    plus.set(i32.splat(packVectorRecord.load(record, 'plus'))),
    ...each(
      from.set(add(packVectorRecord.load(record, 'source'), multiply(group.get, constant(LANES * size)))),
      to.set(add(packVectorRecord.load(record, 'destination'), multiply(group.get, constant(LANES * 4)))),
      count.set(subtract(packVectorRecord.load(record, 'count'), multiply(group.get, constant(LANES)))),
      when(incomplete, [copyBytes(stage, from.get, multiply(count.get, constant(size))), from.set(stage)]),
      ...parts.map((part, i) => part.set(f32.add(load(from.get, 4 * i), plus.get))),
      ...parts.map((part, i) => v.store(to.get, part.get, 16 * i)),
      when(incomplete, [
        fillBytes(
          add(to.get, multiply(count.get, constant(4))),
          constant(0),
          multiply(subtract(constant(LANES), count.get), constant(4)),
        ),
      ]),
    ),
  );
}
