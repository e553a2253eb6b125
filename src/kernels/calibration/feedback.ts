/**
 * Quantizes the rows of a weight block by block, the last columns first, carrying each column's rounding error into the
 * columns before it (GPTQ, arXiv:2210.17323, in the form of a nearest-plane search: with H = U^T D U, U with ones on its
 * diagonal, the loss of a row is sum over k of D_k * (target_k - value_k)^2, where
 *
 *   target_k = w_k + sum over j > k of U_kj * (w_j - value_j)
 *
 * A block's scale is the candidate with the least loss of the block, feedback included.
 */
import {
  add,
  call,
  constant,
  doWhile,
  type Func,
  f32,
  type I32,
  type Local,
  lessUnsigned,
  type Module,
  multiply,
  repeat,
  type Statement,
  shiftLeft,
  shiftRight,
  subtract,
  v,
} from '../../wasm/assembler.ts';
import { recordLayout } from '../record.ts';
import { area, blockFunction, COLUMN, gatherFunction, lane, type MakeRounding, squareFunction } from './gather.ts';
import { everyPanel, stepParams } from './products.ts';
import { codebook, integers, nearestF16 } from './rounding.ts';

/** Types with one scale per block of 32. */
export type PlainBlock = 'q4_0' | 'q8_0' | 'iq4_nl';

const BLOCK = 32;
const OUTER = 256;

const iq4Values = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

interface PlainSpec {
  readonly rounding: MakeRounding;
  /** The extreme of a block divided by this is the scale with factor 1. */
  readonly divisor: number;
  /** Factors of the scales that are tried. */
  readonly factors: readonly number[];
}

const range = (from: number, to: number, count: number): number[] =>
  Array.from({ length: count }, (_, i) => from + ((to - from) * i) / (count - 1));
const bothSigns = (factors: readonly number[]): number[] => [...factors, ...factors.map((factor) => -factor)];

export const plainBlocks: Readonly<Record<PlainBlock, PlainSpec>> = {
  q4_0: { rounding: integers(-8, 7, 0), divisor: -8, factors: bothSigns(range(0.7, 1.2, 21)) },
  q8_0: { rounding: integers(-127, 127, 1), divisor: 127, factors: range(0.94, 1.02, 17) },
  iq4_nl: { rounding: codebook(iq4Values), divisor: -127, factors: bothSigns(range(0.7, 1.2, 21)) },
};

/**
 * w: groups of sixteen rows, each [columns][16] f32, replaced by the errors; factors: panels of U, `stride` bytes apart;
 * importance: D, f32 [columns]; codes: bytes [groups][columns][16]; scales: f32 [groups][columns / 32][16]; tried: `count`
 * factors of scales, f32.
 */
export const feedbackRecord = recordLayout(
  'w',
  'factors',
  'stride',
  'columns',
  'groups',
  'importance',
  'codes',
  'scales',
  'tried',
  'count',
);

/** Offsets in scratch, behind those of gather.ts. */
const best = { scale: lane.end, loss: lane.end + 64, base: lane.end + 128 } as const;

