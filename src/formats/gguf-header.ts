/**
 * Reads the header of one GGUF file: magic, version, counts, metadata, tensor infos. Every length and count is compared
 * with the bytes that the file still has before memory is allocated for it.
 */
import type { FormatErrorCode } from '../error-codes.ts';
import { FormatError } from '../errors.ts';
import type { ByteSource } from './bytes.ts';
import {
  type GgmlType,
  type GgufNumbers,
  type GgufNumberType,
  type GgufValue,
  type GgufValueType,
  ggmlBytes,
  ggmlTypeOf,
  ggmlTypes,
  valueBytes,
  valueTypes,
} from './gguf-types.ts';
import { decodeText, decodeTexts } from './texts.ts';

/** Longest header accepted, in bytes. A vocabulary of 262144 tokens with merges has about 30 MB. */
export const GGUF_HEADER_LIMIT = 256 * 2 ** 20;
/** Most metadata keys and most tensors of one file. */
export const GGUF_COUNT_LIMIT = 2 ** 20;
export const DEFAULT_ALIGNMENT = 32;
/** Longest tensor name in llama.cpp, in bytes. */
export const NAME_LIMIT = 63;
const MAGIC = 0x46554747;
const MOST_DIMENSIONS = 4;
const FIRST_READ = 2 ** 20;
/** Fewest bytes of a tensor info: name length, number of dimensions, type and offset. */
const LEAST_TENSOR = 24;
/** Fewest bytes of a metadata entry: a key of one byte with a value of one byte. */
const LEAST_ENTRY = 14;

/** Type, shape and byte range of a tensor in a GGUF file. */
export interface GgufTensorInfo {
  readonly name: string;
  readonly dtype: GgmlType;
  /** Outermost dimension first, so the last is the row length. The file has the opposite order. */
  readonly shape: readonly number[];
  readonly byteLength: number;
  /** Byte position in the file. */
  readonly offset: number;
}

export interface GgufHeader {
  readonly version: number;
  /** In the order of the file. */
  readonly metadata: ReadonlyMap<string, GgufValue>;
  /** In the order of the data. */
  readonly tensors: ReadonlyMap<string, GgufTensorInfo>;
}

/** Thrown when an item needs more bytes of the file than are in memory. */
class Short {
  /** Bytes needed from the cursor on. */
  readonly wanted: number;
  constructor(wanted: number) {
    this.wanted = wanted;
  }
}

/**
 * A cursor over the header, which is read in growing pieces. Its methods throw `Short` when the bytes in memory end before
 * the file does: `repeat` then reads more and starts the item again.
 */
class Cursor {
  readonly #source: ByteSource;
  #bytes = new Uint8Array(0);
  #view = new DataView(this.#bytes.buffer);
  /** File position of the first byte in memory. */
  #base = 0;
  #position = 0;

  constructor(source: ByteSource) {
    this.#source = source;
  }

  /** File position of the cursor. */
  get offset(): number {
    return this.#base + this.#position;
  }

  get remaining(): number {
    return this.#source.byteLength - this.offset;
  }

