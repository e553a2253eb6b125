/**
 * Quantizes rows to the K types with error feedback (feedback.ts). When a super-block of 256 columns begins, scales are fitted
 * to its ideal values: those that would cancel the errors of the columns behind it. The largest of them decide the super-block's
 * scales; each block then tries the integers around its own fit.
 */
import {
  add,
  call,
  constant,
  copyBytes,
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
  type V128,
  v,
} from '../../wasm/assembler.ts';
import { recordLayout } from '../record.ts';
import { fitFunction } from './fit.ts';
import { area, blockFunction, gatherFunction, lane, type MakeRounding, squareFunction } from './gather.ts';
import { everyPanel, stepParams } from './products.ts';
import { integers, line, nearestF16 } from './rounding.ts';

export type SuperBlock = 'q4_k' | 'q5_k' | 'q6_k';

const SUPER = 256;

export interface SuperSpec {
  /** Columns of a block. */
  readonly block: 16 | 32;
  readonly rounding: MakeRounding;
  /** Codes from 0 to `most` with a minimum, or from -half to half - 1. */
  readonly most?: number;
  readonly half?: number;
  /** Offsets that are tried: of the scale's integer, and of the minimum's. */
  readonly tried: readonly (readonly [number, number])[];
}

const around = (scale: number, minimum: number): [number, number][] =>
  Array.from({ length: 2 * scale + 1 }, (_, s) =>
    Array.from({ length: 2 * minimum + 1 }, (_, m): [number, number] => [s - scale, m - minimum]),
  ).flat();

export const superBlocks: Readonly<Record<SuperBlock, SuperSpec>> = {
  q4_k: { block: 32, rounding: line(15), most: 15, tried: around(3, 3) },
  q5_k: { block: 32, rounding: line(31), most: 31, tried: around(2, 2) },
  q6_k: { block: 16, rounding: integers(-32, 31, 0), half: 32, tried: around(3, 0) },
};

/**
 * As feedbackRecord, but scales: f32 [groups][columns / block][2][16], the integers of scale and minimum; supers: f32
 * [groups][columns / 256][2][16], the scale and minimum of super-blocks; tried: `count` pairs of offsets, f32.
 */
export const superRecord = recordLayout(
  'w',
  'factors',
  'stride',
  'columns',
  'groups',
  'importance',
  'codes',
  'scales',
  'supers',
  'tried',
  'count',
);

/** Offsets in scratch. */
const at = {
  best: lane.end,
  /** Of the best candidate: loss, integers of scale and minimum. Then the integers of the fit, and the super-block's scales. */
  integers: lane.end + 64,
  fitted: lane.end + 192,
  supers: lane.end + 320,
  /** Targets of a block while ideal values are searched. */
  targets: 72 * 1024,
} as const;

