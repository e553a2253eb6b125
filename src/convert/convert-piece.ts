/** Converts a piece of a tensor from one type to another; runs on every thread of a conversion. */
import { type ErrorSums, errorSums } from '../quant/error.ts';
import { type WeightTypeName, weightTypes } from '../quant/ggml.ts';

/** Types that tensors can be converted to. */
export type WritableType = 'f32' | 'f16' | 'bf16' | 'q8_0' | 'q4_0' | 'iq4_nl' | 'q4_k' | 'q5_k' | 'q6_k';

export interface Piece {
  readonly from: WeightTypeName;
  readonly to: WritableType;
  /** Whole rows. */
  readonly bytes: Uint8Array;
  /** Added to every value. */
  readonly plus: number;
  readonly metrics: boolean;
}

export interface ConvertedPiece {
  readonly bytes: Uint8Array;
  /** Number of values of the piece. */
  readonly count: number;
  /** The first NaN or infinity, if any; `bytes` is empty then. */
  readonly notFinite?: { readonly at: number; readonly value: number };
  readonly error?: ErrorSums;
}

export function convertPiece({ from, to, bytes, plus, metrics }: Piece): ConvertedPiece {
  const read = weightTypes[from].dequantize(bytes);
  const values = plus === 0 ? read : read.map((value) => value + plus);
  const at = values.findIndex((value) => !Number.isFinite(value));
  if (at >= 0) return { bytes: new Uint8Array(0), count: values.length, notFinite: { at, value: values[at]! } };
  const { quantize, dequantize } = weightTypes[to];
  // All writable types have `quantize`.
  const out = quantize!(values);
  return { bytes: out, count: values.length, error: metrics ? errorSums(values, dequantize(out)) : undefined };
}
