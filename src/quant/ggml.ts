/** The tensor types of ggml that hold weights, by lower-case name: block sizes, dequantization and quantization. */
import { dequantizeBF16, quantizeBF16 } from './bf16.ts';
import type { BlockLayout } from './blocks.ts';
import { dequantizeF16, quantizeF16 } from './f16.ts';
import * as fourBit from './four-bit.ts';
import * as iq from './iq.ts';
import { dequantizeIQ4_NL, quantizeIQ4_NL } from './iq4_nl.ts';
import * as lowK from './k-low.ts';
import * as legacy from './legacy.ts';
import { dequantizeQ4_0, quantizeQ4_0 } from './q4_0.ts';
import * as q4_k from './q4_k.ts';
import * as q6_k from './q6_k.ts';
import { dequantizeQ8_0, quantizeQ8_0 } from './q8_0.ts';
import { storageLayout } from './storage.ts';
import * as ternary from './ternary.ts';

export interface WeightType extends BlockLayout {
  /** Type number in GGUF files. */
  readonly id: number;
  /** @param bytes whole blocks, in the order of the file */
  dequantize(bytes: Uint8Array): Float32Array;
  /** @param values one or more rows, each a whole number of blocks */
  quantize?(values: Float32Array): Uint8Array;
}

const type = (
  id: number,
  { block, bytes }: BlockLayout,
  dequantize: WeightType['dequantize'],
  quantize?: WeightType['quantize'],
): WeightType => ({ id, block, bytes, dequantize, quantize });

export const weightTypes = {
  f32: type(
    0,
    storageLayout.f32,
    (bytes) => new Float32Array(bytes.slice().buffer),
    (values) => new Uint8Array(values.slice().buffer),
  ),
  f16: type(1, storageLayout.f16, dequantizeF16, quantizeF16),
  q4_0: type(2, storageLayout.q4_0, dequantizeQ4_0, quantizeQ4_0),
  q4_1: type(3, legacy.q4_1Layout, legacy.dequantizeQ4_1, legacy.quantizeQ4_1),
  q5_0: type(6, legacy.q5_0Layout, legacy.dequantizeQ5_0, legacy.quantizeQ5_0),
  q5_1: type(7, legacy.q5_1Layout, legacy.dequantizeQ5_1, legacy.quantizeQ5_1),
  q8_0: type(8, storageLayout.q8_0, dequantizeQ8_0, quantizeQ8_0),
  q2_k: type(10, lowK.q2_kLayout, lowK.dequantizeQ2_K),
  q3_k: type(11, lowK.q3_kLayout, lowK.dequantizeQ3_K),
  q4_k: type(12, q4_k.q4_kLayout, q4_k.dequantizeQ4_K, q4_k.quantizeQ4_K),
  q5_k: type(13, q4_k.q5_kLayout, q4_k.dequantizeQ5_K, q4_k.quantizeQ5_K),
  q6_k: type(14, q6_k.q6_kLayout, q6_k.dequantizeQ6_K, q6_k.quantizeQ6_K),
  q8_k: type(15, lowK.q8_kLayout, lowK.dequantizeQ8_K),
  iq2_xxs: type(16, iq.iq2_xxsLayout, iq.dequantizeIQ2_XXS),
  iq2_xs: type(17, iq.iq2_xsLayout, iq.dequantizeIQ2_XS),
  iq3_xxs: type(18, iq.iq3_xxsLayout, iq.dequantizeIQ3_XXS),
  iq1_s: type(19, iq.iq1_sLayout, iq.dequantizeIQ1_S),
  iq4_nl: type(20, storageLayout.iq4_nl, dequantizeIQ4_NL, quantizeIQ4_NL),
  iq3_s: type(21, iq.iq3_sLayout, iq.dequantizeIQ3_S),
  iq2_s: type(22, iq.iq2_sLayout, iq.dequantizeIQ2_S),
  iq4_xs: type(23, fourBit.iq4_xsLayout, fourBit.dequantizeIQ4_XS),
  iq1_m: type(29, iq.iq1_mLayout, iq.dequantizeIQ1_M),
  bf16: type(30, storageLayout.bf16, dequantizeBF16, quantizeBF16),
  tq1_0: type(34, ternary.tq1_0Layout, ternary.dequantizeTQ1_0),
  tq2_0: type(35, ternary.tq2_0Layout, ternary.dequantizeTQ2_0),
  mxfp4: type(39, fourBit.mxfp4Layout, fourBit.dequantizeMXFP4),
  nvfp4: type(40, fourBit.nvfp4Layout, fourBit.dequantizeNVFP4),
} as const satisfies Readonly<Record<string, WeightType>>;

export type WeightTypeName = keyof typeof weightTypes;

/** The type of a name in upper or lower case; undefined if it is none that holds weights. */
export function weightType(name: string): WeightType | undefined {
  const key = name.toLowerCase();
  return Object.hasOwn(weightTypes, key) ? weightTypes[key as WeightTypeName] : undefined;
}
