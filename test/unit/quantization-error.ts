/** The error between two whole arrays. */
import { ErrorMeter, errorSums, type QuantizationError } from '../../src/quant/error.ts';

/** @throws RangeError if the lengths differ */
export function quantizationError(expected: Float32Array, actual: Float32Array): QuantizationError {
  const meter = new ErrorMeter();
  meter.add(errorSums(expected, actual));
  return meter.error;
}
