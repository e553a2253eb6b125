/**
 * Rotary position embedding, pairs (i, i + h) with h = rotary / 2 of each head:
 *
 *   out[i]     = x[i] cos[i] - x[i + h] sin[i]
 *   out[i + h] = x[i + h] cos[i] + x[i] sin[i]
 *
 * and the values from `rotary` on as they are. A table row holds what one position needs: h cosines, then h sines, f32.
 */
import {
  add,
  constant,
  type Func,
  f32,
  f32Add,
  f32Multiply,
  f32Subtract,
  loadF32,
  loadI32,
  type Module,
  multiply,
  repeat,
  shiftLeft,
  shiftRight,
  storeF32,
  subtract,
  v,
} from '../wasm/assembler.ts';
import { copyValues, eachRow, line, rowWise, span, storeLine, strideOf } from './loops.ts';
import { recordLayout } from './record.ts';

/**
 * x, out: rows of heads * headDim; rows: address of the row count; positions: i32 for each row; table: address of
 * position 0; tableStride: bytes from a position to the next; heads, headDim, rotary (even).
 */
export const ropeRecord = recordLayout(
  'x',
  'out',
  'rows',
  'positions',
  'table',
  'tableStride',
  'heads',
  'headDim',
  'rotary',
);

/** Exports the step kernel `rope`. */
export function ropeKernel(module: Module): Func {
  const kernel = rowWise(module, 'rope', ropeRecord);
  const { f, first, word } = kernel;
  const [stride, half, head, angles] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
  const [x, xHigh, out, outHigh] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
  const [cos, sin] = [f.local('i32'), f.local('i32')];
  const [low, high] = [line(f), line(f)];
  const rotated = (c: number) => [
    low[c]!.set(
      f32.sub(
        f32.mul(v.load(x.get, c * 16), v.load(cos.get, c * 16)),
        f32.mul(v.load(xHigh.get, c * 16), v.load(sin.get, c * 16)),
      ),
    ),
    high[c]!.set(
      f32.add(
        f32.mul(v.load(xHigh.get, c * 16), v.load(cos.get, c * 16)),
        f32.mul(v.load(x.get, c * 16), v.load(sin.get, c * 16)),
      ),
    ),
  ];
  const product = (value: typeof x, factor: typeof x) => f32Multiply(loadF32(value.get), loadF32(factor.get));
  return f.emit(
    stride.set(strideOf(multiply(word('heads'), word('headDim')))),
    half.set(shiftRight(word('rotary'), constant(1))),
    eachRow(
      kernel,
      x.set(add(word('x'), multiply(first.get, stride.get))),
      out.set(add(word('out'), multiply(first.get, stride.get))),
      angles.set(
        add(
          word('table'),
          multiply(word('tableStride'), loadI32(add(word('positions'), shiftLeft(first.get, constant(2))))),
        ),
      ),
      head.set(constant(0)),
      repeat(
        head,
        1,
        word('heads'),
        xHigh.set(add(x.get, shiftLeft(half.get, constant(2)))),
        outHigh.set(add(out.get, shiftLeft(half.get, constant(2)))),
        cos.set(angles.get),
        sin.set(add(angles.get, shiftLeft(half.get, constant(2)))),
        ...span(
          f,
          half.get,
          [x, xHigh, out, outHigh, cos, sin],
          [...low.flatMap((_, c) => rotated(c)), ...storeLine(out, low), ...storeLine(outHigh, high)],
          [
            storeF32(out.get, f32Subtract(product(x, cos), product(xHigh, sin))),
            storeF32(outHigh.get, f32Add(product(xHigh, cos), product(x, sin))),
          ],
        ),
        // The high pointers have arrived behind the rotated part.
        ...copyValues(f, subtract(word('headDim'), word('rotary')), xHigh, outHigh),
        x.set(xHigh.get),
        out.set(outHigh.get),
      ),
    ),
  );
}
