/** Rotary position embedding: the frequencies of a head, and exact-everywhere angles. Su et al. 2021, arXiv:2104.09864. */

export interface RopeTable {
  readonly name: string;
  /** Values of a head that are rotated, as pairs (i, i + rotary / 2). */
  readonly rotary: number;
  /** Radians per position of each pair, f32. [rotary / 2] */
  readonly frequencies: Float32Array;
  /** Factor on cos and sin (yarn's attention factor), else 1. */
  readonly magnitude: number;
}
