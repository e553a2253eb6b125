/** How a matrix is taken from a tensor. */
import type { WeightSource } from '../plan/step.ts';

export interface MatrixOptions {
  /** Whether the file has [in, out]. */
  readonly transposed?: boolean;
  readonly slice?: Slice;
  /** Index of the matrix in a tensor of `count` matrices [stack, out, in]. */
  readonly stack?: { readonly count: number; readonly index: number };
}

/** Rows of a tensor with `of` rows: consecutive from `first` on, or in runs (see WeightSource). */
export interface Slice extends Pick<WeightSource, 'first' | 'runs'> {
  readonly of: number;
}

/** A tensor with several linear layers. */
export interface Fused<Name extends string> extends Pick<MatrixOptions, 'transposed'> {
  readonly inputs: number;
  readonly bias: boolean;
  /** Number of rows of each layer, in the order of the tensor. */
  readonly rows: Readonly<Record<Name, number>>;
  /** Number of parts (heads) of the tensor; each has an equal share of every layer's rows. Default 1. */
  readonly parts?: number;
}
