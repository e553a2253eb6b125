/**
 * Blocks as a file stores them into the lane-interleaved layout: pieces of each row's block (layout.ts) move to their places
 * among those of the other rows, and no bit changes but those that the layout flips.
 */
import { type BlockStorage, storageLayout } from '../quant/storage.ts';
import {
  add,
  constant,
  divideUnsigned,
  type Func,
  fillBytes,
  type I32,
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
  when,
  xor,
} from '../wasm/assembler.ts';
import { LANES, piecesOf, type Q8Layout, stepBytes } from './layout.ts';
import { groupsOfThread, packRecord } from './pack-groups.ts';

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

  let placed = 0;
  const moves = piecesOf(storage, q8).map(({ at, length, flip }): Statement => {
    const line = placed;
    placed += LANES * length;
    const flipped = (value: I32): I32 => (flip ? xor(value, constant(0x01010101 * flip)) : value);
    return length === 4
      ? storeI32(wide.get, flipped(loadI32(from.get, at)), line)
      : store16(narrow.get, flipped(load16u(from.get, at)), line);
  });
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
          ...moves,
          from.set(add(from.get, lineBytes.get)),
          wide.set(add(wide.get, constant(4))),
          narrow.set(add(narrow.get, constant(2))),
        ),
        start.set(add(start.get, constant(bytes))),
      ),
    ),
  );
}
