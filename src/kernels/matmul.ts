/**
 * The step kernel of matrix products: divides the lane groups among the threads, and adds bias and residual.
 *
 *   out[t][n] = (sum + bias[n]) + out[t][n]        bias and the old content where the record asks for them
 *
 * A single row is multiplied by many groups at a time, a sequential stream of weights. Several rows are multiplied by a piece
 * of one group that stays in the first-level cache, then by the next piece, until the group's sums are complete. For many rows
 * a piece is unpacked first into a form that is cheaper to multiply, and groups are claimed instead of divided.
 *
 * The thread's scratch holds the sums, [groups][16] of one row or [rows][16] of one group, and the unpacked piece.
 */
import {
  add,
  and,
  call,
  constant,
  divideUnsigned,
  doWhile,
  type Func,
  f32,
  fillBytes,
  type I32,
  type Local,
  lessUnsigned,
  loadI32,
  type Module,
  multiply,
  not,
  notEqual,
  or,
  remainderUnsigned,
  repeat,
  type Statement,
  smaller,
  storeI32,
  subtract,
  v,
  when,
  xor,
} from '../wasm/assembler.ts';
import { CLAIMING_ROWS, claim, clearClaims } from './claims.ts';
import { LANES } from './layout.ts';
import { columnShare } from './loops.ts';
import { recordLayout } from './record.ts';
import type { StepBytes } from './tile.ts';

/**
 * x: rows of f32 or quantized activations, `xStride` bytes apart; w: lane groups of `groupBytes`; bias: 0 or [n] f32 padded
 * to groups; out: rows of f32; steps: columns or blocks along k; rows: address of the row count; add: 1 to keep what out
 * holds.
 */
export const matmulRecord = recordLayout(
  'x',
  'xStride',
  'w',
  'groupBytes',
  'bias',
  'out',
  'outStride',
  'steps',
  'groups',
  'rows',
  'add',
);

/** Number of sums of one row kept in scratch before they are added to out. */
const MOST_GROUPS = 64;
/** Largest number of rows multiplied together: their quantized values stay in the second-level cache. */
const MOST_ROWS = 128;
/** Offset in scratch of the unpacked piece, behind the sums of all rows, including those that fill up a tile. */
const PIECE_AT = 16 * 1024;
/** Bytes of a piece as a panel reads it: leaves room for rows of x in the first-level cache. */
const PIECE_BYTES = 20 * 1024;

/** The inner kernel for several rows. */
export interface Panel {
  readonly f: Func;
  /** Bytes of one step of a group, and of a row of x, as the panel reads them. */
  readonly bytes: StepBytes;
  /** Number of rows from which a piece is read once before the panel uses it. */
  readonly fetchedRows?: number;
}

/** A panel over weights that are unpacked first. */
export interface UnpackedPanel extends Panel {
  /** unpack(w, to, count): `count` steps of a group, each of which becomes `steps` steps of the panel. */
  readonly unpack: Func;
  readonly steps: number;
  /** Smallest number of rows for which it is used. */
  readonly leastRows: number;
}

/** The inner kernels of one storage; see tile.ts. */
export interface InnerKernels {
  readonly row: Func;
  /** For two rows and more. Without it, few rows are computed one by one. */
  readonly panel?: Panel;
  readonly unpacked?: UnpackedPanel;
}

