/** fast-check generators of GGUF files, valid ones and ones broken at meaningful places. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { FormatError } from '../../src/errors.ts';
import { memorySource } from '../../src/formats/bytes.ts';
import { encodeGgufHeader } from '../../src/formats/gguf-encode.ts';
import { type GgufHeader, readGgufHeader } from '../../src/formats/gguf-header.ts';
import { type GgmlType, type GgufValue, ggmlBytes, ggmlTypes } from '../../src/formats/gguf-types.ts';

const text = fc.string({ unit: 'binary', maxLength: 12 });
const name = fc.string({ unit: 'binary', minLength: 1, maxLength: 12 });
const integer = {
  uint8: [0, 255],
  int16: [-(2 ** 15), 2 ** 15 - 1],
  uint32: [0, 2 ** 32 - 1],
  int64: [-5, 2 ** 53],
} as const;
const scalars: fc.Arbitrary<GgufValue>[] = Object.entries(integer).map(([type, [min, max]]) =>
  fc.maxSafeInteger().map((value) => ({ type: type as 'uint8', value: min + (Math.abs(value) % (max - min + 1)) })),
);
const value: fc.Arbitrary<GgufValue> = fc.oneof(
  ...scalars,
  fc.float().map((value): GgufValue => ({ type: 'float32', value })),
  fc.boolean().map((value): GgufValue => ({ type: 'bool', value })),
  text.map((value): GgufValue => ({ type: 'string', value })),
  fc.array(text, { maxLength: 4 }).map((value): GgufValue => ({ type: 'array', of: 'string', value })),
  fc.array(fc.boolean(), { maxLength: 4 }).map((value): GgufValue => ({ type: 'array', of: 'bool', value })),
  fc.int32Array({ maxLength: 4 }).map((value): GgufValue => ({ type: 'array', of: 'int32', value })),
  fc.float64Array({ maxLength: 4 }).map((value): GgufValue => ({ type: 'array', of: 'float64', value })),
);

const types = fc.constantFrom(...(Object.keys(ggmlTypes) as GgmlType[]));
const tensor = fc
  .record({ name, dtype: types, shape: fc.array(fc.nat(3), { maxLength: 4 }) })
  .map(({ name, dtype, shape }) => {
    const { block } = ggmlTypes[dtype];
    return { name, dtype, shape: shape.map((size, i) => (i === shape.length - 1 ? size * block : size)) };
  })
  .filter(({ dtype, shape }) => ggmlBytes(dtype, shape) !== undefined);
const tensors = fc.uniqueArray(tensor, { maxLength: 6, selector: (tensor) => tensor.name });
const alignment = fc.constantFrom(undefined, 1, 8, 32, 64);

export const writtenFiles = fc
  .tuple(tensors, fc.uniqueArray(fc.tuple(name, value), { maxLength: 5, selector: ([key]) => key }), alignment)
  .filter(([, entries]) => entries.every(([key]) => !key.startsWith('general.')))
  .map(([shapes, entries, align]) => {
    const metadata = new Map(entries);
    if (align !== undefined) metadata.set('general.alignment', { type: 'uint32', value: align });
    const header = encodeGgufHeader(shapes, metadata);
    const bytes = new Uint8Array(header.fileBytes);
    bytes.set(header.bytes);
    return { bytes, headerBytes: header.bytes.length, placed: header.tensors, metadata };
  });

const anywhere = fc.nat(1_000_000);
/** Interesting values of lengths, counts, types and offsets. */
const numbers = fc.oneof(
  { weight: 3, arbitrary: fc.bigInt(0n, 64n) },
  fc.constantFrom(
    2n ** 64n - 1n,
    2n ** 63n,
    2n ** 53n + 1n,
    2n ** 32n,
    2n ** 31n,
    2n ** 30n + 1n,
    0x03000000n,
    9n,
    13n,
  ),
);
const changes = fc.oneof(
  fc.record({ kind: fc.constant('byte' as const), at: anywhere, by: fc.nat(255) }),
  fc.record({ kind: fc.constant('u32' as const), at: anywhere, by: numbers }),
  fc.record({ kind: fc.constant('u64' as const), at: anywhere, by: numbers }),
  fc.record({ kind: fc.constant('cut' as const), at: anywhere }),
  fc.record({ kind: fc.constant('repeat' as const), at: anywhere, length: fc.nat(40) }),
  fc.record({ kind: fc.constant('remove' as const), at: anywhere, length: fc.nat(40) }),
);

/** Files with one to three changes: bytes and numbers of the header, pieces of it doubled or left out, the end cut off. */
export const mutants: fc.Arbitrary<Uint8Array> = fc
  .tuple(writtenFiles, fc.array(changes, { minLength: 1, maxLength: 3 }))
  .map(([{ bytes, headerBytes }, list]) => {
    let file: Uint8Array = bytes;
    for (const change of list) {
      const at =
        change.at % (change.kind === 'cut' ? file.length + 1 : Math.max(1, Math.min(headerBytes, file.length)));
      if (change.kind === 'cut') file = file.slice(0, at);
      else if (change.kind === 'repeat')
        file = Uint8Array.of(...file.subarray(0, at + change.length), ...file.subarray(at));
      else if (change.kind === 'remove')
        file = Uint8Array.of(...file.subarray(0, at), ...file.subarray(at + change.length));
      else {
        const by = change.kind === 'byte' ? [change.by] : new Uint8Array(BigUint64Array.of(change.by).buffer);
        const width = change.kind === 'u32' ? 4 : by.length;
        file = file.slice();
        for (let i = 0; i < width && at + i < file.length; i++) file[at + i] = by[i]!;
      }
    }
    return file;
  });

/**
 * Reads a broken file: a FormatError of one line, or tensors that lie in the file one after the other. True if it
 * loads.
 */
export async function checkMutant(bytes: Uint8Array): Promise<boolean> {
  let header: GgufHeader;
  try {
    header = await readGgufHeader(memorySource('x', bytes));
  } catch (error) {
    assert.ok(error instanceof FormatError, `a FormatError, not ${error}`);
    assert.ok(!error.message.includes('\n') && error.message.length < 2000, error.message);
    assert.ok(error.offset !== undefined && error.offset <= bytes.length, error.message);
    return false;
  }
  let end = 0;
  for (const [key, tensor] of header.tensors) {
    assert.equal(tensor.name, key);
    assert.ok(tensor.offset >= end && tensor.byteLength === ggmlBytes(tensor.dtype, tensor.shape));
    end = tensor.offset + tensor.byteLength;
  }
  assert.ok(end <= bytes.length);
  return true;
}
