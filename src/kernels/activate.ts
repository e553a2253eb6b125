/**
 * out = f(x), or f(x) up when `up` is given, value by value; the functions are those of math.ts:
 *
 *   gelu        x Phi(x)
 *   gelu_tanh   x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
 *   silu        x / (1 + e^-x)
 *   relu        max(x, 0)
 */
import { type Func, f32, type Module, v } from '../wasm/assembler.ts';
import { columnWise, eachLineOfColumns, line, storeLine } from './loops.ts';
import { type Formula, gelu, geluTanh, interleaved, relu, silu } from './math.ts';
import { recordLayout } from './record.ts';

/** x, up (gated only), out: rows of `width`; rows: address of the row count. */
export const activateRecord = recordLayout('x', 'up', 'out', 'rows', 'width');

export type ActivationKind = 'gelu' | 'gelu_tanh' | 'silu' | 'relu';

const formulas: Readonly<Record<ActivationKind, (f: Func) => Formula>> = { gelu, gelu_tanh: geluTanh, silu, relu };

/** Exports the step kernel `activate_<kind>`, or `activate_<kind>_up` when `gated`. */
export function activateKernel(module: Module, kind: ActivationKind, gated: boolean): Func {
  const kernel = columnWise(module, `activate_${kind}${gated ? '_up' : ''}`, activateRecord);
  const { f } = kernel;
  const formula = formulas[kind](f);
  const [x, out] = [kernel.argument('x'), kernel.argument('out')];
  const up = gated ? kernel.argument('up') : undefined;
  const values = line(f);
  return f.emit(
    ...eachLineOfColumns(kernel, up ? [x, up, out] : [x, out], [
      ...values.map((value, c) => value.set(v.load(x.get, c * 16))),
      ...interleaved(...values.map(formula)),
      ...(up ? values.map((value, c) => value.set(f32.mul(value.get, v.load(up.get, c * 16)))) : []),
      ...storeLine(out, values),
    ]),
  );
}