/** Exports the step kernel `matmul_NAME`; `stepBytes`: of a step of a group as it is stored. */
export function matmulKernel(module: Module, name: string, stepBytes: number, kernels: InnerKernels): Func {
  const finish = epilogue(module, name);
  const f = module.func(`matmul_${name}`, ['i32', 'i32', 'i32']);
  const [record, thread, threads] = [f.param('i32', 0), f.param('i32', 1), f.param('i32', 2)];
  const argument = (of: (typeof matmulRecord.names)[number]): Local<'i32'> => {
    const local = f.local('i32');
    f.emit(local.set(matmulRecord.load(record, of)));
    return local;
  };
  const [x, xStride, w, groupBytes, bias, out] = [
    argument('x'),
    argument('xStride'),
    argument('w'),
    argument('groupBytes'),
    argument('bias'),
    argument('out'),
  ];
  const [outStride, steps, groups, addOld] = [
    argument('outStride'),
    argument('steps'),
    argument('groups'),
    argument('add'),
  ];
  const [rows, begin, end, group] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
  const [row, height, count] = [f.local('i32'), f.local('i32'), f.local('i32')];
  const [claiming, mine, items, item] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
  const [from, values, left] = [f.local('i32'), f.local('i32'), f.local('i32')];
  const share = (n: I32): I32 =>
    divideUnsigned(columnShare(multiply(groups.get, constant(LANES)), n, threads.get), constant(LANES));
  const lines = (n: I32): I32 => multiply(n, constant(LANES * 4));
  const weightsHere = add(w.get, multiply(group.get, groupBytes.get));
  const valuesHere = add(x.get, multiply(row.get, xStride.get));
  const finishHere = (rowCount: I32, groupCount: I32): Statement =>
    call(
      finish,
      module.scratch,
      add(add(out.get, multiply(row.get, outStride.get)), lines(group.get)),
      outStride.get,
      multiply(notEqual(bias.get, constant(0)), add(bias.get, lines(group.get))),
      addOld.get,
      rowCount,
      groupCount,
    );

  const rowByRow: Statement[] = [
    group.set(begin.get),
    doWhile(
      lessUnsigned(group.get, end.get),
      count.set(smaller(constant(MOST_GROUPS), subtract(end.get, group.get))),
      row.set(constant(0)),
      repeat(
        row,
        1,
        rows.get,
        call(kernels.row, valuesHere, weightsHere, module.scratch, steps.get, count.get),
        finishHere(constant(1), count.get),
      ),
      group.set(add(group.get, count.get)),
    ),
  ];

  const fetching = (fetch: Func, leastRows: number): Statement =>
    when(not(lessUnsigned(height.get, constant(leastRows))), [call(fetch, from.get, count.get)]);
  const inPanels = (panel: Panel | UnpackedPanel): Statement[] => {
    const unpacking = 'unpack' in panel ? panel : undefined;
    const { fetchedRows } = panel;
    const fetch = fetchedRows === undefined ? [] : [fetching(fetcher(module, name, stepBytes), fetchedRows)];
    const perStep = unpacking?.steps ?? 1;
    const pieceSteps = Math.max(1, Math.floor(PIECE_BYTES / (panel.bytes.w * perStep)));
    const area = add(module.scratch, constant(PIECE_AT));
    const onePiece: Statement[] = [
      count.set(smaller(constant(pieceSteps), left.get)),
      ...(unpacking ? [call(unpacking.unpack, from.get, area, count.get)] : []),
      ...fetch,
      call(
        panel.f,
        values.get,
        xStride.get,
        unpacking ? area : from.get,
        module.scratch,
        multiply(count.get, constant(perStep)),
        height.get,
      ),
      from.set(add(from.get, multiply(count.get, constant(stepBytes)))),
      values.set(add(values.get, multiply(count.get, constant(perStep * panel.bytes.x)))),
      left.set(subtract(left.get, count.get)),
    ];
    return [
      // Items are groups, of the first MOST_ROWS rows, of the next ones ...
      when(claiming.get, [begin.set(constant(0)), end.set(groups.get)]),
      mine.set(subtract(end.get, begin.get)),
      items.set(multiply(mine.get, divideUnsigned(add(rows.get, constant(MOST_ROWS - 1)), constant(MOST_ROWS)))),
      item.set(constant(0)),
      when(claiming.get, [item.set(claim(record))]),
      when(lessUnsigned(item.get, items.get), [
        doWhile(
          lessUnsigned(item.get, items.get),
          row.set(multiply(divideUnsigned(item.get, mine.get), constant(MOST_ROWS))),
          group.set(add(begin.get, remainderUnsigned(item.get, mine.get))),
          height.set(smaller(constant(MOST_ROWS), subtract(rows.get, row.get))),
          fillBytes(module.scratch, constant(0), lines(height.get)),
          from.set(weightsHere),
          values.set(valuesHere),
          left.set(steps.get),
          doWhile(left.get, ...onePiece),
          finishHere(height.get, constant(1)),
          when(claiming.get, [item.set(claim(record))], [item.set(add(item.get, constant(1)))]),
        ),
      ]),
      when(claiming.get, [clearClaims(record, item, items, threads)]),
    ];
  };

  const { panel, unpacked } = kernels;
  const few = panel ? [when(lessUnsigned(constant(1), rows.get), inPanels(panel), rowByRow)] : rowByRow;
  return f.emit(
    rows.set(loadI32(matmulRecord.load(record, 'rows'))),
    begin.set(share(thread.get)),
    end.set(share(add(thread.get, constant(1)))),
    claiming.set(not(lessUnsigned(rows.get, constant(CLAIMING_ROWS)))),
    when(
      and(notEqual(rows.get, constant(0)), or(claiming.get, lessUnsigned(begin.get, end.get))),
      unpacked ? [when(lessUnsigned(rows.get, constant(unpacked.leastRows)), few, inPanels(unpacked))] : few,
    ),
  );
}

