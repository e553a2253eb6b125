/**
 * What the inner kernels of all matrix products share: their signature and the shape of their tiles.
 *
 *   kernel(x, xStride, w, out, outStride, steps, groups)
 *
 * computes `tokens` rows of x times `groups` lane groups of w (layout.ts), which are one sequential stream; steps along k
 * are columns for float formats and blocks for block formats, strides are bytes. out gets the plain sums.
 */
import {
  add,
  type Code,
  constant,
  type Func,
  f32,
  type I32,
  type Local,
  type Module,
  multiply,
  repeat,
  type Statement,
  type V128,
  v,
} from '../wasm/assembler.ts';
import { LANES } from './layout.ts';

export interface TileShape {
  /** Rows of x per call. */
  readonly tokens: number;
  /** Lanes of a group done in one pass: 16, or 8 where sums of 16 exceed the registers. */
  readonly lanes: 8 | 16;
}

export interface Tile {
  readonly f: Func;
  readonly x: Local<'i32'>;
  readonly xStride: Local<'i32'>;
  readonly w: Local<'i32'>;
  readonly out: Local<'i32'>;
  readonly outStride: Local<'i32'>;
  readonly steps: Local<'i32'>;
  readonly groups: Local<'i32'>;
}

export function tileFunc(module: Module, name: string): Tile {
  const f = module.func(name, ['i32', 'i32', 'i32', 'i32', 'i32', 'i32', 'i32']);
  const [x, xStride, w, out, outStride, steps, groups] = [0, 1, 2, 3, 4, 5, 6].map((n) => f.param('i32', n)) as [
    Local<'i32'>,
    Local<'i32'>,
    Local<'i32'>,
    Local<'i32'>,
    Local<'i32'>,
    Local<'i32'>,
    Local<'i32'>,
  ];
  return { f, x, xStride, w, out, outStride, steps, groups };
}

/** What a block product sees of one pass over a group, while it emits one step along k. */
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

export interface BlockSteps {
  /** Bytes of a step of a group, and of a token's quantized values. */
  readonly stepBytes: number;
  readonly xBytes: number;
}

/** Adds `name`, the inner kernel of a block product: `emit` is called once, its result once per pass. */
export function blockTileFunc(
  module: Module,
  name: string,
  { tokens, lanes }: TileShape,
  { stepBytes, xBytes }: BlockSteps,
  emit: (f: Func, columns: number) => (pass: BlockPass) => Statement[],
): Func {
  const { f, x, xStride, w, out, outStride, steps, groups } = tileFunc(module, name);
  const columns = lanes / 4;
  // One token leaves room for its totals in registers; a tile keeps them in `out`, which is in the first-level cache.
  const totals = tokens === 1 ? f.array('v128', columns) : undefined;
  const results = f.array('v128', columns);
  const [group, step, place] = [f.local('i32'), f.local('i32'), f.local('i32')];
  const [pointers, outs] = [f.array('i32', tokens), f.array('i32', tokens)];
  const oneStep = emit(f, columns);

  const onePass = (pass: number): Statement[] => {
    const lane = pass * lanes;
    const at = (c: number): number => (lane + c * 4) * 4;
    // A store between computations keeps V8 from pairing them.
    const store = (t: number, value: (c: number) => V128): Statement[] =>
      results.map((_, c) => v.store(outs[t]!.get, value(c), at(c)));
    const zero = (): V128 => f32.splatConstant(0);
    const body = oneStep({
      w: place.get,
      lane,
      columns,
      x: (t) => pointers[t]!.get,
      accumulate: (t, term) =>
        totals
          ? totals.map((total, c) => total.set(f32.add(term(c), total.get)))
          : [
              ...results.map((result, c) => result.set(f32.add(term(c), v.load(outs[t]!.get, at(c))))),
              ...store(t, (c) => results[c]!.get),
            ],
    });
    return [
      place.set(w.get),
      ...pointers.map((p, t) => p.set(add(x.get, multiply(xStride.get, constant(t))))),
      ...(totals ? totals.map((total) => total.set(zero())) : outs.flatMap((_, t) => store(t, zero))),
      step.set(constant(0)),
      repeat(
        step,
        1,
        steps.get,
        ...body,
        place.set(add(place.get, constant(stepBytes))),
        ...pointers.map((p) => p.set(add(p.get, constant(xBytes)))),
      ),
      ...(totals ? store(0, (c) => totals[c]!.get) : []),
    ];
  };
  return f.emit(
    ...outs.map((p, t) => p.set(add(out.get, multiply(outStride.get, constant(t))))),
    group.set(constant(0)),
    repeat(
      group,
      1,
      groups.get,
      ...Array.from({ length: LANES / lanes }, (_, pass) => onePass(pass)).flat(),
      w.set(place.get),
      ...outs.map((p) => p.set(add(p.get, constant(LANES * 4)))),
    ),
  );
}

/** Sets locals to values that are all computed before the first is set where they are stored side by side. */
export const setAll = <T extends 'v128' | 'i32'>(
  locals: readonly Local<T>[],
  value: (index: number) => Code<T>,
): Statement[] => locals.map((local, index) => local.set(value(index)));
