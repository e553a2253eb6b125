/** Quantization error: how far values are from the expected ones. */

export interface QuantizationError {
  readonly meanSquaredError: number;
  readonly maxAbsoluteError: number;
  /** 10 log10(sum of expected^2 / sum of squared errors), in decibels; infinite when equal. */
  readonly signalToNoise: number;
}

/** Sums over a piece of a tensor, from which the error of the whole is computed. */
export interface ErrorSums {
  readonly count: number;
  readonly signal: number;
  readonly noise: number;
  readonly largest: number;
}

/** @throws RangeError if the lengths differ */
export function errorSums(expected: Float32Array, actual: Float32Array): ErrorSums {
  if (expected.length !== actual.length)
    throw new RangeError(`expected two arrays of one length, got ${expected.length} and ${actual.length} values`);
  let [signal, noise, largest] = [0, 0, 0];
  for (let i = 0; i < expected.length; i++) {
    const error = actual[i]! - expected[i]!;
    signal += expected[i]! ** 2;
    noise += error ** 2;
    largest = Math.max(largest, Math.abs(error));
  }
  return { count: expected.length, signal, noise, largest };
}

/** Accumulates the error over the pieces of a tensor. */
export class ErrorMeter {
  #count = 0;
  #signal = 0;
  #noise = 0;
  #largest = 0;

  add({ count, signal, noise, largest }: ErrorSums): void {
    this.#count += count;
    this.#signal += signal;
    this.#noise += noise;
    this.#largest = Math.max(this.#largest, largest);
  }

  /** The error over all pieces; zero if there were none. */
  get error(): QuantizationError {
    return {
      meanSquaredError: this.#count === 0 ? 0 : this.#noise / this.#count,
      maxAbsoluteError: this.#largest,
      signalToNoise: this.#noise === 0 ? Number.POSITIVE_INFINITY : 10 * Math.log10(this.#signal / this.#noise),
    };
  }
}
