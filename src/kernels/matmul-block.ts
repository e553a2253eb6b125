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
  type Func,
  f32,
  hoistedConstant,
  type I32,
  i32,
  type Local,
  type Module,
  type Statement,
  v,
} from '../wasm/assembler.ts';
import { type ActivationFormat, activationBlockBytes, LANES } from './layout.ts';
import { blockTileFunc, type TileShape } from './tile.ts';

/** What a format sees while it emits the integer sums of one block. */
export interface BlockContext {
  readonly sums: readonly (readonly Local<'v128'>[])[];
  readonly weights: readonly Local<'v128'>[];
  readonly activation: Local<'v128'>;
  /** Address of the block; its quants begin at `quants`, of which this pass takes `lanes` from `lane` on. */
  readonly w: I32;
  readonly quants: number;
  readonly lane: number;
  /** Address of a token's block: its sums are at 4, its values begin at 8. */
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
export function blockTile(module: Module, format: BlockFormat, shape: TileShape): Func {
  const steps = { stepBytes: LANES * format.bytes, xBytes: activationBlockBytes(format.activation) };
  return blockTileFunc(module, `matmul_${format.name}_${shape.tokens}`, shape, steps, (f, columns) => {
    const sums = Array.from({ length: shape.tokens }, () => f.array('v128', columns));
    const weights = f.array('v128', columns);
    const activation = f.local('v128');
    const halfMask = hoistedConstant(f, HALF_MASK);
    const integers = format.integers(f);
    return ({ w, lane, x, accumulate }) => [
      ...integers({ sums, weights, activation, w, quants: LANES * 2, lane, x }),
      ...weights.map((l, c) => l.set(v.and(i32.shl(v.load16x4s(w, lane * 2 + c * 8), 13), halfMask.get))),
      ...sums.flatMap((row, t) => [
        activation.set(v.load32splat(x(t))),
        ...accumulate(t, (c) => f32.mul(f32.fromI32(row[c]!.get), f32.mul(weights[c]!.get, activation.get))),
      ]),
    ];
  });
}