/** Exports the step kernel `feedback_TYPE`. */
export function superKernel(module: Module, type: SuperBlock): Func {
  const { block: BLOCK, rounding, most, half = 32 } = superBlocks[type];
  const gather = gatherFunction(module);
  const square = squareFunction(module);
  const ideal = blockFunction(module, 'ideal', 'ideal', rounding);
  const trial = blockFunction(module, 'trial', 'trial', rounding);
  const final = blockFunction(module, 'final', 'final', rounding);
  const fit = fitFunction(module, most === undefined ? { half } : { most });
  const f = module.func(`feedback_${type}`, ['i32', 'i32', 'i32']);
  const { record, thread, threads } = stepParams(f);
  const argument = (name: (typeof superRecord.names)[number]): I32 => superRecord.load(record, name);
  const local = (): Local<'i32'> => f.local('i32');
  const [group, w, codes, scales, supers, stride, columns] = [
    local(),
    local(),
    local(),
    local(),
    local(),
    local(),
    local(),
  ];
  const [outerEnd, outer, end, start, k, n] = [local(), local(), local(), local(), local(), local()];
  const [scale, x, y, mask] = [f.local('v128'), f.local('v128'), f.local('v128'), f.local('v128')];
  const round = nearestF16(f);
  const { scratch } = module;
  const quarters = [0, 16, 32, 48];
  const [least, greatest] = most === undefined ? [-128, 127] : [0, 63];
  const clamp = (value: V128): V128 => f32.pmax(f32.pmin(value, f32.splatConstant(greatest)), f32.splatConstant(least));

  const column = (base: I32, index: I32): I32 => add(base, shiftLeft(index, constant(6)));
  const factorsAt = (panelOf: I32, row: I32): I32 =>
    column(add(argument('factors'), multiply(shiftRight(panelOf, constant(4)), stride.get)), row);
  const targetAt = (index: I32): I32 => add(column(scratch, subtract(index, outer.get)), constant(area.targets));
  const idealTargetAt = (index: I32): I32 => add(column(scratch, subtract(index, start.get)), constant(at.targets));
  const idealErrorAt = (index: I32): I32 => add(column(scratch, subtract(index, outer.get)), constant(area.ideal));
  const gathered = (
    [from, to]: readonly [Local<'i32'>, Local<'i32'>],
    [initial, out]: readonly [(k: I32) => I32, (k: I32) => I32],
    [errors, first, until]: readonly [I32, Local<'i32'>, I32],
  ): Statement[] => [
    k.set(from.get),
    repeat(
      k,
      4,
      to.get,
      call(
        gather,
        initial(k.get),
        out(k.get),
        errors,
        factorsAt(first.get, k.get),
        shiftRight(subtract(until, first.get), constant(4)),
        stride.get,
      ),
    ),
  ];
  const run = (what: Func, targets: I32): Statement =>
    call(
      what,
      column(w.get, start.get),
      targets,
      add(argument('importance'), shiftLeft(start.get, constant(2))),
      constant(BLOCK),
      add(codes.get, shiftLeft(start.get, constant(4))),
    );
  const fitBlock: Statement[] = [
    call(fit, add(argument('importance'), shiftLeft(start.get, constant(2))), constant(BLOCK)),
  ];
  const squareOfBlock = call(square, factorsAt(start.get, start.get), constant(BLOCK), stride.get);
  const eachBlock = (...body: readonly Statement[]): Statement[] => [
    end.set(outerEnd.get),
    doWhile(
      lessUnsigned(outer.get, end.get),
      start.set(subtract(end.get, constant(BLOCK))),
      ...body,
      end.set(start.get),
    ),
  ];
  /** value / unit, or 0 where the unit is 0. */
  const divided = (value: V128, unit: V128): V128 => v.and(f32.div(value, unit), f32.ne(unit, v.bytes(0)));

  const fitSuperBlock: Statement[] = [
    ...[0, 64].flatMap((offset) => quarters.map((c) => v.store(scratch, v.bytes(0), at.supers + offset + c))),
    ...eachBlock(
      ...gathered([start, end], [targetAt, idealTargetAt], [idealErrorAt(end.get), end, outerEnd.get]),
      squareOfBlock,
      run(ideal, add(scratch, constant(at.targets))),
      copyBytes(idealErrorAt(start.get), add(scratch, constant(area.errors)), constant(64 * BLOCK)),
      ...fitBlock,
      ...quarters.flatMap((c) => [
        x.set(v.load(scratch, at.supers + c)),
        y.set(v.load(scratch, lane.scale + c)),
        v.store(scratch, v.bitselect(y.get, x.get, f32.gt(f32.abs(y.get), f32.abs(x.get))), at.supers + c),
        v.store(
          scratch,
          f32.pmax(v.load(scratch, at.supers + 64 + c), v.load(scratch, lane.minimum + c)),
          at.supers + 64 + c,
        ),
      ]),
    ),
    ...[0, 64].flatMap((offset) =>
      quarters.flatMap((c) => [
        scale.set(f32.div(v.load(scratch, at.supers + offset + c), f32.splatConstant(most === undefined ? -128 : 63))),
        scale.set(round(scale)),
        v.store(scratch, scale.get, at.supers + offset + c),
        // 128 bytes for each 256 columns.
        v.store(add(supers.get, shiftRight(outer.get, constant(1))), scale.get, offset + c),
      ]),
    ),
  ];
  /** Sets scale, inverse and minimum of four lanes from the integers at `from`. */
  const setScales = (from: number, c: number): Statement[] => [
    scale.set(f32.mul(v.load(scratch, from + c), v.load(scratch, at.supers + c))),
    v.store(scratch, scale.get, lane.scale + c),
    v.store(scratch, divided(f32.splatConstant(1), scale.get), lane.inverse + c),
    v.store(scratch, f32.mul(v.load(scratch, from + 64 + c), v.load(scratch, at.supers + 64 + c)), lane.minimum + c),
  ];
  const candidate = at.fitted + 512;
  const quantizeBlock: Statement[] = [
    ...gathered([start, end], [targetAt, targetAt], [column(w.get, end.get), end, outerEnd.get]),
    squareOfBlock,
    run(ideal, targetAt(start.get)),
    ...fitBlock,
    ...quarters.flatMap((c) => [
      v.store(
        scratch,
        f32.nearest(divided(v.load(scratch, lane.scale + c), v.load(scratch, at.supers + c))),
        at.fitted + c,
      ),
      v.store(
        scratch,
        f32.nearest(divided(v.load(scratch, lane.minimum + c), v.load(scratch, at.supers + 64 + c))),
        at.fitted + 64 + c,
      ),
      v.store(scratch, f32.splatConstant(Infinity), at.best + c),
      v.store(scratch, v.bytes(0), at.integers + c),
      v.store(scratch, v.bytes(0), at.integers + 64 + c),
    ]),
    n.set(constant(0)),
    repeat(
      n,
      8,
      shiftLeft(argument('count'), constant(3)),
      ...quarters.flatMap((c) => [
        ...[0, 64].map((offset) =>
          v.store(
            scratch,
            clamp(
              f32.add(
                v.load(scratch, at.fitted + offset + c),
                v.load32splat(add(argument('tried'), n.get), offset === 0 ? 0 : 4),
              ),
            ),
            candidate + offset + c,
          ),
        ),
        ...setScales(candidate, c),
      ]),
      run(trial, targetAt(start.get)),
      ...quarters.flatMap((c) => [
        mask.set(f32.lt(v.load(scratch, lane.loss + c), v.load(scratch, at.best + c))),
        ...(
          [
            [lane.loss, at.best],
            [candidate, at.integers],
            [candidate + 64, at.integers + 64],
          ] as const
        ).map(([from, to]) =>
          v.store(scratch, v.bitselect(v.load(scratch, from + c), v.load(scratch, to + c), mask.get), to + c),
        ),
      ]),
    ),
    ...quarters.flatMap((c) => [
      ...setScales(at.integers, c),
      ...[0, 64].map((offset) =>
        // 128 bytes for each block.
        v.store(
          add(scales.get, BLOCK === 32 ? shiftLeft(start.get, constant(2)) : shiftLeft(start.get, constant(3))),
          v.load(scratch, at.integers + offset + c),
          offset + c,
        ),
      ),
    ]),
    run(final, targetAt(start.get)),
  ];
  const blockBytes = BLOCK === 32 ? 2 : 3;
  return f.emit(
    stride.set(argument('stride')),
    columns.set(argument('columns')),
    everyPanel(group, thread, threads, argument('groups'), [
      w.set(add(argument('w'), multiply(group.get, shiftLeft(columns.get, constant(6))))),
      codes.set(add(argument('codes'), multiply(group.get, shiftLeft(columns.get, constant(4))))),
      scales.set(add(argument('scales'), multiply(group.get, shiftLeft(columns.get, constant(blockBytes))))),
      supers.set(add(argument('supers'), multiply(group.get, shiftRight(columns.get, constant(1))))),
      outerEnd.set(columns.get),
      doWhile(
        outerEnd.get,
        outer.set(subtract(outerEnd.get, constant(SUPER))),
        ...gathered(
          [outer, outerEnd],
          [(index) => column(w.get, index), targetAt],
          [column(w.get, outerEnd.get), outerEnd, columns.get],
        ),
        ...fitSuperBlock,
        ...eachBlock(...quantizeBlock),
        outerEnd.set(outer.get),
      ),
    ]),
  );
}