/** Exports the step kernel `feedback_TYPE`. */
export function feedbackKernel(module: Module, type: PlainBlock): Func {
  const { rounding, divisor } = plainBlocks[type];
  const gather = gatherFunction(module);
  const square = squareFunction(module);
  const ideal = blockFunction(module, 'ideal', 'ideal', rounding);
  const trial = blockFunction(module, 'trial', 'trial', rounding);
  const final = blockFunction(module, 'final', 'final', rounding);
  const f = module.func(`feedback_${type}`, ['i32', 'i32', 'i32']);
  const { record, thread, threads } = stepParams(f);
  const argument = (name: (typeof feedbackRecord.names)[number]): I32 => feedbackRecord.load(record, name);
  const local = (): Local<'i32'> => f.local('i32');
  const [group, w, codes, scales, stride, columns] = [local(), local(), local(), local(), local(), local()];
  const [outerEnd, outer, end, start, k, n] = [local(), local(), local(), local(), local(), local()];
  const [scale, inverse, mask] = [f.local('v128'), f.local('v128'), f.local('v128')];
  const round = nearestF16(f);
  const { scratch } = module;

  const column = (base: I32, index: I32): I32 => add(base, shiftLeft(index, constant(6)));
  const factorsAt = (panelOf: I32, row: I32): I32 =>
    column(add(argument('factors'), multiply(shiftRight(panelOf, constant(4)), stride.get)), row);
  const targetAt = (index: I32): I32 => add(column(scratch, subtract(index, outer.get)), constant(area.targets));
  const gathered = (
    from: Local<'i32'>,
    to: Local<'i32'>,
    initial: (k: I32) => I32,
    first: Local<'i32'>,
    until: I32,
  ) => [
    k.set(from.get),
    repeat(
      k,
      4,
      to.get,
      call(
        gather,
        initial(k.get),
        targetAt(k.get),
        column(w.get, first.get),
        factorsAt(first.get, k.get),
        shiftRight(subtract(until, first.get), constant(4)),
        stride.get,
      ),
    ),
  ];
  const importance = add(argument('importance'), shiftLeft(start.get, constant(2)));
  const run = (what: Func): Statement =>
    call(
      what,
      column(w.get, start.get),
      targetAt(start.get),
      importance,
      constant(BLOCK),
      add(codes.get, shiftLeft(start.get, constant(4))),
    );
  const quarters = [0, 16, 32, 48];
  /** Stores the scale in `scale` of four lanes, and its inverse. */
  const setScale = (c: number): Statement[] => [
    v.store(scratch, scale.get, lane.scale + c),
    inverse.set(v.and(f32.div(f32.splatConstant(1), scale.get), f32.ne(scale.get, v.bytes(0)))),
    v.store(scratch, inverse.get, lane.inverse + c),
  ];
  const block: Statement[] = [
    ...gathered(start, end, targetAt, end, outerEnd.get),
    call(square, factorsAt(start.get, start.get), constant(BLOCK), stride.get),
    run(ideal),
    ...quarters.flatMap((c) => [
      scale.set(f32.div(v.load(scratch, lane.extreme + c), f32.splatConstant(divisor))),
      ...(type === 'q8_0' ? [scale.set(f32.abs(scale.get))] : []),
      v.store(scratch, scale.get, best.base + c),
      v.store(scratch, v.bytes(0), best.scale + c),
      v.store(scratch, f32.splatConstant(Infinity), best.loss + c),
    ]),
    n.set(constant(0)),
    repeat(
      n,
      4,
      shiftLeft(argument('count'), constant(2)),
      ...quarters.flatMap((c) => [
        scale.set(f32.mul(v.load(scratch, best.base + c), v.load32splat(add(argument('tried'), n.get)))),
        scale.set(round(scale)),
        ...setScale(c),
      ]),
      run(trial),
      ...quarters.flatMap((c) => [
        mask.set(f32.lt(v.load(scratch, lane.loss + c), v.load(scratch, best.loss + c))),
        v.store(
          scratch,
          v.bitselect(v.load(scratch, lane.loss + c), v.load(scratch, best.loss + c), mask.get),
          best.loss + c,
        ),
        v.store(
          scratch,
          v.bitselect(v.load(scratch, lane.scale + c), v.load(scratch, best.scale + c), mask.get),
          best.scale + c,
        ),
      ]),
    ),
    ...quarters.flatMap((c) => [
      scale.set(v.load(scratch, best.scale + c)),
      ...setScale(c),
      v.store(add(scales.get, shiftLeft(start.get, constant(1))), scale.get, c),
    ]),
    run(final),
  ];
  return f.emit(
    stride.set(argument('stride')),
    columns.set(argument('columns')),
    everyPanel(group, thread, threads, argument('groups'), [
      w.set(add(argument('w'), multiply(group.get, shiftLeft(columns.get, constant(6))))),
      codes.set(add(argument('codes'), multiply(group.get, shiftLeft(columns.get, constant(4))))),
      // 64 bytes for each block of 32 columns.
      scales.set(add(argument('scales'), multiply(group.get, shiftLeft(columns.get, constant(1))))),
      outerEnd.set(columns.get),
      doWhile(
        outerEnd.get,
        outer.set(shiftLeft(shiftRight(subtract(outerEnd.get, constant(1)), constant(8)), constant(8))),
        ...gathered(outer, outerEnd, (index) => column(w.get, index), outerEnd, columns.get),
        end.set(outerEnd.get),
        doWhile(
          lessUnsigned(outer.get, end.get),
          start.set(subtract(end.get, constant(BLOCK))),
          ...block,
          end.set(start.get),
        ),
        outerEnd.set(outer.get),
      ),
    ]),
  );
}

export const outerColumns = OUTER;
export const columnBytes = COLUMN;
