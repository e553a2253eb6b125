/** Reads the fields of a protocol buffer message. Every length is checked against the bytes that are left. */
import { TokenizerError } from '../errors.ts';

export type ProtobufField =
  /** Lower 32 bits, signed; larger values are not used here. */
  | { readonly number: number; readonly wire: 'varint'; readonly value: number }
  | { readonly number: number; readonly wire: 'bytes'; readonly value: Uint8Array }
  | { readonly number: number; readonly wire: 'fixed32'; readonly value: DataView }
  | { readonly number: number; readonly wire: 'fixed64'; readonly value: DataView };

const LONGEST_VARINT = 10;

/**
 * @param where named in errors
 * @throws TokenizerError
 */
export function* protobufFields(bytes: Uint8Array, where: string): Generator<ProtobufField> {
  let at = 0;
  const fail = (what: string): never => {
    throw new TokenizerError(where, `${what} at byte ${at}: not a protocol buffer, or cut off`);
  };
  const varint = (): { low: number; high: number } => {
    let [low, high] = [0, 0];
    for (let i = 0; i < LONGEST_VARINT; i++) {
      const byte = bytes[at++] ?? fail('unexpected end');
      if (i < 4) low |= (byte & 0x7f) << (7 * i);
      else if (i === 4) {
        low |= (byte & 0x0f) << 28;
        high = (byte & 0x7f) >> 4;
      } else high |= byte & 0x7f;
      if (byte < 0x80) return { low, high };
    }
    return fail('a number that does not end');
  };
  const take = (length: number): Uint8Array => {
    if (length > bytes.length - at) fail(`expected ${length} more bytes, found ${bytes.length - at}`);
    at += length;
    return bytes.subarray(at - length, at);
  };
  const view = (length: number): DataView => {
    const taken = take(length);
    return new DataView(taken.buffer, taken.byteOffset, length);
  };
  while (at < bytes.length) {
    const { low, high } = varint();
    const number = low >>> 3;
    if (high !== 0 || number === 0) fail('expected a field');
    switch (low & 7) {
      case 0:
        yield { number, wire: 'varint', value: varint().low };
        break;
      case 1:
        yield { number, wire: 'fixed64', value: view(8) };
        break;
      case 2: {
        const length = varint();
        if (length.high !== 0) fail('a length beyond 4 GB');
        yield { number, wire: 'bytes', value: take(length.low >>> 0) };
        break;
      }
      case 5:
        yield { number, wire: 'fixed32', value: view(4) };
        break;
      default:
        fail(`unknown kind of field ${low & 7}`);
    }
  }
}
