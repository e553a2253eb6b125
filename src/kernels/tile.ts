/**
 * Inner kernels of all matrix products: signatures, and the shape of tiles of several rows.
 *
 *   row(x, w, out, steps, groups)                   one row of x times `groups` lane groups of w (layout.ts), which are one
 *                                                   sequential stream; out gets the sums
 *   panel(x, xStride, w, totals, steps, rows)       rows of x times a piece of one group that stays in the first-level
 *                                                   cache, added to totals: [rows, rounded up to tiles][16] f32
 *
 * Steps along k are columns for float formats and blocks for block formats, strides are bytes. Totals of rows that only
 * fill up the last tile are meaningless.
 */
import {
  add,
  constant,
  doWhile,
  type Func,
  f32,
  type I32,
  type Local,
  lessSigned,
  lessUnsigned,
  type Module,
  multiply,
  not,
  repeat,
  type Statement,
  smaller,
  subtract,
  type V128,
  v,
  when,
} from '../wasm/assembler.ts';
import { LANES } from './layout.ts';

export interface TileShape {
  /** Rows of x that are multiplied together. */
  readonly tokens: number;
  /** Lanes of a group done in one pass: 16, or 8 where sums of 16 exceed the registers. */
  readonly lanes: 8 | 16;
}

export interface StepBytes {
  /** Bytes of a step of a group, and of a row's values of it. */
  readonly w: number;
  readonly x: number;
}

/** Context in which a block product emits one step along k of a pass over a group. */
export interface BlockPass {
  /** Address of the group's step. */
  readonly w: I32;
  /** The pass takes the lanes from `lane` on, `columns` vectors of four. */
  readonly lane: number;
  readonly columns: number;
  /** Address of a token's quantized values of the step. */
  x(token: number): I32;
  /** total = total + term(c) for every vector of a token. All terms are computed before the first store. */
  accumulate(token: number, term: (c: number) => V128): Statement[];
}

/** Called once per function, for constants and locals; the result emits one step. */
export type BlockSteps = (f: Func, tokens: number, columns: number) => (pass: BlockPass) => Statement[];

export interface Row {
  readonly f: Func;
  readonly x: Local<'i32'>;
  readonly w: Local<'i32'>;
  readonly out: Local<'i32'>;
  readonly steps: Local<'i32'>;
  readonly groups: Local<'i32'>;
}

export function rowFunc(module: Module, name: string): Row {
  const f = module.func(`row_${name}`, ['i32', 'i32', 'i32', 'i32', 'i32']);
  const [x, w, out, steps, groups] = [0, 1, 2, 3, 4].map((n) => f.param('i32', n)) as [
    Local<'i32'>,
    Local<'i32'>,
    Local<'i32'>,
    Local<'i32'>,
    Local<'i32'>,
  ];
  return { f, x, w, out, steps, groups };
}

/**
 * Bytes of weights per turn of a loop over one row. A load instruction whose next address is as far away as this is not taken
 * for a stream of its own by a prefetcher that watches instructions: 1.1 to 1.4 times the rate from memory.
 */
export const TURN_BYTES = 2048;

/** Adds `row_NAME` of a block product. */
export function blockRow(module: Module, name: string, bytes: StepBytes, emit: BlockSteps): Func {
  const { f, x, w, out, steps, groups } = rowFunc(module, name);
  const columns = LANES / 4;
  const totals = f.array('v128', columns);
  const [group, step, pointer] = [f.local('i32'), f.local('i32'), f.local('i32')];
  const oneStep = emit(
    f,
    1,
    columns,
  )({
    w: w.get,
    lane: 0,
    columns,
    x: () => pointer.get,
    accumulate: (_t, term) => totals.map((total, c) => total.set(f32.add(term(c), total.get))),
  });
  const body = [...oneStep, w.set(add(w.get, constant(bytes.w))), pointer.set(add(pointer.get, constant(bytes.x)))];
  const perTurn = Math.ceil(TURN_BYTES / bytes.w);
  const turn = Array.from({ length: perTurn }, () => body).flat();
  const wholeTurn = not(lessUnsigned(steps.get, add(step.get, constant(perTurn))));
  const turns = [when(wholeTurn, [doWhile(wholeTurn, ...turn, step.set(add(step.get, constant(perTurn))))])];
  const left = [when(lessUnsigned(step.get, steps.get), [repeat(step, 1, steps.get, ...body)])];
  return f.emit(
    group.set(constant(0)),
    repeat(
      group,
      1,
      groups.get,
      pointer.set(x.get),
      ...totals.map((total) => total.set(f32.splatConstant(0))),
      step.set(constant(0)),
      ...(perTurn > 1 ? turns : []),
      ...left,
      ...totals.map((total, c) => v.store(out.get, total.get, c * 16)),
      out.set(add(out.get, constant(LANES * 4))),
    ),
  );
}

