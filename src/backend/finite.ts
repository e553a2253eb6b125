/** What weights must not hold, the same for every backend: NaN, infinities, values too large for their storage. */
import { ModelError } from '../errors.ts';
import { dequantize, quantize } from '../quant/codec.ts';
import { type FloatStorage, type Storage, storageLayout } from '../quant/storage.ts';

/**
 * Error for a tensor that holds NaN, an infinity, or a value its storage type cannot represent.
 * @param place file and name of the tensor @param values of the tensor, as numbers
 */
export function notFinite(place: string, values: Float32Array, storage: Storage): ModelError {
  const value = values.find((x) => !Number.isFinite(x)) ?? values.find((x) => !staysFinite(x, storage));
  const what =
    value === undefined || Number.isFinite(value)
      ? `expected values that ${storage} can hold, found ${value ?? 'larger ones'}: store it as another type`
      : `expected finite values, found ${value}: get the file again`;
  return new ModelError('NotFinite', `${place}: ${what}`);
}

/** @throws ModelError NotFinite */
export function checkFinite(place: string, values: Float32Array, storage: Storage): void {
  if (!values.every(Number.isFinite)) throw notFinite(place, values, storage);
}

/** Smallest bit pattern that is non-finite or overflows when stored; every larger one does too. */
export function finiteLimit(type: FloatStorage, storage: Storage): number {
  let [fits, limit] = [0, { f32: 0x7f800000, f16: 0x7c00, bf16: 0x7f80 }[type]];
  while (limit - fits > 1) {
    const middle = Math.floor((fits + limit) / 2);
    if (staysFinite(numberOf(type, middle), storage)) fits = middle;
    else limit = middle;
  }
  return limit;
}

/** Whether a block in which every value equals `value` is finite when stored. */
const staysFinite = (value: number, storage: Storage): boolean =>
  dequantize(storage, quantize(storage, new Float32Array(storageLayout[storage].block).fill(value))).every(
    Number.isFinite,
  );

function numberOf(type: FloatStorage, bits: number): number {
  const bytes = type === 'f32' ? Uint32Array.of(bits) : Uint16Array.of(bits);
  return dequantize(type, new Uint8Array(bytes.buffer))[0]!;
}
