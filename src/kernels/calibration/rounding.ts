/** Rounding to the codes of each block type, four lanes at a time. */
import { type Func, f32, hoistedConstant, type Local, type V128, v } from '../../wasm/assembler.ts';
import { bitsOf } from '../record.ts';
import type { MakeRounding } from './gather.ts';

const constantOf = (f: Func, value: number): V128 => hoistedConstant(f, bitsOf(value)).get;

/** value = scale * q with q from `least` to `most`; the code is q - least + `first`. */
export const integers =
  (least: number, most: number, first: number): MakeRounding =>
  (f, scale, inverse) => {
    const [low, high, shift] = [least, most, first - least].map((value) => constantOf(f, value)) as [V128, V128, V128];
    const code = (target: V128, c: number): V128 =>
      f32.pmax(f32.pmin(f32.nearest(f32.mul(target, inverse[c]!.get)), high), low);
    return {
      value: (target, c) => f32.mul(code(target, c), scale[c]!.get),
      code: (target, c) => f32.add(code(target, c), shift),
    };
  };

/** value = scale * q - minimum with q from 0 to `most`. */
export const line =
  (most: number): MakeRounding =>
  (f, scale, inverse, minimum) => {
    const [low, high] = [constantOf(f, 0), constantOf(f, most)];
    const code = (target: V128, c: number): V128 =>
      f32.pmax(f32.pmin(f32.nearest(f32.mul(f32.add(target, minimum[c]!.get), inverse[c]!.get)), high), low);
    return { value: (target, c) => f32.sub(f32.mul(code(target, c), scale[c]!.get), minimum[c]!.get), code };
  };

/** value = scale * the nearest of the rising `values`, a power of two of them; the code is its index. */
export const codebook =
  (values: readonly number[]): MakeRounding =>
  (f, scale, inverse) => {
    const middles = values.slice(1).map((value, i) => (value + values[i]!) / 2);
    const depth = Math.log2(values.length);
    const masks = f.array('v128', depth);
    const x = f.local('v128');
    /** Of the middles (or leaves) at `level`, the one that the masks so far lead to. */
    const chosen = (of: (index: number) => V128, level: number, first: number, count: number): V128 => {
      if (level === depth || count === 1) return of(first);
      const half = count / 2;
      return v.bitselect(
        chosen(of, level + 1, first + half, half),
        chosen(of, level + 1, first, half),
        masks[level]!.get,
      );
    };
    /** The middle between both halves of `count` values from `first` on. */
    const middleAt = (level: number): V128 => {
      const pick = (at: number, first: number, count: number): V128 => {
        if (at === level) return f32.splatConstant(middles[first + count / 2 - 1]!);
        const half = count / 2;
        return v.bitselect(pick(at + 1, first + half, half), pick(at + 1, first, half), masks[at]!.get);
      };
      return pick(0, 0, values.length);
    };
    const decide = (target: V128, c: number): V128 => [
      ...x.set(f32.mul(target, inverse[c]!.get)),
      ...masks.flatMap((mask, level) => mask.set(f32.gt(x.get, middleAt(level)))),
    ];
    const leaf = (of: (index: number) => number): V128 =>
      chosen((index) => f32.splatConstant(of(index)), 0, 0, values.length);
    return {
      value: (target, c) => [
        ...decide(target, c),
        ...f32.mul(
          leaf((i) => values[i]!),
          scale[c]!.get,
        ),
      ],
      code: (target, c) => [...decide(target, c), ...leaf((i) => i)],
    };
  };

/** The nearest f16, ties to even, as f32; largest magnitudes are 65504. */
export function nearestF16(f: Func): (value: Local<'v128'>) => V128 {
  const product = f.local('v128');
  const held = (value: number): V128 => constantOf(f, value);
  const [most, least, split, half, smallest] = [65504, -65504, 8193, 0.75, 2 ** -14].map(held) as [
    V128,
    V128,
    V128,
    V128,
    V128,
  ];
  return (value) => [
    ...value.set(f32.pmax(f32.pmin(value.get, most), least)),
    ...product.set(f32.mul(value.get, split)),
    ...v.bitselect(
      f32.sub(f32.add(value.get, half), half),
      f32.sub(product.get, f32.sub(product.get, value.get)),
      f32.lt(f32.abs(value.get), smallest),
    ),
  ];
}
