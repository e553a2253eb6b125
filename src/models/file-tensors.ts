/** What a file says of its tensors, and what they may stay as. */
import { weightType } from '../quant/ggml.ts';
import { type Storage, storageLayout } from '../quant/storage.ts';

export interface TensorShape {
  /** As SafeTensors or GGUF spells it: F32, F16, BF16, Q4_K ... */
  readonly dtype: string;
  readonly shape: readonly number[];
  /** Held by the file's values already, where the model adds it to the weight (GGUF has Gemma's 1 + w). */
  readonly plus?: number;
  /** The file has [out, in] where Hugging Face has [in, out]. */
  readonly transposed?: boolean;
}

/** A file that is not in Hugging Face's words. */
export interface ModelOrigin {
  readonly file: string;
  /** Its name of a tensor. */
  nameOf(tensor: string): string;
}

/** In names of matrices that lie in a tensor [stack, in, out]. */
export const STACKED = '\u0000';
export const stackedTensor = (tensor: string, index: number): string => `${tensor}${STACKED}${index}`;

/** What a tensor of the file may stay as, with the reason where that is another type. */
export interface Stored {
  readonly storage: Storage;
  readonly instead?: string;
}

/** Undefined for types that hold no weights. */
export function storedAs(dtype: string): Stored | undefined {
  const name = dtype.toLowerCase();
  if (Object.hasOwn(storageLayout, name)) return { storage: name as Storage };
  if (weightType(name) === undefined) return undefined;
  return { storage: 'q8_0', instead: `no kernel for ${name}; q8_0 is off by 1/254 of a block's largest value at most` };
}
