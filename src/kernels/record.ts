/**
 * The tape: one record of 64 bytes per step, read by the walker and by the step's kernel.
 *
 *   word 0          index of the kernel in the table of step kernels
 *   word 1          flags, see walker.ts
 *   word 2 .. 15    the kernel's arguments: addresses, widths, bits of an f32
 *   word 14         of kernels whose work is claimed: the count, see claims.ts
 *
 * Every kernel family lists its argument names once, in order; emitters and the backend use the names.
 */
import { type I32, type Local, loadI32 } from '../wasm/assembler.ts';

export const RECORD_BYTES = 64;
const HEADER_WORDS = 2;
export const CLAIMS_AT = 56;
const ARGUMENT_WORDS = RECORD_BYTES / 4 - HEADER_WORDS;

export interface RecordLayout<Name extends string> {
  readonly names: readonly Name[];
  /** The argument words, in order, for word 2 and on. Addresses are unsigned, everything else as `| 0`. */
  words(values: Readonly<Record<Name, number>>): Int32Array;
  /** Byte offset of the argument `name` in a record. */
  offset(name: Name): number;
  /** The argument `name` of the record at `record`. */
  load(record: Local<'i32'>, name: Name): I32;
}

export function recordLayout<const Name extends string>(...names: readonly Name[]): RecordLayout<Name> {
  if (names.length > ARGUMENT_WORDS)
    throw new RangeError(`${names.length} arguments; a record holds ${ARGUMENT_WORDS}`);
  return {
    names,
    words(values) {
      const words = new Int32Array(names.length);
      for (let i = 0; i < words.length; i++) words[i] = values[names[i]!] | 0;
      return words;
    },
    offset: (name) => 4 * (HEADER_WORDS + names.indexOf(name)),
    load: (record, name) => loadI32(record.get, 4 * (HEADER_WORDS + names.indexOf(name))),
  };
}

const cell = new Float32Array(1);
const bits = new Int32Array(cell.buffer);

/** The bits of a number rounded to f32, as records and constants hold it. */
export function bitsOf(value: number): number {
  cell[0] = value;
  return bits[0]!;
}
