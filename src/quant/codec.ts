/** Storage formats by name: values to bytes in the file's order of blocks, and back. */
import { dequantizeBF16, quantizeBF16 } from './bf16.ts';
import { dequantizeF16, quantizeF16 } from './f16.ts';
import { dequantizeQ4_0, quantizeQ4_0 } from './q4_0.ts';
import { dequantizeQ8_0, quantizeQ8_0 } from './q8_0.ts';
import type { Storage } from './storage.ts';

interface Codec {
  quantize(values: Float32Array): Uint8Array;
  dequantize(bytes: Uint8Array): Float32Array;
}

const codecs: Readonly<Record<Storage, Codec>> = {
  f32: {
    quantize: (values) => new Uint8Array(values.slice().buffer),
    dequantize: (bytes) => new Float32Array(bytes.slice().buffer),
  },
  f16: { quantize: quantizeF16, dequantize: dequantizeF16 },
  bf16: { quantize: quantizeBF16, dequantize: dequantizeBF16 },
  q8_0: { quantize: quantizeQ8_0, dequantize: dequantizeQ8_0 },
  q4_0: { quantize: quantizeQ4_0, dequantize: dequantizeQ4_0 },
};

/** @param values one or more rows, each a whole number of blocks */
export const quantize = (storage: Storage, values: Float32Array): Uint8Array => codecs[storage].quantize(values);

/** @param bytes whole blocks, in the file's order */
export const dequantize = (storage: Storage, bytes: Uint8Array): Float32Array => codecs[storage].dequantize(bytes);
