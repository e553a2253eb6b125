/** How far one array of values is from another. */

export interface QuantizationError {
  readonly meanSquaredError: number;
  readonly maxAbsoluteError: number;
  /** 10 log10(sum of expected^2 / sum of squared errors), in decibels; infinite when equal. */
  readonly signalToNoise: number;
}

/** Adds up errors over pieces of a tensor. */
export class ErrorMeter {
  #count = 0;
  #signal = 0;
  #noise = 0;
  #largest = 0;

  /** @throws RangeError when the lengths differ */
  add(expected: Float32Array, actual: Float32Array): void {
    if (expected.length !== actual.length)
      throw new RangeError(`expected two arrays of one length, got ${expected.length} and ${actual.length} values`);
    for (let i = 0; i < expected.length; i++) {
      const error = actual[i]! - expected[i]!;
      this.#signal += expected[i]! ** 2;
      this.#noise += error ** 2;
      this.#largest = Math.max(this.#largest, Math.abs(error));
    }
    this.#count += expected.length;
  }

  /** Of all pieces; nothing has no error. */
  get error(): QuantizationError {
    return {
      meanSquaredError: this.#count === 0 ? 0 : this.#noise / this.#count,
      maxAbsoluteError: this.#largest,
      signalToNoise: this.#noise === 0 ? Number.POSITIVE_INFINITY : 10 * Math.log10(this.#signal / this.#noise),
    };
  }
}

/** @throws RangeError when the lengths differ or are 0 */
export function quantizationError(expected: Float32Array, actual: Float32Array): QuantizationError {
  if (expected.length === 0) throw new RangeError('expected at least one value');
  const meter = new ErrorMeter();
  meter.add(expected, actual);
  return meter.error;
}
