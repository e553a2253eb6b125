/** How far one array of values is from another. */

export interface QuantizationError {
  readonly meanSquaredError: number;
  readonly maxAbsoluteError: number;
  /** 10 log10(sum of expected^2 / sum of squared errors), in decibels; infinite when equal. */
  readonly signalToNoise: number;
}

/** @throws RangeError when the lengths differ or are 0 */
export function quantizationError(expected: Float32Array, actual: Float32Array): QuantizationError {
  if (expected.length !== actual.length || expected.length === 0)
    throw new RangeError(`expected two arrays of one length, got ${expected.length} and ${actual.length} values`);
  let signal = 0;
  let noise = 0;
  let maxAbsoluteError = 0;
  for (let i = 0; i < expected.length; i++) {
    const error = actual[i]! - expected[i]!;
    signal += expected[i]! ** 2;
    noise += error ** 2;
    maxAbsoluteError = Math.max(maxAbsoluteError, Math.abs(error));
  }
  return {
    meanSquaredError: noise / expected.length,
    maxAbsoluteError,
    signalToNoise: noise === 0 ? Number.POSITIVE_INFINITY : 10 * Math.log10(signal / noise),
  };
}
