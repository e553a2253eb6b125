/** Where a matrix lies in its tensor. */
import type { WeightSource } from '../plan/step.ts';

export interface MatrixOptions {
  /** The file has [in, out]. */
  readonly transposed?: boolean;
  readonly slice?: Slice;
  /** The tensor has so many matrices one behind the other [stack, out, in], of which this is one. */
  readonly stack?: { readonly count: number; readonly index: number };
}

/** The weight is rows `first` and on of a tensor with `of` rows: neighbours, or runs (see WeightSource). */
export interface Slice extends Pick<WeightSource, 'first' | 'runs'> {
  readonly of: number;
}

/** A tensor that holds several linear layers. */
export interface Fused<Name extends string> extends Pick<MatrixOptions, 'transposed'> {
  readonly inputs: number;
  readonly bias: boolean;
  /** Rows of each layer, in the tensor's order. */
  readonly rows: Readonly<Record<Name, number>>;
  /** The tensor has so many parts (heads), each with its share of every layer's rows; default 1. */
  readonly parts?: number;
}
