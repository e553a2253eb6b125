/**
 * Products with block-quantized weights and activations: for each output, in rising order of the blocks of 32 along k,
 *
 *   total = total + f32(integer sum of the block) * (weight scale * activation scale)
 *
 * The integer sums are exact whichever instructions make them, and the float steps are the same, so all choices give the
 * same bits. A format (q8.ts, q4.ts) supplies only the integer sums of one block.
 *
 * f16 scales are widened by shifting their bits into f32's place, which leaves them 2^112 too small, also where an
 * unpacked block keeps them as f32; the activations' scale carries that factor.
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
  type V128,
  v,
} from '../wasm/assembler.ts';
import { type ActivationFormat, activationBlockBytes, LANES } from './layout.ts';
import type { Panel } from './matmul.ts';
import { type BlockSteps, blockPanel, blockRow, type StepBytes, type TileShape } from './tile.ts';

/** Context in which a format emits the integer sums of one block. */
export interface BlockContext {
  readonly sums: readonly (readonly Local<'v128'>[])[];
  readonly weights: readonly Local<'v128'>[];
  readonly products: readonly Local<'v128'>[];
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
  /** Unpacked weights have their scales as f32, others as f16. */
  readonly unpacked?: boolean;
  readonly activation: ActivationFormat;
  /** Called once per function, for constants; the result emits one block. */
  integers(f: Func): (context: BlockContext) => Statement[];
}

/** Keeps the sign and the shifted exponent and mantissa of a sign-extended f16. */
const HALF_MASK = 0x8fffffff;

/** Loads four f16 scales from number `at` on of a block, as f32 that are 2^112 too small. */
function halfScales(f: Func): (w: I32, at: number) => V128 {
  const mask = hoistedConstant(f, HALF_MASK);
  return (w, at) => v.and(i32.shl(v.load16x4s(w, at * 2), 13), mask.get);
}

/** Writes a block's scales as an unpacked format has them; `lines` as many locals as a group has vectors. */
export function unpackScales(f: Func, w: I32, to: I32, lines: readonly Local<'v128'>[]): Statement[] {
  const scale = halfScales(f);
  return [
    ...lines.map((line, c) => line.set(scale(w, c * 4))),
    ...lines.map((line, c) => v.store(to, line.get, c * 16)),
  ];
}

/** Adds `row_NAME` to the module. */
export const formatRow = (module: Module, format: BlockFormat): Func =>
  blockRow(module, format.name, bytesOf(format), stepsOf(format));

/** Adds `panel_NAME` to the module. */
export const formatPanel = (module: Module, format: BlockFormat, shape: TileShape): Panel => ({
  f: blockPanel(module, format.name, shape, bytesOf(format), stepsOf(format)),
  bytes: bytesOf(format),
});

const bytesOf = ({ bytes, activation }: BlockFormat): StepBytes => ({
  w: LANES * bytes,
  x: activationBlockBytes(activation),
});

const stepsOf =
  (format: BlockFormat): BlockSteps =>
  (f, tokens, columns) => {
    const sums = Array.from({ length: tokens }, () => f.array('v128', columns));
    const [weights, products] = [f.array('v128', columns), f.array('v128', columns)];
    const activation = f.local('v128');
    const scale = format.unpacked ? (w: I32, at: number): V128 => v.load(w, at * 4) : halfScales(f);
    const quants = LANES * (format.unpacked ? 4 : 2);
    const integers = format.integers(f);
    return ({ w, lane, x, accumulate }) => [
      ...integers({ sums, weights, products, activation, w, quants, lane, x }),
      ...weights.map((l, c) => l.set(scale(w, lane + c * 4))),
      ...sums.flatMap((row, t) => [
        activation.set(v.load32splat(x(t))),
        ...accumulate(t, (c) => f32.mul(f32.fromI32(row[c]!.get), f32.mul(weights[c]!.get, activation.get))),
      ]),
    ];
  };

/**
 * Adds the products of `weights` and of the activations at an offset to the sums; without `sum` they start the sums. All
 * products of a token come before the additions: interleaved, they compete for the same execution units of current CPUs (5 to
 * 10 % of the time).
 */
export const productsThenSums = (
  { sums, weights, products, activation, x }: BlockContext,
  offset: number,
  product: (a: V128, b: V128) => V128,
  sum?: (a: V128, b: V128) => V128,
): Statement[] =>
  sums.flatMap((row, t) => {
    const begins = sum ? products : row;
    return [
      activation.set(v.load32splat(x(t), offset)),
      ...begins.map((p, c) => p.set(product(activation.get, weights[c]!.get))),
      ...(sum ? row.map((s, c) => s.set(sum(s.get, products[c]!.get))) : []),
    ];
  });