export interface PanelPass {
  /** Address of the piece; advances. */
  readonly place: Local<'i32'>;
  /** Addresses of the tile's rows of x; they advance. */
  readonly pointers: readonly Local<'i32'>[];
  readonly steps: I32;
  /** The pass takes the lanes from `lane` on. */
  readonly lane: number;
  /** The total of vector c of a token. */
  load(token: number, c: number): V128;
  store(token: number, c: number, value: V128): Statement;
}

/** Adds `panel_NAME`: `emit` is called once, its result once per pass of a tile. */
export function panelFunc(
  module: Module,
  name: string,
  { tokens, lanes }: TileShape,
  emit: (f: Func) => (pass: PanelPass) => Statement[],
): Func {
  const f = module.func(`panel_${name}`, ['i32', 'i32', 'i32', 'i32', 'i32', 'i32']);
  const [x, xStride, w, totals, steps, rows] = [0, 1, 2, 3, 4, 5].map((n) => f.param('i32', n)) as [
    Local<'i32'>,
    Local<'i32'>,
    Local<'i32'>,
    Local<'i32'>,
    Local<'i32'>,
    Local<'i32'>,
  ];
  const [place, last, pointers] = [f.local('i32'), f.local('i32'), f.array('i32', tokens)];
  const onePass = emit(f);
  const passes = Array.from({ length: LANES / lanes }, (_, pass): Statement[] => {
    const lane = pass * lanes;
    const at = (t: number, c: number): number => (t * LANES + lane + c * 4) * 4;
    return [
      place.set(w.get),
      // Missing rows of the last tile repeat the last row.
      ...pointers.map((p, t) => p.set(add(x.get, multiply(xStride.get, smaller(constant(t), last.get))))),
      ...onePass({
        place,
        pointers,
        steps: steps.get,
        lane,
        load: (t, c) => v.load(totals.get, at(t, c)),
        store: (t, c, value) => v.store(totals.get, value, at(t, c)),
      }),
    ];
  });
  return f.emit(
    doWhile(
      lessSigned(constant(0), rows.get),
      last.set(subtract(rows.get, constant(1))),
      ...passes.flat(),
      x.set(add(x.get, multiply(xStride.get, constant(tokens)))),
      totals.set(add(totals.get, constant(tokens * LANES * 4))),
      rows.set(subtract(rows.get, constant(tokens))),
    ),
  );
}

/** Adds `panel_NAME` of a block product. Totals stay in memory: registers hold the integer sums. */
export function blockPanel(module: Module, name: string, shape: TileShape, bytes: StepBytes, emit: BlockSteps): Func {
  return panelFunc(module, name, shape, (f) => {
    const columns = shape.lanes / 4;
    const [step, results] = [f.local('i32'), f.array('v128', columns)];
    const oneStep = emit(f, shape.tokens, columns);
    return ({ place, pointers, steps, lane, load, store }) => [
      step.set(constant(0)),
      repeat(
        step,
        1,
        steps,
        ...oneStep({
          w: place.get,
          lane,
          columns,
          x: (t) => pointers[t]!.get,
          // V8 does not pair computations with a store between them.
          accumulate: (t, term) => [
            ...results.map((result, c) => result.set(f32.add(term(c), load(t, c)))),
            ...results.map((result, c) => store(t, c, result.get)),
          ],
        }),
        place.set(add(place.get, constant(bytes.w))),
        ...pointers.map((p) => p.set(add(p.get, constant(bytes.x)))),
      ),
    ];
  });
}

/** Adds `unpack_NAME(w, to, count)`: what `emit` does with one step, for `count` steps of a group. */
export function unpacker(
  module: Module,
  name: string,
  bytes: { readonly from: number; readonly to: number },
  emit: (f: Func, w: I32, to: I32) => readonly Statement[],
): Func {
  const f = module.func(`unpack_${name}`, ['i32', 'i32', 'i32']);
  const [w, to, count, step] = [f.param('i32', 0), f.param('i32', 1), f.param('i32', 2), f.local('i32')];
  const body = emit(f, w.get, to.get);
  return f.emit(
    step.set(constant(0)),
    repeat(
      step,
      1,
      count.get,
      ...body,
      w.set(add(w.get, constant(bytes.from))),
      to.set(add(to.get, constant(bytes.to))),
    ),
  );
}