  fail(code: FormatErrorCode, what: string, key?: string, offset = this.offset): never {
    throw new FormatError(code, this.#source.name, what, { offset, key });
  }

  /** Calls `item` `count` times. */
  async repeat(count: number, item: () => void): Promise<void> {
    for (let done = 0; done < count; ) {
      const start = this.#position;
      try {
        item();
        done++;
      } catch (error) {
        if (!(error instanceof Short)) throw error;
        const missing = this.#position - start + error.wanted;
        this.#position = start;
        await this.#grow(missing);
      }
    }
  }

  /** Reads more of the file, so that at least `wanted` bytes from the cursor on are in memory. */
  async #grow(wanted: number): Promise<void> {
    const kept = this.#bytes.subarray(this.#position);
    const length = Math.min(Math.max(FIRST_READ, 2 * kept.length, wanted), this.remaining);
    const bytes = new Uint8Array(length);
    bytes.set(kept);
    const start = this.offset;
    await this.#source.readInto(start + kept.length, bytes.subarray(kept.length));
    [this.#bytes, this.#view, this.#base, this.#position] = [bytes, new DataView(bytes.buffer), start, 0];
  }

  /** Moves the cursor past the next `count` bytes and returns their position in memory. */
  #take(count: number, what: string, key?: string): number {
    if (count > this.remaining) {
      const found = `the file ends after ${this.remaining} bytes: it is cut off`;
      this.fail('IncompleteHeader', `expected ${count} bytes for ${what}, ${found}`, key);
    }
    if (this.offset + count > GGUF_HEADER_LIMIT) {
      this.fail('HeaderTooLarge', `expected a header of at most ${GGUF_HEADER_LIMIT} bytes`, key);
    }
    const at = this.#position;
    if (at + count > this.#bytes.length) throw new Short(count);
    this.#position += count;
    return at;
  }

  u32(what: string, key?: string): number {
    return this.#view.getUint32(this.#take(4, what, key), true);
  }

  /** Rounded to a double beyond 2^53. */
  u64(what: string, key?: string): number {
    const at = this.#take(8, what, key);
    return this.#view.getUint32(at, true) + this.#view.getUint32(at + 4, true) * 2 ** 32;
  }

  /** A count of items of at least `least` bytes each. Fails if the rest of the file cannot hold them. */
  count(what: string, least: number, key?: string): number {
    const at = this.offset;
    const count = this.u64(what, key);
    if (count * least > this.remaining) {
      const found = `${count} need at least ${count * least} bytes, the file has ${this.remaining} left`;
      this.fail('InvalidLength', `${what}: ${found}`, key, at);
    }
    return count;
  }

  string(what: string, key?: string): string {
    const length = this.count(`length of ${what}`, 1, key);
    const at = this.#take(length, what, key);
    const text = decodeText(this.#bytes.subarray(at, at + length));
    return text ?? this.fail('InvalidUtf8', `${what} is not valid UTF-8`, key, this.offset - length);
  }

  /** Reads `count` consecutive texts. */
  strings(count: number, what: string, key: string): string[] {
    const [starts, ends] = [new Uint32Array(count), new Uint32Array(count)];
    for (let i = 0; i < count; i++) {
      const length = this.count(`length of ${what}`, 1, key);
      starts[i] = this.#take(length, what, key);
      ends[i] = this.#position;
    }
    const texts = decodeTexts(this.#bytes, starts, ends);
    if (texts) return texts;
    const bad = starts.findIndex((start, i) => decodeText(this.#bytes.subarray(start, ends[i])) === undefined);
    return this.fail('InvalidUtf8', `${what} is not valid UTF-8`, key, this.#base + starts[bad]!);
  }

  number(type: GgufNumberType, key: string): number | bigint {
    const at = this.#take(valueBytes[type], 'a value', key);
    const view = this.#view;
    switch (type) {
      case 'uint8':
        return view.getUint8(at);
      case 'int8':
        return view.getInt8(at);
      case 'uint16':
        return view.getUint16(at, true);
      case 'int16':
        return view.getInt16(at, true);
      case 'uint32':
        return view.getUint32(at, true);
      case 'int32':
        return view.getInt32(at, true);
      case 'float32':
        return view.getFloat32(at, true);
      case 'float64':
        return view.getFloat64(at, true);
      case 'uint64':
        return safely(view.getBigUint64(at, true));
      case 'int64':
        return safely(view.getBigInt64(at, true));
    }
  }

  numbers(type: GgufNumberType, count: number, key: string): GgufNumbers {
    const length = count * valueBytes[type];
    const at = this.#take(length, 'an array', key);
    return new numberArrays[type](this.#bytes.slice(at, at + length).buffer);
  }

  bool(key: string): boolean {
    const byte = this.#bytes[this.#take(1, 'a value', key)]!;
    if (byte > 1) this.fail('InvalidBool', `expected the byte 0 or 1 for a bool, found ${byte}`, key, this.offset - 1);
    return byte === 1;
  }
}

const safely = (value: bigint): number | bigint =>
  value >= -(2n ** 53n) && value <= 2n ** 53n ? Number(value) : value;

/** Typed arrays for the numbers of a file, which is little-endian like every machine that runs WebAssembly. */
const numberArrays = {
  uint8: Uint8Array,
  int8: Int8Array,
  uint16: Uint16Array,
  int16: Int16Array,
  uint32: Uint32Array,
  int32: Int32Array,
  float32: Float32Array,
  uint64: BigUint64Array,
  int64: BigInt64Array,
  float64: Float64Array,
} as const;

/**
 * Reads and checks the header, no tensor data.
 * @throws FormatError NotGguf, UnsupportedVersion, IncompleteHeader, HeaderTooLarge, TooMany, InvalidLength, InvalidUtf8,
 * EmptyName, DuplicateKey, UnknownValueType, NestedArray, InvalidBool, InvalidAlignment, NameTooLong, DuplicateTensor,
 * InvalidShape, Overflow, UnsupportedType, BadRow, InvalidOffset, OutOfFile
 */
export async function readGgufHeader(source: ByteSource): Promise<GgufHeader> {
  const cursor = new Cursor(source);
  let [version, tensorCount, keyCount] = [0, 0, 0];
  await cursor.repeat(1, () => {
    const magic = cursor.u32('the magic number');
    if (magic !== MAGIC) {
      const found = magic.toString(16).padStart(8, '0').match(/../g)!.reverse().join(' ');
      cursor.fail('NotGguf', `expected the letters GGUF, found the bytes ${found}: not a GGUF file`, undefined, 0);
    }
    version = readVersion(cursor);
    tensorCount = cursor.count('number of tensors', LEAST_TENSOR);
    keyCount = cursor.count('number of metadata keys', LEAST_ENTRY);
    for (const [what, count] of [
      ['tensors', tensorCount],
      ['metadata keys', keyCount],
    ] as const) {
      if (count > GGUF_COUNT_LIMIT)
        cursor.fail('TooMany', `expected at most ${GGUF_COUNT_LIMIT} ${what}, found ${count}`);
    }
  });
  const metadata = new Map<string, GgufValue>();
  await cursor.repeat(keyCount, () => readEntry(cursor, metadata));
  const alignment = alignmentOf(metadata, cursor);
  const entries: Entry[] = [];
  const names = new Set<string>();
  await cursor.repeat(tensorCount, () => {
    entries.push(readTensor(cursor, names));
    names.add(entries.at(-1)!.name);
  });
  return { version, metadata, tensors: layOut(cursor, entries, alignment, source.byteLength) };
}

function readVersion(cursor: Cursor): number {
  const version = cursor.u32('the version');
  if (version === 2 || version === 3) return version;
  const at = cursor.offset - 4;
  if (version !== 0 && version % 2 ** 24 === 0) {
    const what = 'the file is big-endian; expected a little-endian one: convert it with gguf_convert_endian';
    return cursor.fail('UnsupportedVersion', what, undefined, at);
  }
  const advice = version === 1 ? ': version 1 has 32-bit lengths, convert the model again' : '';
  return cursor.fail('UnsupportedVersion', `expected GGUF version 2 or 3, found ${version}${advice}`, undefined, at);
}

function readEntry(cursor: Cursor, metadata: Map<string, GgufValue>): void {
  const at = cursor.offset;
  const key = cursor.string('a key');
  if (key === '') cursor.fail('EmptyName', 'expected a key of at least one byte', undefined, at);
  if (metadata.has(key)) cursor.fail('DuplicateKey', 'the key occurs twice in the file', key, at);
  const type = readValueType(cursor, key);
  metadata.set(key, type === 'array' ? readArray(cursor, key) : readScalar(cursor, type, key));
}

function readValueType(cursor: Cursor, key: string): GgufValueType {
  const type = cursor.u32('a value type', key);
  const known = valueTypes[type];
  if (known !== undefined) return known;
  const what = `expected a value type from 0 to ${valueTypes.length - 1}, found ${type}`;
  return cursor.fail('UnknownValueType', what, key, cursor.offset - 4);
}

function readScalar(cursor: Cursor, type: Exclude<GgufValueType, 'array'>, key: string): GgufValue {
  if (type === 'string') return { type, value: cursor.string('a text', key) };
  if (type === 'bool') return { type, value: cursor.bool(key) };
  return { type, value: cursor.number(type, key) };
}

function readArray(cursor: Cursor, key: string): GgufValue {
  const at = cursor.offset;
  const of = readValueType(cursor, key);
  if (of === 'array')
    return cursor.fail('NestedArray', 'expected an array of plain values, found one of arrays', key, at);
  const count = cursor.count('length of an array', valueBytes[of], key);
  const type = 'array';
  if (of === 'string') return { type, of, value: cursor.strings(count, 'a text', key) };
  if (of === 'bool') return { type, of, value: Array.from({ length: count }, () => cursor.bool(key)) };
  return { type, of, value: cursor.numbers(of, count, key) };
}

function alignmentOf(metadata: ReadonlyMap<string, GgufValue>, cursor: Cursor): number {
  const key = 'general.alignment';
  const found = metadata.get(key);
  if (found === undefined) return DEFAULT_ALIGNMENT;
  if (found.type === 'uint32') {
    const value = Number(found.value);
    if (Number.isInteger(Math.log2(value))) return value;
    return cursor.fail('InvalidAlignment', `expected a power of two, found ${value}`, key);
  }
  return cursor.fail('InvalidAlignment', `expected a uint32, found a value of type ${found.type}`, key);
}

/** A tensor info as the file has it; the offset counts from the start of the data. */
interface Entry {
  readonly name: string;
  readonly dtype: GgmlType;
  readonly shape: readonly number[];
  readonly byteLength: number;
  readonly begin: number;
  /** File position of the tensor info, for errors. */
  readonly at: number;
}

function readTensor(cursor: Cursor, names: ReadonlySet<string>): Entry {
  const at = cursor.offset;
  const name = cursor.string('a tensor name');
  const length = cursor.offset - at - valueBytes.string;
  if (length > NAME_LIMIT) {
    cursor.fail('NameTooLong', `expected a tensor name of at most ${NAME_LIMIT} bytes, found ${length}`, name, at);
  }
  if (name === '') cursor.fail('EmptyName', 'expected a tensor name of at least one byte', undefined, at);
  if (names.has(name)) cursor.fail('DuplicateTensor', 'the tensor occurs twice in the file', name, at);
  const dimensions = cursor.u32('the number of dimensions', name);
  if (dimensions > MOST_DIMENSIONS) {
    cursor.fail('InvalidShape', `expected at most ${MOST_DIMENSIONS} dimensions, found ${dimensions}`, name);
  }
  const shape = Array.from({ length: dimensions }, () => cursor.u64('a dimension', name)).reverse();
  const id = cursor.u32('the tensor type', name);
  const begin = cursor.u64('the offset', name);
  const dtype = ggmlTypeOf(id);
  if (dtype === undefined) {
    return cursor.fail('UnsupportedType', `tensor type ${id} is not known or was removed from GGUF`, name, at);
  }
  const byteLength = ggmlBytes(dtype, shape);
  if (byteLength === undefined) {
    const what = `a row of ${shape.at(-1) ?? 1} values is not a whole number of ${dtype} blocks of ${ggmlTypes[dtype].block}`;
    return cursor.fail('BadRow', what, name, at);
  }
  if (!Number.isFinite(byteLength) || shape.some((size) => !Number.isSafeInteger(size))) {
    return cursor.fail('Overflow', `the shape [${shape.join(', ')}] has more than 2^53 bytes`, name, at);
  }
  return { name, dtype, shape, byteLength, begin, at };
}

/** Checks that each tensor begins at the next aligned position after the one before, and that all lie in the file. */
function layOut(
  cursor: Cursor,
  entries: readonly Entry[],
  alignment: number,
  fileEnd: number,
): Map<string, GgufTensorInfo> {
  const align = (position: number): number => Math.ceil(position / alignment) * alignment;
  const dataStart = align(cursor.offset);
  const tensors = new Map<string, GgufTensorInfo>();
  let expected = 0;
  for (const { name, dtype, shape, byteLength, begin, at } of entries) {
    if (begin !== expected) {
      const problem = begin < expected ? 'overlaps the tensor before it' : 'leaves a hole before it';
      cursor.fail('InvalidOffset', `expected data from ${expected} on, found ${begin}: it ${problem}`, name, at);
    }
    const offset = dataStart + begin;
    if (offset + byteLength > fileEnd) {
      const what = `the tensor ends at byte ${offset + byteLength}, the file at byte ${fileEnd}: the file is cut off`;
      cursor.fail('OutOfFile', what, name, at);
    }
    tensors.set(name, { name, dtype, shape, byteLength, offset });
    expected = align(begin + byteLength);
  }
  return tensors;
}
