/** Vector loads that widen f16 and bf16 to f32, and rounding back, as in src/quant. */
import type { FloatStorage } from '../quant/storage.ts';
import { type Func, f32, hoistedConstant, type I32, i16, i32, type V128, v } from '../wasm/assembler.ts';

/** Bytes per value. */
export const sourceBytes: Readonly<Record<FloatStorage, number>> = { f32: 4, f16: 2, bf16: 2 };

/** Loads the values `index .. index + 3` that follow an address, as f32. */
export type WidenedLoad = (address: I32, index: number) => V128;

/** Exact for every value, including infinities and NaN. Constants and temporaries are locals of `f`. */
export function widenedLoad(f: Func, type: FloatStorage): WidenedLoad {
  if (type === 'f32') return (address, index) => v.load(address, 4 * index);
  if (type === 'bf16') return (address, index) => i32.shl(v.load16x4u(address, 2 * index), 16);
  const [signMask, magnitudeMask, rebias] = [-0x80000000, 0x0fffe000, 112 << 23].map((c) => hoistedConstant(f, c).get);
  const [smallest, largestSubnormal] = [0x38800000, 0x007fffff].map((c) => hoistedConstant(f, c).get);
  const [largest, infinity] = [0x0f7fffff, 0x7f800000].map((c) => hoistedConstant(f, c).get);
  const [x, m] = [f.local('v128'), f.local('v128')];
  // A subnormal's mantissa with the exponent of 2^-14 in f32 is too large by 2^-14.
  const subnormal = f32.sub(v.or(m.get, smallest!), smallest!);
  const normal = v.or(i32.add(m.get, rebias!), v.and(i32.gtS(m.get, largest!), infinity!));
  return (address, index) => [
    ...x.set(i32.shl(v.load16x4s(address, 2 * index), 13)),
    ...m.set(v.and(x.get, magnitudeMask!)),
    ...v.or(v.bitselect(normal, subnormal, i32.gtS(m.get, largestSubnormal!)), v.and(x.get, signMask!)),
  ];
}

/** Rounds four f32 to the 16 bits of another type, ties to even: the low halves of i32 lanes. */
export type Rounding = (value: V128) => V128;

/** `toF16` of src/quant/f16.ts. */
export function roundToF16(f: Func): Rounding {
  const [magnitudeMask, one, nan] = [0x7fffffff, 1, 0x200].map((c) => hoistedConstant(f, c).get);
  const [rebias, infinity] = [0xfff - (112 << 23), 0x7c00].map((c) => hoistedConstant(f, c).get);
  const [half, largestSubnormal] = [0x3f000000, 0x387fffff].map((c) => hoistedConstant(f, c).get);
  const [x, m] = [f.local('v128'), f.local('v128')];
  const odd = v.and(i32.shrU(m.get, 13), one!);
  const rounded = i32.shrU(i32.add(i32.add(m.get, odd), rebias!), 13);
  const normal = v.or(i32.minS(rounded, infinity!), v.and(f32.ne(x.get, x.get), nan!));
  const subnormal = i32.sub(f32.add(m.get, half!), half!);
  return (value) => [
    ...x.set(value),
    ...m.set(v.and(x.get, magnitudeMask!)),
    ...v.or(v.bitselect(normal, subnormal, i32.gtS(m.get, largestSubnormal!)), i32.shrU(v.xor(x.get, m.get), 16)),
  ];
}

/** `toBF16` of src/quant/bf16.ts. */
export function roundToBF16(f: Func): Rounding {
  const [one, half, quiet] = [1, 0x7fff, 0x40].map((c) => hoistedConstant(f, c).get);
  const [x, upper] = [f.local('v128'), f.local('v128')];
  const rounded = i32.shrU(i32.add(i32.add(x.get, v.and(upper.get, one!)), half!), 16);
  return (value) => [
    ...x.set(value),
    ...upper.set(i32.shrU(x.get, 16)),
    ...v.bitselect(v.or(upper.get, quiet!), rounded, f32.ne(x.get, x.get)),
  ];
}

/** Loads 16 bytes of stored values from those at `index` and on: 4 values of f32, 8 of f16 and bf16. */
export function convertedLoad(f: Func, type: FloatStorage, target: FloatStorage): WidenedLoad {
  if (type === target) return (address, index) => v.load(address, sourceBytes[type] * index);
  const widened = widenedLoad(f, type);
  if (target === 'f32') return widened;
  const round = target === 'f16' ? roundToF16(f) : roundToBF16(f);
  return (address, index) => i16.narrowI32u(round(widened(address, index)), round(widened(address, index + 4)));
}
