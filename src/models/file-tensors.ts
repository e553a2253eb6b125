/** Types of a file's tensors, and the storage types that they are loaded as. */
import { weightType } from '../quant/ggml.ts';
import { type Storage, storageLayout } from '../quant/storage.ts';

export interface TensorShape {
  /** Type as SafeTensors or GGUF spells it: F32, F16, BF16, Q4_K ... */
  readonly dtype: string;
  readonly shape: readonly number[];
  /** Constant that the file's values include but Hugging Face's do not (GGUF stores Gemma's norms as 1 + w). */
  readonly plus?: number;
  /** Whether the file has [out, in] where Hugging Face has [in, out]. */
  readonly transposed?: boolean;
}

/** A file whose tensors have other names than Hugging Face's, for messages. */
export interface ModelOrigin {
  readonly file: string;
  /** The file's name of a tensor. */
  nameOf(tensor: string): string;
}

/** Separates name and index in the names of matrices that lie in a tensor [stack, in, out]. */
export const STACKED = '\u0000';
export const stackedTensor = (tensor: string, index: number): string => `${tensor}${STACKED}${index}`;

/**
 * The storage type of a tensor that is not quantized; `instead` is the reason if it is another type than the file's.
 */
export interface Stored {
  readonly storage: Storage;
  readonly instead?: string;
}

/** Undefined for types that cannot hold weights. */
export function storedAs(dtype: string): Stored | undefined {
  const name = dtype.toLowerCase();
  if (Object.hasOwn(storageLayout, name)) return { storage: name as Storage };
  if (weightType(name) === undefined) return undefined;
  return {
    storage: 'q8_0',
    instead: `no kernel for ${name}; q8_0 adds an error of at most 1/254 of a block's largest value`,
  };
}
