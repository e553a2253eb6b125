/** The arithmetic of src/quant/q8_0.ts and q4_0.ts on four values, or on the scales of four blocks, at once. */
import {
  type Func,
  f32,
  hoistedConstant,
  i8,
  i16,
  type Local,
  type Statement,
  type V128,
  v,
} from '../wasm/assembler.ts';
import { roundToF16 } from './convert.ts';
import type { Q8Layout } from './layout.ts';
import { bitsOf } from './record.ts';

/** How blocks are stored; `q8` matters to q8_0 only. */
export interface BlockTarget {
  readonly storage: 'q8_0' | 'q4_0';
  readonly q8: Q8Layout;
}

export interface Quantizer {
  /** From the largest magnitudes of four blocks (q4_0: with their signs) to `half` and `inverse`. */
  scales(extremes: V128): readonly Statement[];
  /** The f16 scales, in i32 lanes. */
  readonly half: Local<'v128'>;
  /** What values are multiplied by. */
  readonly inverse: Local<'v128'>;
  /** One code per i32 lane, 0 .. 255. q8_0: flipped if the layout wants that; q4_0: 0 .. 16, where 16 stands for 15. */
  codes(values: V128, inverse: V128): V128;
}

export function quantizer(f: Func, { storage, q8 }: BlockTarget): Quantizer {
  const held = (value: number): V128 => hoistedConstant(f, bitsOf(value)).get;
  const round = roundToF16(f);
  const [half, inverse, product] = [f.local('v128'), f.local('v128'), f.local('v128')];
  const [one, low] = [held(1), hoistedConstant(f, 0xff).get];
  // 1.5 * 2^23 + n has n in its lowest byte. Infinities and NaN have 0 there.
  const magic = held(1.5 * 2 ** 23 + (storage === 'q8_0' ? q8.flip : 0));
  const integer = (value: V128): V128 => v.and(f32.add(f32.trunc(value), magic), low);
  if (storage === 'q8_0') {
    const [largest, infinity, sign, belowHalf] = [held(127), held(Infinity), held(-0), held(0.5 - 2 ** -25)];
    return {
      half,
      inverse,
      scales: (extremes) => [
        product.set(f32.div(extremes, largest)),
        half.set(round(product.get)),
        inverse.set(f32.div(one, product.get)),
        inverse.set(v.and(inverse.get, f32.lt(inverse.get, infinity))),
      ],
      // Adding the f32 below 1/2 and truncating rounds halves away from zero.
      codes: (values, by) => [
        ...product.set(f32.mul(values, by)),
        ...integer(f32.add(product.get, v.or(v.and(product.get, sign), belowHalf))),
      ],
    };
  }
  const [lowest, offset, zero] = [held(-8), held(8.5), held(0)];
  return {
    half,
    inverse,
    scales: (extremes) => [
      product.set(f32.div(extremes, lowest)),
      half.set(round(product.get)),
      inverse.set(v.and(f32.div(one, product.get), f32.ne(product.get, zero))),
    ],
    codes: (values, by) => integer(f32.add(f32.mul(values, by), offset)),
  };
}

/** low | high << 4 of codes of q4_0, byte by byte. */
export function nibbles(f: Func): (low: V128, high: V128) => V128 {
  const most = hoistedConstant(f, 0x0f0f0f0f).get;
  return (low, high) => v.or(i8.minU(low, most), i16.shl(i8.minU(high, most), 4));
}
