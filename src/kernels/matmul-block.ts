/**
 * Products with block-quantized weights and activations: for each output, in rising order of the blocks of 32 along k,
 *
 *   total = total + f32(integer sum of the block) * (weight scale * activation scale)
 *
 * The integer sums are exact whichever instructions make them, and the float steps are the same, so all choices give the
 * same bits. A format (q8.ts, q4.ts) supplies only the integer sums of one block.
 *
 * f16 scales are widened by shifting their bits into f32's place, which leaves them 2^112 too small; the activations'
 * scale carries that factor.
 */
import {
  add,
  constant,
  type Func,
  f32,
  hoistedConstant,
  type I32,
  i32,
  type Local,
  type Module,
  multiply,
  repeat,
  type Statement,
  type V128,
  v,
} from '../wasm/assembler.ts';
import { type ActivationFormat, activationBlockBytes, LANES } from './layout.ts';
import { type TileShape, tileFunc } from './tile.ts';

/** What a format sees while it emits the integer sums of one block. */
export interface BlockContext {
  readonly sums: readonly (readonly Local<'v128'>[])[];
  readonly weights: readonly Local<'v128'>[];
  readonly activation: Local<'v128'>;
  /** Address of the block; its quants begin at `quants`, of which this pass takes `lanes` from `lane` on. */
  readonly w: I32;
  readonly quants: number;
  readonly lane: number;
  /** Address of a token's block: its correction is at 4, its values begin at 8. */
  x(token: number): I32;
}

export interface BlockFormat {
  readonly name: string;
  /** Bytes of one row's block, scale included. */
  readonly bytes: number;
  readonly activation: ActivationFormat;
  /** Called once per function, for constants; the result emits one block. */
  integers(f: Func): (context: BlockContext) => Statement[];
}

const HALF_MASK = 0x8fffffff;

/** Adds `matmul_NAME_TOKENS` to the module. */
export function blockTile(module: Module, format: BlockFormat, { tokens, lanes }: TileShape): Func {
  const { f, x, xStride, w, out, outStride, steps, groups } = tileFunc(module, `matmul_${format.name}_${tokens}`);
  const columns = lanes / 4;
  const table = (): Local<'v128'>[][] => Array.from({ length: tokens }, () => f.array('v128', columns));
  const sums = table();
  // One token leaves room for its totals in registers; a tile keeps them in `out`, which is in the first-level cache.
  const totals = tokens === 1 ? table() : undefined;
  const [weights, results] = [f.array('v128', columns), f.array('v128', columns)];
  const activation = f.local('v128');
  const [group, step, block] = [f.local('i32'), f.local('i32'), f.local('i32')];
  const [pointers, outs] = [f.array('i32', tokens), f.array('i32', tokens)];
  const halfMask = hoistedConstant(f, HALF_MASK);
  const integers = format.integers(f);
  const blockBytes = LANES * format.bytes;

  const onePass = (pass: number): Statement[] => {
    const lane = pass * lanes;
    const at = (c: number): number => (lane + c * 4) * 4;
    const store = (t: number, values: readonly V128[]): Statement[] =>
      values.map((value, c) => v.store(outs[t]!.get, value, at(c)));
    // All columns of a token are computed before the first store: a store between them keeps V8 from pairing them.
    const scaled = (row: readonly Local<'v128'>[], t: number): Statement[] => [
      activation.set(v.load32splat(pointers[t]!.get)),
      ...row.map((s, c) => {
        const before = totals ? totals[t]![c]!.get : v.load(outs[t]!.get, at(c));
        return (totals ? totals[t]! : results)[c]!.set(
          f32.madd(f32.fromI32(s.get), f32.mul(weights[c]!.get, activation.get), before),
        );
      }),
      ...(totals
        ? []
        : store(
            t,
            results.map((r) => r.get),
          )),
    ];
    const zero = f32.splatConstant(0);
    const context: BlockContext = {
      sums,
      weights,
      activation,
      w: block.get,
      quants: LANES * 2,
      lane,
      x: (t) => pointers[t]!.get,
    };
    return [
      block.set(w.get),
      ...pointers.map((p, t) => p.set(add(x.get, multiply(xStride.get, constant(t))))),
      ...(totals
        ? totals.flat().map((s) => s.set(zero))
        : outs.flatMap((_, t) =>
            store(
              t,
              weights.map(() => zero),
            ),
          )),
      step.set(constant(0)),
      repeat(
        step,
        1,
        steps.get,
        ...integers(context),
        ...weights.map((l, c) => l.set(v.and(i32.shl(v.load16x4s(block.get, lane * 2 + c * 8), 13), halfMask.get))),
        ...sums.flatMap(scaled),
        block.set(add(block.get, constant(blockBytes))),
        ...pointers.map((p) => p.set(add(p.get, constant(activationBlockBytes(format.activation))))),
      ),
      ...(totals
        ? store(
            0,
            totals[0]!.map((s) => s.get),
          )
        : []),
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
      w.set(block.get),
      ...outs.map((p) => p.set(add(p.get, constant(LANES * 4)))),
    ),
  );
}