const CACHE_LINE = 64;

/**
 * fetch(w, count): reads `count` steps of a group into the first-level cache at memory bandwidth. A tile of pairs has too many
 * instructions per byte to keep several cache misses in flight.
 */
function fetcher(module: Module, name: string, stepBytes: number): Func {
  const f = module.func(`fetch_${name}`, ['i32', 'i32']);
  const [w, count, step, read] = [f.param('i32', 0), f.param('i32', 1), f.local('i32'), f.local('i32')];
  const lines = Array.from({ length: Math.ceil(stepBytes / CACHE_LINE) }, (_, line) => line * CACHE_LINE);
  return f.emit(
    step.set(constant(0)),
    repeat(
      step,
      1,
      count.get,
      ...lines.map((at) => read.set(xor(read.get, loadI32(w.get, at)))),
      w.set(add(w.get, constant(stepBytes))),
    ),
    // Stored, so that the reads are not optimized away.
    storeI32(module.scratch, read.get, PIECE_AT),
  );
}

/** finish(sums, out, outStride, bias, add, tokens, groups): scratch to rows. */
function epilogue(module: Module, name: string): Func {
  const f = module.func(`finish_${name}`, ['i32', 'i32', 'i32', 'i32', 'i32', 'i32', 'i32']);
  const [from, out, outStride, bias] = [f.param('i32', 0), f.param('i32', 1), f.param('i32', 2), f.param('i32', 3)];
  const [addOld, tokens, groups] = [f.param('i32', 4), f.param('i32', 5), f.param('i32', 6)];
  const [token, group, to, b] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
  const values = f.array('v128', 4);
  const each = (value: (c: number) => Statement): Statement[] => values.map((_, c) => value(c));
  return f.emit(
    token.set(constant(0)),
    repeat(
      token,
      1,
      tokens.get,
      to.set(out.get),
      b.set(bias.get),
      group.set(constant(0)),
      repeat(
        group,
        1,
        groups.get,
        ...each((c) => values[c]!.set(v.load(from.get, c * 16))),
        when(bias.get, [
          ...each((c) => values[c]!.set(f32.add(values[c]!.get, v.load(b.get, c * 16)))),
          b.set(add(b.get, constant(LANES * 4))),
        ]),
        when(
          addOld.get,
          each((c) => values[c]!.set(f32.add(values[c]!.get, v.load(to.get, c * 16)))),
        ),
        ...each((c) => v.store(to.get, values[c]!.get, c * 16)),
        from.set(add(from.get, constant(LANES * 4))),
        to.set(add(to.get, constant(LANES * 4))),
      ),
      out.set(add(out.get, outStride.get)),
    ),
  );
}
