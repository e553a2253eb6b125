/** Quantizes and dequantizes by the name of a storage type. Blocks are in the order of the file. */
import { type WeightTypeName, weightTypes } from './ggml.ts';
import type { Storage } from './storage.ts';

/** @param values one or more rows, each a whole number of blocks */
export const quantize = (storage: Storage, values: Float32Array): Uint8Array => weightTypes[storage].quantize!(values);

/** @param bytes whole blocks, in the file's order */
export const dequantize = (type: WeightTypeName, bytes: Uint8Array): Float32Array =>
  weightTypes[type].dequantize(bytes);
