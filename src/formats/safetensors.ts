/**
 * The SafeTensors format: 8 bytes with the header's length n (little-endian), n bytes of JSON
 * `{"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, "__metadata__": {"key": "text"}}`, then the data,
 * row-major and little-endian, which the tensors cover without overlap or hole. The reader accepts what the reference
 * implementation accepts (whitespace around the JSON, empty tensors, scalars), except duplicate keys and unknown keys of
 * a tensor, which other readers interpret in different ways.
 */
import type { FormatErrorCode } from '../error-codes.ts';
import { FormatError } from '../errors.ts';
import type { ByteSource } from './bytes.ts';
import { JsonScanner } from './json.ts';

/** Bits per value of every dtype of the format. */
export const dtypeBits = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
} as const;

export type Dtype = keyof typeof dtypeBits;

/** Longest header accepted, in bytes: the limit of the reference implementation. */
export const HEADER_LIMIT = 100_000_000;
const LENGTH_BYTES = 8;

export interface TensorInfo {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly byteLength: number;
  /** Byte position in the file. */
  readonly offset: number;
}

export interface SafeTensorsHeader {
  /** In the order of their data. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly metadata: ReadonlyMap<string, string>;
}

/** A tensor as the header has it; begin and end count from the end of the header. */
interface Entry {
  readonly name: string;
  /** Position of the entry in the header text. */
  readonly at: number;
  readonly dtype: Dtype;
  readonly shape: number[];
  readonly begin: number;
  readonly end: number;
}

/**
 * Reads and checks the header, no tensor data.
 * @throws FormatError HeaderTooSmall, HeaderTooLarge, InvalidHeaderLength, InvalidUtf8, NotJsonObject, DuplicateKey,
 * InvalidMetadata, UnknownDtype, NotInteger, Overflow, InvalidOffset, Misaligned, TensorInvalidInfo, IncompleteBuffer
 */
export async function readSafeTensorsHeader(source: ByteSource): Promise<SafeTensorsHeader> {
  const { name, byteLength } = source;
  if (byteLength < LENGTH_BYTES) {
    throw new FormatError('HeaderTooSmall', name, `expected at least ${LENGTH_BYTES} bytes, found ${byteLength}`);
  }
  const head = await source.read(0, LENGTH_BYTES);
  const declared = new DataView(head.buffer).getBigUint64(0, true);
  if (declared > BigInt(HEADER_LIMIT)) {
    const what = `expected a header of at most ${HEADER_LIMIT} bytes, found a length of ${declared}: not a SafeTensors file`;
    throw new FormatError('HeaderTooLarge', name, what, { offset: 0 });
  }
  const headerLength = Number(declared);
  const dataStart = LENGTH_BYTES + headerLength;
  if (dataStart > byteLength) {
    const what = `the header ends at byte ${dataStart}, the file at byte ${byteLength}: the file is cut off`;
    throw new FormatError('InvalidHeaderLength', name, what, { offset: 0 });
  }
  const scanner = new JsonScanner(await source.read(LENGTH_BYTES, dataStart), name, {
    base: LENGTH_BYTES,
    syntaxCode: 'NotJsonObject',
  });
  const { entries, metadata } = readEntries(scanner);
  return { tensors: layOut(scanner, entries, { file: name, dataStart, fileEnd: byteLength }), metadata };
}

function readEntries(scanner: JsonScanner): { entries: Entry[]; metadata: Map<string, string> } {
  const entries: Entry[] = [];
  const metadata = new Map<string, string>();
  scanner.object((name, at) => {
    if (name === '__metadata__') readMetadata(scanner, metadata);
    else entries.push(readEntry(scanner, name, at));
  });
  scanner.expectEnd();
  return { entries, metadata };
}

function readMetadata(scanner: JsonScanner, metadata: Map<string, string>): void {
  if (scanner.peek() !== 0x7b) throw scanner.unexpected('an object of texts', 'InvalidMetadata', '__metadata__');
  scanner.object((key) => metadata.set(key, scanner.string('a text', 'InvalidMetadata', key)));
}

function readEntry(scanner: JsonScanner, name: string, at: number): Entry {
  let dtype: Dtype | undefined;
  let shape: number[] | undefined;
  let offsets: number[] | undefined;
  if (scanner.peek() !== 0x7b) throw scanner.unexpected('a tensor object', 'TensorInvalidInfo', name);
  scanner.object((key, keyAt) => {
    if (key === 'dtype') dtype = readDtype(scanner, name);
    else if (key === 'shape') shape = readIntegers(scanner, name, { kind: 'NotInteger', range: 'Overflow' });
    else if (key === 'data_offsets') {
      offsets = readIntegers(scanner, name, { kind: 'InvalidOffset', range: 'InvalidOffset' });
    } else throw scanner.error('TensorInvalidInfo', `unknown key ${JSON.stringify(key.slice(0, 40))}`, keyAt, name);
  });
  if (dtype === undefined || shape === undefined || offsets === undefined) {
    throw scanner.error('TensorInvalidInfo', 'expected dtype, shape and data_offsets', at, name);
  }
  if (offsets.length !== 2 || offsets[1]! < offsets[0]!) {
    const what = `expected data_offsets [begin, end], found ${offsets.length === 2 ? `[${offsets}]` : `${offsets.length} numbers`}`;
    throw scanner.error('InvalidOffset', what, at, name);
  }
  return { name, at, dtype, shape, begin: offsets[0]!, end: offsets[1]! };
}

function readDtype(scanner: JsonScanner, name: string): Dtype {
  scanner.peek();
  const at = scanner.position;
  const dtype = scanner.string('a dtype', 'UnknownDtype', name);
  if (Object.hasOwn(dtypeBits, dtype)) return dtype as Dtype;
  const known = Object.keys(dtypeBits).join(', ');
  throw scanner.error('UnknownDtype', `unknown dtype ${JSON.stringify(dtype.slice(0, 40))}, known: ${known}`, at, name);
}

function readIntegers(
  scanner: JsonScanner,
  name: string,
  codes: { kind: FormatErrorCode; range: FormatErrorCode },
): number[] {
  const integers: number[] = [];
  if (scanner.peek() !== 0x5b) throw scanner.unexpected('an array of integers', codes.kind, name);
  scanner.array(() => integers.push(scanner.integer(codes, name)));
  return integers;
}

/** Checks, in the order of the data, that the tensors cover it exactly and that each has the bytes of its shape. */
function layOut(
  scanner: JsonScanner,
  entries: Entry[],
  { file, dataStart, fileEnd }: { file: string; dataStart: number; fileEnd: number },
): Map<string, TensorInfo> {
  entries.sort((a, b) => a.begin - b.begin || a.end - b.end);
  const tensors = new Map<string, TensorInfo>();
  let covered = 0;
  for (const { name, at, dtype, shape, begin, end } of entries) {
    if (begin !== covered) {
      const problem = begin < covered ? 'overlaps the tensor before it' : 'leaves a hole before it';
      throw scanner.error('InvalidOffset', `expected data from ${covered} on, found ${begin}: it ${problem}`, at, name);
    }
    const byteLength = tensorBytes(dtype, shape);
    if (byteLength === undefined) {
      throw scanner.error('Overflow', 'the shape has more than 2^53 bits', at, name);
    }
    if (!Number.isInteger(byteLength)) {
      throw scanner.error('Misaligned', `${dtype} values of this shape do not fill whole bytes`, at, name);
    }
    if (end - begin !== byteLength) {
      const what = `expected ${byteLength} bytes for ${dtype} [${shape.slice(0, 8)}], found ${end - begin}`;
      throw scanner.error('TensorInvalidInfo', what, at, name);
    }
    tensors.set(name, { name, dtype, shape, byteLength, offset: dataStart + begin });
    covered = end;
  }
  if (dataStart + covered !== fileEnd) {
    const what = `the tensors end at byte ${dataStart + covered}, the file at byte ${fileEnd}`;
    const why = dataStart + covered > fileEnd ? 'the file is cut off' : 'it holds bytes of no tensor';
    throw new FormatError('IncompleteBuffer', file, `${what}: ${why}`, {
      offset: Math.min(dataStart + covered, fileEnd),
    });
  }
  return tensors;
}

/** Bytes of a tensor, a fraction if its values do not fill whole bytes; undefined beyond 2^53 bits. */
export function tensorBytes(dtype: Dtype, shape: readonly number[]): number | undefined {
  let bits: number = dtypeBits[dtype];
  for (const size of shape) if ((bits *= size) > Number.MAX_SAFE_INTEGER) return undefined;
  return bits / 8;
}

/** What determines a tensor's place in a file. */
export type TensorShape = Pick<TensorInfo, 'name' | 'dtype' | 'shape'>;

/**
 * Returns the bytes of length and header, padded to a multiple of 8, and the place of each tensor, in the given order
 * without gaps. If they are given by falling dtype size, every tensor is aligned to its values.
 * @throws RangeError for a repeated or reserved name, or a shape that does not fill whole bytes
 */
export function encodeSafeTensorsHeader(
  tensors: Iterable<TensorShape>,
  metadata: Readonly<Record<string, string>> = {},
): { bytes: Uint8Array<ArrayBuffer>; tensors: TensorInfo[]; fileBytes: number } {
  const parts: string[] = [];
  const seen = new Set(['__metadata__']);
  const placed: TensorInfo[] = [];
  if (Object.keys(metadata).length > 0) parts.push(`"__metadata__":${JSON.stringify(metadata)}`);
  let covered = 0;
  for (const { name, dtype, shape } of tensors) {
    const byteLength = tensorBytes(dtype, shape);
    if (seen.has(name) || byteLength === undefined || !Number.isInteger(byteLength)) {
      const expected = 'a name used once (not __metadata__) and a shape that fills whole bytes';
      throw new RangeError(`expected ${expected}, found ${JSON.stringify(name)} ${dtype} [${shape}]`);
    }
    seen.add(name);
    const info = { dtype, shape, data_offsets: [covered, covered + byteLength] };
    parts.push(`${JSON.stringify(name)}:${JSON.stringify(info)}`);
    placed.push({ name, dtype, shape, byteLength, offset: covered });
    covered += byteLength;
  }
  const json = new TextEncoder().encode(`{${parts.join(',')}}`);
  const bytes = new Uint8Array(LENGTH_BYTES + Math.ceil(json.length / 8) * 8).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(bytes.length - LENGTH_BYTES), true);
  bytes.set(json, LENGTH_BYTES);
  return {
    bytes,
    tensors: placed.map((tensor) => ({ ...tensor, offset: bytes.length + tensor.offset })),
    fileBytes: bytes.length + covered,
  };
}
